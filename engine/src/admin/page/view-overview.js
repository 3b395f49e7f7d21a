// The house at a glance: what the daemon says of itself, and how full each tier is.

import { el, part, say } from "./dom.js";
import { amount, count, credits, duration, moment } from "./format.js";
import { Table } from "./table.js";

export const id = "overview";
export const title = "Overview";

const FACTS = [
  ["Host", (s) => (s.host === "dry-run" ? "dry run: no limit is written" : s.host)],
  ["Requests", (s) => (s.accepting ? "accepted" : "NOT accepted")],
  ["Journal", (s) => `${count(s.durable)} records, sync ${s.journal_sync}`],
  ["Snapshot at", (s) => count(s.snapshot)],
  ["Trades", (s) => count(s.trades)],
  ["Open orders", (s) => count(s.orders)],
  ["Connections", (s) => count(s.connections)],
  ["Limits written", (s) => `${count(s.limits_written)}, ${count(s.limits_failed)} failed`],
  ["Limits found changed", (s) => count(s.limits_drifted)],
  ["Fragmentation", (s) => `${count(s.fragmentation_percent)}%`],
  ["Up", (s) => duration(s.uptime_ms)],
  ["Miss their objective", (s) => (s.in_breach.length ? s.in_breach.join(", ") : "none")],
];

/** What part of `whole` is used, as a figure and a bar. */
export function share(cell, used, whole) {
  if (!cell.firstChild) cell.append(el("span", { class: "share" }, el("span"), el("meter", { min: 0, max: 100, "aria-hidden": "true" })));
  const [text, meter] = cell.firstChild.children;
  const known = used !== null && used !== undefined && whole > 0;
  const percent = known ? (Number(used) / Number(whole)) * 100 : 0;
  say(text, known ? `${percent.toFixed(percent < 10 ? 1 : 0)}%` : "–");
  meter.value = Math.min(100, percent);
  meter.classList.toggle("hollow", !known);
}

export const shareText = (used, whole) => (whole > 0 ? `${Math.round((Number(used) / Number(whole)) * 100)}%` : "–");

/** Millicores in use by each tier, as measured. */
function usedByTier(sensors, names) {
  const used = new Map();
  for (const row of sensors ?? []) {
    const tier = names.byInstance.get(row.instance)?.tier;
    if (tier !== undefined && row.cpu_millicores !== null) used.set(tier, (used.get(tier) ?? 0) + row.cpu_millicores);
  }
  return used;
}

export function create({ names }) {
  const values = FACTS.map(() => el("dd", {}, "–"));
  const facts = el("dl", { class: "facts" }, ...FACTS.map(([label], at) => el("div", {}, el("dt", {}, label), values[at])));
  const taken = (row) => row.reserved_vru + (row.leased ?? 0);
  const vrus = (row, vru) => names.vrus(row.tier, row.resource, vru);
  const tiers = new Table({
    caption: "Tiers",
    key: (row) => row.book,
    columns: [
      { label: "Tier", text: (row) => row.name },
      { label: "Resource", text: (row) => row.resource },
      { label: "State", text: (row) => row.state, tone: (row) => (row.state === "live" ? "good" : "warn") },
      { label: "Capacity", number: true, value: (row) => row.capacity_vru, text: (row) => vrus(row, row.capacity_vru) },
      { label: "Reserved", number: true, value: (row) => row.reserved_vru, text: (row) => vrus(row, row.reserved_vru) },
      { label: "Leased", number: true, value: (row) => row.leased, text: (row) => vrus(row, row.leased) },
      { label: "Lent", number: true, value: (row) => row.lent, text: (row) => vrus(row, row.lent) },
      { label: "Reserved and leased", number: true, value: (row) => taken(row) / row.capacity_vru, text: (row) => shareText(taken(row), row.capacity_vru),
        fill: (cell, row) => share(cell, taken(row), row.capacity_vru) },
      { label: "Measured", number: true, value: (row) => row.used, text: (row) => (row.used === undefined ? "–" : amount(row.resource, row.used)) },
      { label: "Pool credits", number: true, value: (row) => row.pool_millicredits, text: (row) => credits(row.pool_millicredits) },
    ],
  });
  const faults = new Table({
    caption: "Faults",
    key: (row) => `${row.source} ${row.text}`,
    empty: "no faults",
    filter: false,
    columns: [
      { label: "Since", text: (row) => moment(row.since) },
      { label: "Source", text: (row) => row.source },
      { label: "What is wrong and what to do", text: (row) => row.text, tone: () => "bad" },
      { label: "Times", number: true, value: (row) => row.count, text: (row) => count(row.count) },
    ],
  });
  return {
    parts: [part("The daemon", facts), part("Faults that stand", faults.element), part("Tiers", tiers.element)],
    sources: () => ({ tiers: "tiers", rents: "rents", sensors: "sensors" }),
    update({ status, tiers: rows, rents, sensors }) {
      for (const [at, [, text]] of FACTS.entries()) say(values[at], text(status));
      faults.update(status.faults);
      const rent = new Map((rents ?? []).map((row) => [row.book, row]));
      const used = usedByTier(sensors, names);
      tiers.update((rows ?? []).filter((row) => row.capacity_vru > 0).map((row) => ({
        ...row, leased: rent.get(row.book)?.granted_vru, lent: rent.get(row.book)?.lent_vru,
        used: row.resource === "cpu" ? used.get(row.tier) ?? 0 : undefined,
      })));
    },
  };
}
