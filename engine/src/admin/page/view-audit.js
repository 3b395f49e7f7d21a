// The audit trail, searched by the daemon: whatever is named must hold.

import { get } from "./api.js";
import { announce, el, part, say } from "./dom.js";
import { count, credits, funds, moment, ticks } from "./format.js";
import { Table } from "./table.js";

export const id = "audit";
export const title = "Audit";

/** Records looked through at a time. */
const RECORDS = 20_000;

const AMOUNTS = ["amount_credits", "amount_vru", "wanted_vru", "number", "count", "millicores", "value"];

/** What a transaction's amount is, in its own unit. */
function quantity(row) {
  if (row.amount_millicredits !== undefined) return `${credits(row.amount_millicredits)} credits`;
  if ("held" in row) return row.held === null ? "unbounded" : count(row.held);
  const key = AMOUNTS.find((name) => row[name] !== undefined);
  const unit = { amount_credits: " credits", amount_vru: " VRU", wanted_vru: " VRU", millicores: "m" }[key] ?? "";
  return key ? `${count(row[key])}${unit}` : "–";
}

function results(names) {
  const whom = (account, instance) => {
    const parts = [account !== null && names.account(account), instance !== null && `instance ${instance}`];
    return parts.filter(Boolean).join(", ") || "–";
  };
  return new Table({
    caption: "Transactions",
    key: (row) => row.at,
    empty: "nothing was found, or looked for yet",
    sort: 0,
    down: true,
    columns: [
      { label: "Record", number: true, value: (row) => row.sequence, text: (row) => count(row.sequence) },
      { label: "Time", value: (row) => row.time, text: (row) => moment(row.time) },
      { label: "What", text: (row) => row.what },
      { label: "Whose", text: (row) => whom(row.account, row.instance) },
      { label: "With", text: (row) => whom(row.other_account, row.other_instance) },
      { label: "Book", text: (row) => (row.book === null ? "–" : names.book(row.book)) },
      { label: "Amount", number: true, text: quantity },
      { label: "Price", number: true, value: (row) => row.price_ticks || null, text: (row) => ticks(row.price_ticks) },
      { label: "Funds", number: true, value: (row) => row.funds_micro || null, text: (row) => (row.funds_micro ? funds(row.funds_micro) : "–") },
      { label: "By", text: (row) => (row.role ? `${row.role} ${row.peer ?? ""}` : "–") },
      { label: "Refused or late", text: (row) => row.refused, tone: (row) => (row.refused ? "bad" : "") },
      { label: "Chain", text: (row) => row.chain },
    ],
  });
}

const FIELDS = [
  ["what", "What was done", { type: "search", placeholder: "trade, limit, lease…" }],
  ["account", "Account (name or number)", { type: "search", list: "audit-accounts" }],
  ["instance", "Instance (name or number)", { type: "search", list: "audit-instances" }],
  ["by", "Who asked", { type: "search", placeholder: "operator, uid 0…" }],
  ["from", "From record", { type: "number", min: "1", step: "1" }],
];

/** The number of what is called so, or `undefined` for nothing that was asked. */
function numbered(text, rows, key) {
  if (!text) return undefined;
  const found = rows.find((row) => row.name === text);
  if (found) return found[key];
  if (/^\d+$/.test(text)) return Number(text);
  throw new RangeError(`no ${key} is called “${text}”`);
}

export function create({ names }) {
  const inputs = Object.fromEntries(FIELDS.map(([name, , kind]) => [name, el("input", { ...kind, id: `audit-${name}`, autocomplete: "off", spellcheck: "false" })]));
  const said = el("p", { class: "notice quiet", role: "status" }, "The daemon reads its journal and verifies the chain on the way.");
  const table = results(names);
  const more = el("button", { type: "button", hidden: true, onclick: () => run(state.next) }, "Look on");
  const [accounts, instances] = [el("datalist", { id: "audit-accounts" }), el("datalist", { id: "audit-instances" })];
  const state = { rows: [], next: null, durable: 0, turn: 0 };

  async function run(from) {
    const mine = (state.turn += 1);
    const asked = new URLSearchParams({ records: RECORDS });
    try {
      if (from === undefined) {
        state.rows = [];
        from = inputs.from.value ? Number(inputs.from.value) : Math.max(1, Number(state.durable) - RECORDS + 1);
      }
      asked.set("from", from);
      const [account, instance] = [numbered(inputs.account.value.trim(), names.accounts, "account"), numbered(inputs.instance.value.trim(), names.instances, "instance")];
      for (const [name, value] of [["what", inputs.what.value.trim()], ["by", inputs.by.value.trim()], ["account", account], ["instance", instance]]) {
        if (value !== undefined && value !== "") asked.set(name, value);
      }
      tell("Looking…", "quiet");
      const answer = await get(`audit?${asked}`);
      if (mine !== state.turn) return;
      show(answer, from);
    } catch (error) {
      if (mine === state.turn) tell(error.message, "bad");
    }
  }

  function show({ rows, next, broken }, from) {
    for (const row of rows) row.at = state.rows.push(row);
    [state.next, more.hidden] = [next, next === null];
    table.update(state.rows);
    const until = next === null ? "the end" : `record ${count(next)}`;
    tell(broken ? `The trail cannot be trusted: ${broken}` : `${count(state.rows.length)} found from record ${count(from)} to ${until}; the chain holds`, broken ? "bad" : "good");
  }

  function tell(text, tone) {
    said.className = `notice ${tone}`;
    say(said, text);
  }

  const submit = (event) => { event.preventDefault(); run(); };
  const labels = FIELDS.map(([name, label]) => el("label", {}, label, inputs[name]));
  const form = el("form", { class: "fields", role: "search", "aria-label": "Audit trail", onsubmit: submit },
    ...labels, el("button", { type: "submit", class: "main" }, "Search"), accounts, instances);
  return {
    parts: [part("Audit trail", form, said, table.element, more)],
    update({ status }) {
      state.durable = status.durable;
      const options = (rows) => rows.slice(0, 200).map((row) => el("option", { value: row.name }));
      if (accounts.childElementCount !== names.accounts.length) accounts.replaceChildren(...options(names.accounts));
      if (instances.childElementCount !== Math.min(200, names.instances.length)) instances.replaceChildren(...options(names.instances));
    },
    end() { state.turn += 1; announce(""); },
  };
}
