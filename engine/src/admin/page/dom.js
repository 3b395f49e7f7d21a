// Elements, made without markup: a name is a tenant's text and never becomes any.

/** An element with attributes (`on...` are listeners, others as named) and children, text among them. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Changes an element's text only where it differs: what is read or selected stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let announced = "";

/** Says something to who does not see the page; the same thing once. */
export function announce(text) {
  if (text === announced) return;
  announced = text;
  say(document.getElementById("live"), text);
}

/** A named part of a view. */
export function part(title, ...children) {
  const id = `part-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

/** Buttons of which one is pressed. `choices` are [value, label]. */
export function choice(label, choices, chosen, chose) {
  const buttons = choices.map(([value, text]) =>
    el("button", {
      type: "button",
      "aria-pressed": String(value === chosen),
      onclick: () => {
        for (const [at, button] of buttons.entries()) {
          button.setAttribute("aria-pressed", String(choices[at][0] === value));
        }
        chose(value);
      },
    }, text));
  return el("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
}
