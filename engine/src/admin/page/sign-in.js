// How somebody without a certificate says who they are.

import { token } from "./api.js";
import { el } from "./dom.js";

/** A form for a token; `why` the one before was no good. */
export function signIn(why, begin) {
  const input = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    pattern: "\\s*[0-9a-fA-F]{64}\\s*", title: "64 hexadecimal digits", "aria-describedby": "token-help" });
  const enter = (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    begin();
  };
  return el("section", { class: "sign-in", "aria-labelledby": "sign-in-title" },
    el("h1", { id: "sign-in-title" }, "Sign in"),
    why ? el("p", { class: "notice bad", role: "alert" }, why) : null,
    el("form", { onsubmit: enter },
      el("p", {}, el("label", { for: "token" }, "Token"), input),
      el("p", { class: "quiet", id: "token-help" },
        "The 64 hexadecimal digits of a token file that [[access]] names: ",
        el("code", {}, "xxd -p -c 32 FILE"),
        ". It is kept in this tab and nowhere else. With a client certificate there is nothing to sign in with."),
      el("p", {}, el("button", { type: "submit", class: "main" }, "Sign in"))));
}
