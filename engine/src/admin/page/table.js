// A table that can be sorted, filtered and turned page by page: however many rows there are, few are drawn.

import { announce, el, say } from "./dom.js";

const PAGE = 50;

/** Orders numbers (BigInts too) by value and all else as text; what is missing comes last. */
function compare(a, b) {
  const none = (value) => value === null || value === undefined || value === "";
  if (none(a) || none(b)) return none(a) - none(b);
  const number = (value) => typeof value === "number" || typeof value === "bigint";
  if (number(a) && number(b)) return a < b ? -1 : a > b ? 1 : 0;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/**
 * `columns`: { label, text(row), value(row) to sort by (the text if left out), number, title, fill(cell, row) }.
 * `key(row)` names a row for good. `chose(row)` makes the first column buttons; `chosen()` is a key.
 */
export class Table {
  constructor({ caption, columns, key, empty, page = PAGE, chose, chosen, sort, down, filter = true }) {
    Object.assign(this, { caption, columns, key, page, chose, chosen });
    [this.rows, this.at, this.sorted, this.down, this.lines] = [[], 0, sort ?? null, down ?? false, new Map()];
    this.body = el("tbody");
    this.heads = columns.map((column, at) => this.#head(column, at));
    this.table = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...this.heads)), this.body);
    this.empty = el("p", { class: "empty" }, empty ?? "none");
    const id = `filter-${caption.toLowerCase().replace(/[^a-z]+/g, "-")}`;
    this.input = el("input", { type: "search", id, "aria-label": `Filter ${caption}`, autocomplete: "off", spellcheck: "false",
      oninput: () => { this.at = 0; this.#draw(); } });
    this.count = el("span", { class: "count" });
    this.back = el("button", { type: "button", onclick: () => this.#turn(-1) }, "Previous");
    this.next = el("button", { type: "button", onclick: () => this.#turn(1) }, "Next");
    this.pager = el("span", { class: "pager", hidden: true }, this.back, this.next);
    this.element = el("div", { class: "table" },
      filter ? el("div", { class: "find" }, el("label", { for: id }, "Filter"), this.input, this.count, this.pager) : null,
      el("div", { class: "scroll", role: "group", tabindex: "0", "aria-label": caption }, this.table, this.empty));
    this.#draw();
  }

  update(rows) {
    this.rows = rows;
    this.#draw();
  }

  #head(column, at) {
    const sort = () => {
      this.down = this.sorted === at ? !this.down : Boolean(column.number);
      [this.sorted, this.at] = [at, 0];
      this.#draw();
      announce(`${this.caption} sorted by ${column.label}, ${this.down ? "falling" : "rising"}`);
    };
    const button = el("button", { type: "button", onclick: sort, title: column.title }, column.label);
    return el("th", { scope: "col", class: column.number ? "number" : null }, button);
  }

  #turn(by) {
    this.at += by;
    this.#draw();
    announce(this.count.textContent);
  }

  /** The rows that the filter leaves, in order. */
  #wanted() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (row) => this.columns.map((column) => column.text(row)).join(" ").toLowerCase();
    const left = words.length ? this.rows.filter((row) => { const all = text(row); return words.every((word) => all.includes(word)); }) : this.rows;
    if (this.sorted === null) return left;
    const column = this.columns[this.sorted];
    const value = column.value ?? column.text;
    const sign = this.down ? -1 : 1;
    return [...left].sort((a, b) => sign * compare(value(a), value(b)));
  }

  #draw() {
    const wanted = this.#wanted();
    const pages = Math.max(1, Math.ceil(wanted.length / this.page));
    this.at = Math.min(Math.max(this.at, 0), pages - 1);
    const from = this.at * this.page;
    const shown = wanted.slice(from, from + this.page);
    for (const [at, head] of this.heads.entries()) {
      if (at === this.sorted) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const all = wanted.length === this.rows.length ? `${wanted.length}` : `${wanted.length} of ${this.rows.length}`;
    say(this.count, pages > 1 ? `${from + 1} to ${from + shown.length} of ${wanted.length}` : all);
    this.pager.hidden = pages < 2;
    [this.back.disabled, this.next.disabled] = [this.at === 0, this.at === pages - 1];
    this.empty.hidden = shown.length > 0;
    this.table.classList.toggle("unseen-body", shown.length === 0);
    this.#lines(shown);
  }

  /** Each row keeps its line while it is shown, so that focus and selection stay where they are. */
  #lines(shown) {
    const lines = new Map();
    const focused = document.activeElement;
    let place = this.body.firstChild;
    const kept = new Set(shown.map((row) => String(this.key(row))));
    for (const [key, line] of this.lines) {
      if (kept.has(key)) continue;
      if (place === line.tr) place = place.nextSibling;
      line.tr.remove();
    }
    for (const row of shown) {
      const key = String(this.key(row));
      const line = this.lines.get(key) ?? this.#line();
      line.row = row;
      this.#fill(line, row, key);
      if (line.tr === place) place = place.nextSibling;
      else this.body.insertBefore(line.tr, place);
      lines.set(key, line);
    }
    this.lines = lines;
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  #line() {
    const line = { row: null, tr: el("tr"), cells: [] };
    for (const [at, column] of this.columns.entries()) {
      const cell = at === 0 ? el("th", { scope: "row" }) : el("td");
      if (column.number) cell.className = "number";
      let inner = cell;
      if (at === 0 && this.chose) {
        inner = el("button", { type: "button", class: "pick", onclick: () => { this.chose(line.row); this.#draw(); } });
        cell.append(inner);
      }
      line.tr.append(cell);
      line.cells.push(inner);
    }
    return line;
  }

  #fill(line, row, key) {
    const picked = this.chosen !== undefined && String(this.chosen()) === key;
    line.tr.classList.toggle("picked", picked);
    for (const [at, column] of this.columns.entries()) {
      const cell = line.cells[at];
      if (column.fill) column.fill(cell, row);
      else say(cell, column.text(row));
      const tone = column.tone?.(row);
      if (column.tone) cell.dataset.tone = tone ?? "";
    }
    if (this.chose) line.cells[0].setAttribute("aria-pressed", String(picked));
  }
}
