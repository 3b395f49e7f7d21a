// Swaps of tokens: those that wait for somebody, who may decide here, and what became of the others.

import { post } from "./api.js";
import { announce, el, part, say } from "./dom.js";
import { count, duration, funds, moment } from "./format.js";
import { sure } from "./sure.js";
import { Table } from "./table.js";

export const id = "swaps";
export const title = "Swaps";

const WAITS = "proposed";
const TONES = { active: "good", boosting: "good", ended: "good", "rolled back": "warn", rejected: "warn", refused: "bad", expired: "warn" };

/** Columns of both tables: those before and those after what only one of them has. */
function shared(names) {
  const whose = (account, instance, token) => `${names.account(account)}${instance === null ? "" : `, ${names.instance(instance)}`} (token ${token})`;
  const tier = (row) => names.byBook.get(row.book);
  const vrus = (row, vru) => names.vrus(tier(row)?.tier, tier(row)?.resource, vru);
  const first = { label: "Swap", number: true, value: (row) => row.id, text: (row) => count(row.id) };
  return [first, [
    { label: "Book", text: (row) => names.book(row.book) },
    { label: "Amount", number: true, value: (row) => row.vru, text: (row) => vrus(row, row.vru) },
    { label: "Lends", text: (row) => whose(row.source_account, row.source_instance, row.source) },
    { label: "Has it meanwhile", text: (row) => whose(row.destination_account, row.destination_instance, row.destination) },
    { label: "For", number: true, value: (row) => row.lasts_ms, text: (row) => duration(row.lasts_ms) },
    { label: "Pays", number: true, value: (row) => row.incentive_micro, text: (row) => funds(row.incentive_micro) },
    { label: "Boost", number: true, value: (row) => row.boost_vru, text: (row) => (row.boost_vru ? `${vrus(row, row.boost_vru)} for ${duration(row.boost_ms)}` : "–") },
    { label: "Asked by", text: (row) => (row.by_manager ? "the daemon" : names.account(row.destination_account)) },
  ]];
}

/** A swap in a sentence, for who is about to decide. */
function sentence(row, names) {
  const tier = names.byBook.get(row.book);
  const what = names.vrus(tier?.tier, tier?.resource, row.vru);
  return `${names.account(row.source_account)} lends ${what} of ${names.book(row.book)} (token ${row.source}) to `
    + `${names.account(row.destination_account)} (token ${row.destination}) for ${duration(row.lasts_ms)}, and earns ${funds(row.incentive_micro)}.`;
}

export function create({ names, refresh }) {
  const [first, columns] = shared(names);
  const said = el("p", { class: "notice quiet", role: "status" }, "Who owns the token that lends decides, or an operator.");
  let before = null;

  async function decide(row, verb) {
    const answer = await sure({
      title: `${verb} swap ${row.id}?`, text: sentence(row, names), yes: `${verb} swap ${row.id}`,
      words: verb === "Reject" ? "Why (who asked for it reads this)" : null,
    });
    if (!answer) return;
    const body = verb === "Reject" ? { id: row.id, words: answer.words } : { id: row.id };
    try {
      await post(verb === "Reject" ? "swap_reject" : "swap_approve", body);
      tell(`Swap ${row.id} is ${verb === "Reject" ? "rejected" : "approved"}`, "good");
    } catch (error) {
      tell(`Swap ${row.id}: ${error.message}`, "bad");
    }
    refresh();
  }

  function tell(text, tone) {
    said.className = `notice ${tone}`;
    say(said, text);
  }

  const button = (row, verb, kind) => el("button", { type: "button", class: kind, "aria-label": `${verb} swap ${row.id}`, onclick: () => decide(row, verb) }, verb);
  const waiting = new Table({
    caption: "Swaps that wait for approval",
    key: (row) => row.id,
    empty: "no swap waits",
    columns: [
      first,
      { label: "Decide", text: () => "", fill: (cell, row) => {
        if (!cell.firstChild) cell.append(el("span", { class: "buttons-inline" }, button(row, "Approve", "main"), button(row, "Reject", "")));
      } },
      ...columns,
      { label: "Until", value: (row) => row.deadline_ms, text: (row) => moment(row.deadline_ms), title: "approved by then, or it expires" },
    ],
  });
  const settled = new Table({
    caption: "Swaps under way and over",
    key: (row) => row.id,
    sort: 0,
    down: true,
    columns: [
      first,
      { label: "State", text: (row) => row.state, tone: (row) => TONES[row.state] ?? "" },
      { label: "Why", text: (row) => [row.reason, row.words].filter(Boolean).join(": ") },
      ...columns,
      { label: "Earned", number: true, value: (row) => row.paid_micro, text: (row) => funds(row.paid_micro) },
      { label: "Until", value: (row) => row.ends_ms, text: (row) => moment(row.ends_ms) },
    ],
  });
  return {
    parts: [part("Swaps that wait for approval", said, waiting.element), part("Swaps under way and over", settled.element)],
    sources: () => ({ swaps: "swaps" }),
    update({ swaps }) {
      const rows = swaps ?? [];
      const open = rows.filter((row) => row.state === WAITS);
      waiting.update(open);
      settled.update(rows.filter((row) => row.state !== WAITS));
      if (before !== null && open.length > before) announce(`${open.length} swaps wait for approval`);
      before = open.length;
    },
  };
}
