// What instances are said to need, the risk that they lack it, how that compares with what happened, and what is planned.

import { Chart } from "./chart.js";
import { choice, el, part, say } from "./dom.js";
import { amount, count, duration, moment, permille } from "./format.js";
import { Table } from "./table.js";

export const id = "forecasts";
export const title = "Forecasts";

/** Seconds of a step of the past, its name, how much of it is shown, in steps. */
const WIDTHS = [[1, "seconds", 600], [60, "minutes", 360], [3600, "hours", 336]];
const LEVELS = ["p025", "p10", "p50", "p90", "p975"];

function forecastsTable(names, state, chose) {
  const vrus = (label, key) => ({ label, number: true, value: (row) => row[key], text: (row) => names.ofInstance(row.instance, row.resource, row[key]) });
  return new Table({
    caption: "Forecasts",
    key: keyOf,
    page: 15,
    chose,
    chosen: () => state.key,
    sort: 9,
    down: true,
    empty: "no forecast stands; the daemon's own begin after four hours of measurements",
    columns: [
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Resource", text: (row) => row.resource },
      { label: "Source", text: (row) => row.source },
      { label: "Horizon", text: (row) => row.horizon },
      { label: "From", value: (row) => row.starts_at_ms, text: (row) => moment(row.starts_at_ms) },
      { label: "To", value: (row) => row.ends_at_ms, text: (row) => moment(row.ends_at_ms) },
      vrus("Median", "p50_vru"),
      { ...vrus("80% up to", "p90_vru"), title: "the upper end of the 80% interval" },
      { ...vrus("95% up to", "p975_vru"), title: "the upper end of the 95% interval" },
      { label: "Risk", number: true, value: (row) => row.risk, text: (row) => count(row.risk), title: "the chance that it lacks something, by how much that matters" },
      vrus("Has", "has_vru"),
      { label: "Lacks with", number: true, value: (row) => row.short_permille, text: (row) => permille(row.short_permille), title: "the chance that it needs more than it has",
        tone: (row) => (row.short_permille >= 500 ? "bad" : row.short_permille >= 100 ? "warn" : "good") },
    ],
  });
}

/** When planned events go on between two moments: [from, to, name], all times in seconds. */
function spans(events, from, to) {
  return events.flatMap((row) => {
    const [starts, lasts, every] = [Number(row.starts_at_ms) / 1000, row.lasts_ms / 1000, row.every_days * 86_400];
    const until = Math.min(to, every && Number(row.until_ms) ? Number(row.until_ms) / 1000 : Infinity);
    const skipped = every ? Math.max(0, Math.floor((from - starts) / every)) : 0;
    const found = [];
    for (let at = starts + skipped * every; at < until; at += every || Infinity) {
      if (at + lasts > from) found.push([at, at + lasts, row.name]);
    }
    return found;
  });
}

function eventsTable(names) {
  const ends = (row) => Number(row.next_at_ms) + row.lasts_ms;
  const goesOn = (row) => row.next_at_ms <= Date.now() && Date.now() < ends(row);
  const shift = (row) => [row.percent === 100 ? "" : `${count(row.percent)}%`, row.add_vru ? `+${names.ofInstance(row.instance, row.resource, row.add_vru)}` : ""];
  return new Table({
    caption: "Planned events",
    key: (row) => `${row.instance} ${row.resource} ${row.name}`,
    page: 15,
    sort: 3,
    empty: "nothing is planned; hvctl forecast plan makes a file what is",
    columns: [
      { label: "Event", text: (row) => row.name },
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Resource", text: (row) => row.resource },
      { label: "Next", value: (row) => row.next_at_ms, text: (row) => (goesOn(row) ? `goes on until ${moment(ends(row))}` : moment(row.next_at_ms)), tone: (row) => (goesOn(row) ? "warn" : "") },
      { label: "Lasts", number: true, value: (row) => row.lasts_ms, text: (row) => duration(row.lasts_ms) },
      { label: "Shifts", text: (row) => shift(row).filter(Boolean).join(" ") || "nothing", title: "percent of what is foreseen otherwise, and what is needed beside that" },
      { label: "Again after", number: true, value: (row) => row.every_days, text: (row) => (row.every_days ? `${count(row.every_days)} d` : "once") },
      { label: "Until", value: (row) => row.until_ms, text: (row) => moment(row.until_ms) },
    ],
  });
}

/** As high as what is foreseen and what happened; what it may use is shown if it is not far above. */
function highest([, , , , , p975, has, used]) {
  const most = (values) => values.reduce((high, value) => Math.max(high, value ?? 0), 1);
  const said = Math.max(most(p975), most(used));
  return 1.1 * (most(has) < 2 * said ? Math.max(said, most(has)) : said);
}

const keyOf = (row) => `${row.instance} ${row.resource} ${row.source} ${row.horizon} ${row.starts_at_ms}`;

