// Limits on the host: wanted, written, read back, and beside them what is in use.

import { part } from "./dom.js";
import { amount, count, moment, permille } from "./format.js";
import { Table } from "./table.js";
import { share, shareText } from "./view-overview.js";

export const id = "limits";
export const title = "Limits";

/** What the sensors measured of a resource, in its smallest unit; `null` where nothing is known. */
export function measured(resource, of) {
  if (!of) return null;
  const sum = (...parts) => (parts.every((one) => one === null || one === undefined) ? null : parts.reduce((a, b) => a + Number(b ?? 0), 0));
  switch (resource) {
    case "cpu": return of.cpu_millicores;
    case "memory": return of.memory_bytes;
    case "block-io": return sum(of.read_bytes_per_s, of.write_bytes_per_s);
    case "network": return sum(of.network_bytes_per_s, of.network_sent_bytes_per_s) === null ? null
      : sum(of.network_bytes_per_s, of.network_sent_bytes_per_s) * 8;
    default: return null;
  }
}

const TONES = { "in force": "good", pending: "warn", refused: "bad", drifted: "bad", gone: "warn" };

export function create({ names }) {
  const whose = (row) => {
    if (row.instance !== null) return names.instance(row.instance);
    if (row.account !== null) return `account ${names.account(row.account)}, tier ${names.tier(row.tier)}`;
    return row.tier === null ? "the host" : `tier ${names.tier(row.tier)}`;
  };
  const cap = (row) => !row.file.includes("weight");
  const tierOf = (row) => row.tier ?? names.byInstance.get(row.instance)?.tier;
  // Of an account they are millicores.
  const size = (row) => (row.account !== null ? 1 : names.sizes.get(`${tierOf(row)}/${row.resource}`) ?? 0);
  const whole = (row) => (cap(row) ? row.wanted_vru * size(row) : 0);
  const limits = new Table({
    caption: "Limits",
    key: (row) => `${row.instance} ${row.account} ${row.tier} ${row.resource} ${row.file}`,
    columns: [
      { label: "Whose", text: whose },
      { label: "Resource", text: (row) => row.resource },
      { label: "Limit", text: (row) => row.file },
      { label: "Entitled", number: true, value: (row) => whole(row) || null, text: (row) => (whole(row) ? amount(row.resource, whole(row)) : "–") },
      { label: "In use", number: true, value: (row) => row.used, text: (row) => amount(row.resource, row.used) },
      { label: "In use of it", number: true, value: (row) => (row.used === null ? null : Number(row.used) / whole(row)), text: (row) => shareText(row.used ?? 0, whole(row)),
        fill: (cell, row) => share(cell, row.used, whole(row)) },
      { label: "Wanted", text: (row) => row.wanted },
      { label: "Written", text: (row) => row.written },
      { label: "Read back", text: (row) => row.read_back, tone: (row) => (row.read_back === row.wanted ? "good" : "bad") },
      { label: "State", text: (row) => row.state, tone: (row) => TONES[row.state] ?? "" },
      { label: "Why", text: (row) => row.reason ?? "" },
      { label: "Writes", number: true, value: (row) => row.writes, text: (row) => count(row.writes) },
      { label: "Written at", value: (row) => row.written_at, text: (row) => moment(row.written_at) },
    ],
  });
  const sensors = new Table({
    caption: "How instances fare",
    key: (row) => row.instance,
    columns: [
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Processor", number: true, value: (row) => row.cpu_millicores, text: (row) => amount("cpu", row.cpu_millicores) },
      { label: "Waits for it", number: true, value: (row) => row.cpu_wait_permille, text: (row) => permille(row.cpu_wait_permille) },
      { label: "Throttled", number: true, value: (row) => row.throttled_permille, text: (row) => permille(row.throttled_permille) },
      { label: "Memory", number: true, value: (row) => row.memory_bytes, text: (row) => amount("memory", row.memory_bytes) },
      { label: "Memory pressure", number: true, value: (row) => row.memory_some_permille, text: (row) => permille(row.memory_some_permille) },
      { label: "Block I/O", number: true, value: (row) => measured("block-io", row), text: (row) => amount("block-io", measured("block-io", row)) },
      { label: "I/O pressure", number: true, value: (row) => row.io_some_permille, text: (row) => permille(row.io_some_permille) },
      { label: "Network", number: true, value: (row) => measured("network", row), text: (row) => amount("network", measured("network", row)) },
      { label: "Sampled at", value: (row) => row.sampled_at, text: (row) => moment(row.sampled_at) },
    ],
  });
  return {
    parts: [part("Limits", limits.element), part("How instances fare", sensors.element)],
    sources: () => ({ limits: "limits", sensors: "sensors" }),
    update(data) {
      const by = new Map((data.sensors ?? []).map((row) => [row.instance, row]));
      limits.update((data.limits ?? []).map((row) => ({ ...row, used: cap(row) ? measured(row.resource, by.get(row.instance)) : null })));
      sensors.update(data.sensors ?? []);
    },
  };
}
