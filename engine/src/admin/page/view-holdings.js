// Who holds what: accounts and their funds, instances and their credits, tokens.

import { part } from "./dom.js";
import { count, credits, funds, moment } from "./format.js";
import { Table } from "./table.js";

export const id = "holdings";
export const title = "Holdings";

function accountsTable() {
  return new Table({
    caption: "Accounts",
    key: (row) => row.account,
    page: 20,
    columns: [
      { label: "Account", text: (row) => row.name },
      { label: "Number", number: true, value: (row) => row.account, text: (row) => String(row.account) },
      { label: "Free funds", number: true, value: (row) => row.free_micro, text: (row) => funds(row.free_micro) },
      { label: "Held funds", number: true, value: (row) => row.held_micro, text: (row) => funds(row.held_micro) },
      { label: "Instances", number: true, value: (row) => row.instances, text: (row) => count(row.instances) },
      { label: "Cap", number: true, value: (row) => row.cap_millicores, text: (row) => (row.cap_millicores ? `${count(row.cap_millicores)}m` : "none") },
      { label: "Group", number: true, value: (row) => row.group, text: (row) => String(row.group) },
      { label: "Trades with others", text: (row) => (row.opted_in ? "yes" : "no") },
    ],
  });
}

/** A line for each resource that an instance has anything of. */
export function lines(instances) {
  const has = (of) => of.baseline_vru || of.entitled_vru || of.free_millicredits || of.held_millicredits;
  return instances.flatMap((row) => row.resources.filter(has).map((of) => ({ ...row, ...of })));
}

function instancesTable(names) {
  const vrus = (row, vru) => names.vrus(row.tier, row.resource, vru);
  const state = (row) => (row.frozen ? "frozen" : row.bursting ? "bursts" : "");
  return new Table({
    caption: "Instances",
    key: (row) => `${row.instance} ${row.resource}`,
    page: 25,
    columns: [
      { label: "Instance", text: (row) => row.name },
      { label: "Number", number: true, value: (row) => row.instance, text: (row) => String(row.instance) },
      { label: "Account", text: (row) => names.account(row.account) },
      { label: "Tier", text: (row) => names.tier(row.tier) },
      { label: "Resource", text: (row) => row.resource },
      { label: "Reserved", number: true, value: (row) => row.baseline_vru, text: (row) => vrus(row, row.baseline_vru) },
      { label: "May use", number: true, value: (row) => row.entitled_vru, text: (row) => vrus(row, row.entitled_vru) },
      { label: "Free credits", number: true, value: (row) => row.free_millicredits, text: (row) => credits(row.free_millicredits) },
      { label: "Held credits", number: true, value: (row) => row.held_millicredits, text: (row) => credits(row.held_millicredits) },
      { label: "Orders", number: true, value: (row) => row.orders, text: (row) => count(row.orders) },
      { label: "State", text: state, tone: (row) => (row.frozen ? "warn" : "") },
    ],
  });
}

function tokensTable(names) {
  const marks = (row) => [row.redeemed && "redeemed", row.swap_eligible && "may be swapped", row.sticky && "sticky"].filter(Boolean).join(", ");
  const profile = (row) => (row.profile ? `${row.profile} ${count(row.profile_limit)}` : "–");
  return new Table({
    caption: "Tokens",
    key: (row) => row.id,
    columns: [
      { label: "Token", number: true, value: (row) => row.id, text: (row) => count(row.id) },
      { label: "Account", text: (row) => names.account(row.account) },
      { label: "Instance", text: (row) => (row.instance === null ? "any" : names.instance(row.instance)) },
      { label: "Tier", text: (row) => names.tier(row.tier) },
      { label: "Resource", text: (row) => row.resource },
      { label: "Reserves", number: true, value: (row) => row.vru, text: (row) => names.vrus(row.tier, row.resource, row.vru) },
      { label: "From", value: (row) => row.from_ms, text: (row) => moment(row.from_ms) },
      { label: "Until", value: (row) => row.until_ms, text: (row) => moment(row.until_ms) },
      { label: "Generation", number: true, value: (row) => row.generation, text: (row) => count(row.generation) },
      { label: "Priority", number: true, value: (row) => row.priority, text: (row) => count(row.priority) },
      { label: "Profile", text: profile },
      { label: "State", text: marks },
    ],
  });
}

export function create({ names }) {
  const [accounts, instances, tokens] = [accountsTable(), instancesTable(names), tokensTable(names)];
  return {
    parts: [part("Accounts", accounts.element), part("Instances", instances.element), part("Tokens", tokens.element)],
    names: 0,
    sources: () => ({ tokens: "tokens" }),
    update(data) {
      accounts.update(names.accounts);
      instances.update(lines(names.instances));
      tokens.update(data.tokens ?? []);
    },
  };
}