function bandsChart(shown) {
  const text = (value) => shown(value);
  const edge = (label) => ({ label, colour: "band-narrow", width: 1, text });
  return new Chart({
    label: "Forecast and what happened",
    now: true,
    height: 320,
    scales: { y: { label: "", text, range: (plot) => [0, highest(plot.data)] } },
    series: [
      edge("2.5%"), edge("10%"),
      { label: "median foreseen", colour: "series", dash: [6, 4], text },
      edge("90%"), edge("97.5%"),
      { label: "has", colour: "quiet", width: 1, dash: [2, 3], text },
      { label: "happened", colour: "happened", width: 2, text },
    ],
    bands: [[5, 1, "band-wide"], [4, 2, "band-narrow"]],
  });
}

/**
 * Columns for the chart: the past by rows of history, then the window that a forecast is of, as far ahead as
 * `span` seconds unless it begins later.
 */
export function columns(history, row, size, span) {
  const milli = (value) => (value === null || value === undefined ? null : (value * size) / 1000);
  const data = [[], [], [], [], [], [], [], []];
  const add = (time, levels, has, used) => {
    for (const [at, value] of [time, ...levels, has, used].entries()) data[at].push(value);
  };
  for (const one of history) {
    add(Number(BigInt(one.time_ns) / 1_000_000n) / 1000, LEVELS.map((level) => milli(one[`${level}_milli_vru`])), null, milli(one.used_milli_vru));
  }
  const [from, end, ahead] = [row.starts_at_ms / 1000, row.ends_at_ms / 1000, Date.now() / 1000 + span];
  const to = from < ahead ? Math.min(end, ahead) : end;
  const said = [null, null, row.p50_vru * size, row.p90_vru * size, row.p975_vru * size];
  const [low, median] = [row.p50_vru * size, row.p50_vru * size];
  const levels = [low, low, median, said[3], said[4]];
  const last = data[0].at(-1) ?? 0;
  const begin = Math.max(from, last + 0.001);
  if (begin < to) {
    add(begin, levels, row.has_vru * size, null);
    add(to, levels, row.has_vru * size, null);
  }
  return data;
}

export function create({ names, refresh }) {
  const state = { key: "", row: null, width: WIDTHS[1] };
  const table = forecastsTable(names, state, (row) => { [state.key, state.row] = [keyOf(row), row]; refresh(); });
  const planned = eventsTable(names);
  const chart = bandsChart((value) => amount(state.row?.resource, Math.round(value)));
  const note = el("p", { class: "quiet" }, "Choose a forecast.");
  const widths = choice("The past by", WIDTHS.map((width) => [width, width[1]]), state.width, (width) => { state.width = width; refresh(); });
  return {
    parts: [part("Forecasts, the riskiest first", table.element), part("Foreseen and what happened", note, widths, chart.element),
      part("Planned events", planned.element)],
    sources() {
      const all = { forecasts: "forecasts", events: "events" };
      if (state.row) {
        const [seconds, , steps] = state.width;
        const { instance, resource } = state.row;
        all.history = `history?instance=${instance}&resource=${resource}&width_s=${seconds}&from_ms=${Date.now() - seconds * steps * 1000}`;
      }
      return all;
    },
    update({ forecasts, events, history }) {
      planned.update(events ?? []);
      const rows = forecasts ?? [];
      const row = rows.find((one) => keyOf(one) === state.key) ?? [...rows].sort((a, b) => b.risk - a.risk)[0] ?? null;
      const first = row && !state.row;
      [state.row, state.key] = [row, row ? keyOf(row) : ""];
      table.update(rows);
      if (!row) return;
      const of = `${names.instance(row.instance)}: ${row.resource}, ${row.horizon} (${row.source})`;
      const size = names.sizes.get(`${names.byInstance.get(row.instance)?.tier}/${row.resource}`) ?? 1;
      const known = (history ?? []).findLast((one) => one.used_milli_vru !== null);
      const last = known ? `, measured last ${amount(row.resource, Math.round((known.used_milli_vru * size) / 1000))}` : "";
      const data = columns(history ?? [], row, size, state.width[0] * state.width[2]);
      const touching = (events ?? []).filter((one) => one.instance === row.instance && one.resource === row.resource);
      chart.marks = spans(touching, data[0][0] ?? Infinity, data[0].at(-1) ?? 0);
      const marked = [...new Set(chart.marks.map(([, , name]) => name))].join(", ");
      say(note, `${of}. The bands hold what comes with 80% and 95%; the dotted line is what it may use${marked && `; shaded is what is planned: ${marked}`}.`);
      chart.name(of, `With 90% at most ${amount(row.resource, row.p90_vru * size)}, risk ${row.risk}${marked && `, planned ${marked}`}${last}`);
      chart.update(data);
      if (first) refresh();
    },
    end: () => chart.end(),
  };
}
