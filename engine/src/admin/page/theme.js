// Light or dark, before anything is drawn: what was chosen here, or else as the system has it.
"use strict";
(() => {
  const root = document.documentElement;
  const kept = "vendue.theme";
  root.dataset.theme = localStorage.getItem(kept) ?? "auto";
  addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = root.dataset.theme;
    select.addEventListener("change", () => {
      root.dataset.theme = select.value;
      localStorage.setItem(kept, select.value);
      document.dispatchEvent(new Event("theme"));
    });
  });
})();
