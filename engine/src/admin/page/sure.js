// Asks before something is done that cannot be taken back.

import { say } from "./dom.js";

const dialog = document.getElementById("ask");
const [title, text, yes, words, label] = ["ask-title", "ask-text", "ask-yes", "ask-words", "ask-words-label"]
  .map((id) => document.getElementById(id));

/** Resolves to `{ words }` if the answer is yes, to `null` if not. Words are asked for where they have a label. */
export function sure(asked) {
  say(title, asked.title);
  say(text, asked.text);
  say(yes, asked.yes);
  label.hidden = !asked.words;
  say(label.firstElementChild, asked.words ?? "");
  [words.value, dialog.returnValue] = ["", "no"];
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes" ? { words: words.value.trim() } : null), { once: true });
  });
}
