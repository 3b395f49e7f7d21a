// What is rented above baselines, what that costs, and the tasks' margins.

import { part } from "./dom.js";
import { count, decimal, funds, moment, permille, ticks } from "./format.js";
import { Table } from "./table.js";

export const id = "leases";
export const title = "Leases and margins";

function leasesTable(names) {
  return new Table({
    caption: "Leases",
    key: (row) => row.handle,
    columns: [
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Book", text: (row) => names.book(row.book) },
      { label: "Class", text: (row) => row.class },
      { label: "Wants (VRU)", number: true, value: (row) => row.wanted_vru, text: (row) => count(row.wanted_vru) },
      { label: "Has (VRU)", number: true, value: (row) => row.granted_vru, text: (row) => count(row.granted_vru), tone: (row) => (row.granted_vru < row.wanted_vru ? "warn" : "good") },
      { label: "Pays at most", number: true, value: (row) => row.rent_ticks, text: (row) => ticks(row.rent_ticks) },
      { label: "Paid", number: true, value: (row) => row.paid_micro, text: (row) => funds(row.paid_micro) },
      { label: "Held", number: true, value: (row) => row.held_micro, text: (row) => funds(row.held_micro) },
      { label: "Expires", value: (row) => row.expires_at_ms, text: (row) => (row.expires_at_ms ? moment(row.expires_at_ms) : "–") },
      { label: "Handle", number: true, text: (row) => row.handle },
    ],
  });
}

function rentsTable(names) {
  const vru = (label, key) => ({ label, number: true, value: (row) => row[key], text: (row) => count(row[key]) });
  return new Table({
    caption: "Rents",
    key: (row) => `${row.book} ${row.class}`,
    page: 12,
    columns: [
      { label: "Book", value: (row) => row.book, text: (row) => names.book(row.book) },
      { label: "Class", text: (row) => row.class },
      { label: "Rent", number: true, value: (row) => row.rent_ticks, text: (row) => ticks(row.rent_ticks) },
      { label: "At least", number: true, value: (row) => row.reserve_ticks, text: (row) => ticks(row.reserve_ticks) },
      vru("Leases", "leases"), vru("For rent (VRU)", "supply_vru"), vru("Rented (VRU)", "granted_vru"), vru("Lent (VRU)", "lent_vru"),
    ],
  });
}

function tasksTable(names) {
  const money = (label, key) => ({ label, number: true, value: (row) => row[key], text: (row) => funds(row[key]) });
  return new Table({
    caption: "Tasks",
    key: (row) => row.handle,
    columns: [
      { label: "Task", text: (row) => row.name || row.handle },
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Account", text: (row) => names.account(row.account) },
      { label: "VRUs", number: true, value: (row) => row.vru, text: (row) => `${count(row.vru)} of ${count(row.vru_max)}` },
      { ...money("Margin a second", "margin_micro"), tone: (row) => (row.margin_micro > row.margin_min_micro ? "good" : "warn") },
      money("Costs a second", "rate_micro"), money("Bid", "bid_micro"), money("Paid", "paid_micro"),
      { label: "Progress", number: true, value: (row) => row.progress_permille, text: (row) => permille(row.progress_permille) },
      { label: "Uses (VRU)", number: true, value: (row) => row.used_millivru, text: (row) => decimal(row.used_millivru, 3) },
      { label: "State", text: (row) => [row.waits && "waits", row.inefficient && "inefficient"].filter(Boolean).join(", "), tone: (row) => (row.waits || row.inefficient ? "warn" : "") },
    ],
  });
}

function swarmsTable(names) {
  return new Table({
    caption: "Groups",
    key: (row) => row.group,
    columns: [
      { label: "Group", text: (row) => row.name },
      { label: "Account", text: (row) => names.account(row.account) },
      { label: "Resource", text: (row) => row.resource },
      { label: "Active", number: true, value: (row) => row.active, text: (row) => `${count(row.active)} of ${count(row.members)}` },
      { label: "VRUs won", number: true, value: (row) => row.used_vru, text: (row) => `${count(row.used_vru)} of ${count(row.active_vru)}` },
      { label: "Tasks", number: true, value: (row) => row.running, text: (row) => `${count(row.running)}, ${count(row.waiting)} wait` },
      { label: "Demand", text: (row) => row.demand, tone: (row) => (row.demand === "high" ? "warn" : "") },
      { label: "Earned", number: true, value: (row) => row.revenue_micro, text: (row) => funds(row.revenue_micro) },
    ],
  });
}

function policiesTable(names) {
  const money = (label, key) => ({ label, number: true, value: (row) => row[key], text: (row) => funds(row[key]) });
  return new Table({
    caption: "Policies",
    key: (row) => `${row.instance} ${row.resource}`,
    columns: [
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Resource", text: (row) => row.resource },
      { label: "Covers", text: (row) => row.cover },
      { label: "Needs (VRU)", number: true, value: (row) => row.need_vru, text: (row) => count(row.need_vru) },
      { label: "Leases (VRU)", number: true, value: (row) => row.granted_vru, text: (row) => `${count(row.granted_vru)} of ${count(row.wanted_vru)}` },
      money("Budget an hour", "budget_micro"), money("This hour", "hour_micro"), money("Spent", "spent_micro"),
      { label: "Did last", text: (row) => row.act ?? "–" },
      { label: "Why", text: (row) => row.refused ?? row.reason ?? "" },
    ],
  });
}

function objectivesTable(names) {
  return new Table({
    caption: "Objectives",
    key: (row) => `${row.instance} ${row.kpi}`,
    columns: [
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Indicator", text: (row) => row.kpi },
      { label: "Value", number: true, value: (row) => row.value, text: (row) => count(row.value) },
      { label: "Breached", number: true, value: (row) => row.breach_at, text: (row) => `${row.below ? "below" : "above"} ${count(row.breach_at)}` },
      { label: "Standing", text: (row) => row.standing, tone: (row) => (row.standing.includes("breach") ? "bad" : "") },
      { label: "Rescued by (VRU)", number: true, value: (row) => row.granted_vru, text: (row) => `${count(row.granted_vru)} of ${count(row.wanted_vru)}` },
      { label: "Spent", number: true, value: (row) => row.spent_micro, text: (row) => `${funds(row.spent_micro)} of ${funds(row.budget_micro)}` },
    ],
  });
}

const PARTS = [
  ["leases", "Leases", leasesTable], ["tasks", "Tasks and their margins", tasksTable], ["swarms", "Groups of instances", swarmsTable],
  ["policies", "Policies", policiesTable], ["objectives", "Objectives and rescues", objectivesTable], ["rents", "Rents", rentsTable],
];

export function create({ names }) {
  const tables = PARTS.map(([name, heading, make]) => [name, heading, make(names)]);
  return {
    parts: tables.map(([, heading, table]) => part(heading, table.element)),
    sources: () => Object.fromEntries(PARTS.map(([name]) => [name, name])),
    update(data) {
      const held = new Set(names.tiers.filter((row) => row.capacity_vru > 0).map((row) => row.book));
      for (const [name, , table] of tables) {
        const rows = data[name] ?? [];
        table.update(name === "rents" ? rows.filter((row) => held.has(row.book)) : rows);
      }
    },
  };
}
