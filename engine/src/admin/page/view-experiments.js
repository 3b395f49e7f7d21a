// Experiments: two ways to do something compared on the instances there are, what that did, and who takes part.

import { post } from "./api.js";
import { announce, el, part, say } from "./dom.js";
import { count, duration, funds, moment, permille, thousandths } from "./format.js";
import { sure } from "./sure.js";
import { Table } from "./table.js";

export const id = "experiments";
export const title = "Experiments";

const GOES_ON = "running";
const TONES = { running: "good", harm: "bad" };

/** What was found of an arm; all else that the daemon says of one are its terms. */
const FOUND = ["exposed", "sample", "values", "mean_milli"];

/** Ends of names that say a unit, and how it is shown. */
const UNITS = {
  micro: funds, milli: thousandths, millicredits: thousandths, ms: duration, permille,
  percent: (value) => `${count(value)}%`, vru: (value) => `${count(value)} VRU`, ticks: (value) => `${count(value)} ticks`, credits: (value) => `${count(value)} credits`,
};

const isObject = (value) => typeof value === "object" && value !== null;
const isNothing = (value) => (isObject(value) ? Object.values(value).every(isNothing) : !value);

/** A term by its name: `budget_micro` is a budget, in micro-units. */
function term([name, value]) {
  if (isObject(value)) return Object.entries(value).map(term).join(", ");
  const words = name.split("_");
  const unit = words.length > 1 ? UNITS[words.at(-1)] : undefined;
  const said = (unit ? words.slice(0, -1) : words).join(" ");
  if (typeof value === "boolean") return value ? said : `no ${said}`;
  return `${said} ${unit ? unit(value) : typeof value === "string" ? value : count(value)}`;
}

/** What an arm's instances do, whatever the experiment is about; a thing that is done or not is told where the arms differ in it. */
function terms(arm, other) {
  const tells = ([name, value]) => !FOUND.includes(name) && (typeof value === "boolean" ? value !== other[name] : !isNothing(value));
  return Object.entries(arm).filter(tells).map(term).join(", ") || "nothing: they stay as they are";
}

/** What an arm's instances told on the whole, if one did. */
const mean = (arm) => (arm.sample ? arm.mean_milli : null);

/** Why it goes on no more, or until when it does. */
function why(row) {
  const harm = thousandths(row.harm_milli);
  const looks = row.looks ? `, looked ${count(row.looks)} times for harm beyond ${harm}` : "";
  return {
    running: `until ${moment(row.ends_at_ms)}${looks}`,
    stopped: "an operator ended it",
    harm: `B was worse than A by more than ${harm}, beyond doubt`,
    over: "it lasted as long as it should",
  }[row.end] ?? "";
}

/** Whether B is `better` or `worse` beyond doubt. */
function verdict(row) {
  if (!row.interval_95_milli) return null;
  const [low, high] = row.interval_95_milli;
  if (low <= 0 && high >= 0) return "";
  return (low > 0) === (row.better === "more") ? "better" : "worse";
}

const SAID = { better: "B is better than A", worse: "B is worse than A", "": "no difference is beyond doubt" };

/** The effect in a sentence. */
function effect(row) {
  if (!row.interval_95_milli) return "No effect is known: of each arm four instances have to be measured.";
  const [low, high] = row.interval_95_milli.map(thousandths);
  return `B − A is ${thousandths(row.effect_milli)}, with 95% from ${low} to ${high}: ${SAID[verdict(row)]}.`;
}

/** The effect as a dot on its interval, beside no effect at all and, where that is near, what counts as harm. */
function drawing() {
  const place = (name, label) => el("span", { class: `place ${name}` }, el("span", {}, label));
  const [zero, harm, interval, dot] = [place("zero", "no difference"), place("harm", "harm from here"), el("span", { class: "interval" }), el("span", { class: "dot" })];
  const element = el("div", { class: "effect", role: "img", hidden: true }, zero, harm, interval, dot);

  function update(row) {
    element.hidden = !row?.interval_95_milli;
    if (element.hidden) return;
    const [low, high, middle] = [...row.interval_95_milli, row.effect_milli].map(Number);
    const limit = Number(row.harm_milli) * (row.better === "less" ? 1 : -1);
    const near = Math.abs(limit) <= 3 * Math.max(Math.abs(low), Math.abs(high));
    const shown = [0, low, high, ...(near ? [limit] : [])];
    const [from, to] = [Math.min(...shown), Math.max(...shown)];
    const at = (value) => 5 + (to > from ? (90 * (value - from)) / (to - from) : 45);
    for (const [one, value] of [[zero, 0], [harm, limit], [interval, low], [dot, middle]]) {
      one.style.left = `${at(value)}%`;
      one.classList.toggle("late", at(value) > 50);
    }
    interval.style.width = `${at(high) - at(low)}%`;
    harm.hidden = !near;
    element.setAttribute("aria-label", effect(row));
  }
  return { element, update };
}

function experimentsTable(names, state, chose, stop) {
  const means = (label, at) => ({ label, number: true, value: (row) => mean(row.arms[at]), text: (row) => thousandths(mean(row.arms[at])) });
  const of = (row) => [row.account === null ? "" : names.account(row.account), row.tier === null ? "" : `tier ${names.tier(row.tier)}`].filter(Boolean).join(", ");
  const button = (row) => el("button", { type: "button", "aria-label": `Stop experiment ${row.experiment}`, onclick: () => stop(row.experiment) }, "Stop");
  return new Table({
    caption: "Experiments",
    key: (row) => row.experiment,
    page: 15,
    chose,
    chosen: () => state.key,
    sort: 1,
    down: true,
    empty: "no experiment; hvctl experiment start begins one",
    columns: [
      { label: "Experiment", text: (row) => row.name || `experiment ${row.experiment}` },
      { label: "Number", number: true, value: (row) => row.experiment, text: (row) => String(row.experiment) },
      { label: "State", text: (row) => row.end, tone: (row) => TONES[row.end] ?? "" },
      { label: "End it", text: () => "", fill: (cell, row) => {
        if (row.end !== GOES_ON) cell.replaceChildren();
        else if (!cell.firstChild) cell.append(button(row));
      } },
      { label: "B − A", number: true, value: (row) => row.effect_milli, text: (row) => thousandths(row.effect_milli), tone: (row) => ({ better: "good", worse: "bad" }[verdict(row)] ?? "") },
      { label: "With 95%", text: (row) => (row.interval_95_milli ? row.interval_95_milli.map(thousandths).join(" to ") : "–") },
      { label: "Measure", text: (row) => `${row.measure}, ${row.better} is better` },
      means("Mean of A", 0), means("Mean of B", 1),
      { label: "Compares", text: (row) => row.compares },
      { label: "Resource", text: (row) => row.resource },
      { label: "Of", text: (row) => of(row) || "everybody" },
      { label: "Begun", value: (row) => row.started_at_ms, text: (row) => moment(row.started_at_ms) },
      { label: "Over", value: (row) => row.ends_at_ms, text: (row) => moment(row.ends_at_ms) },
      { label: "Why", text: why },
    ],
  });
}

function armsTable() {
  return new Table({
    caption: "Arms",
    key: ([letter]) => letter,
    filter: false,
    columns: [
      { label: "Arm", text: ([letter]) => letter },
      { label: "Its instances are given", text: ([, arm, other]) => terms(arm, other) },
      { label: "Follow it now", number: true, value: ([, arm]) => arm.exposed, text: ([, arm]) => count(arm.exposed) },
      { label: "Measured", number: true, value: ([, arm]) => arm.sample, text: ([, arm]) => count(arm.sample) },
      { label: "Values", number: true, value: ([, arm]) => arm.values, text: ([, arm]) => count(arm.values) },
      { label: "Mean", number: true, value: ([, arm]) => mean(arm), text: ([, arm]) => thousandths(mean(arm)) },
    ],
  });
}

function exposuresTable(names) {
  return new Table({
    caption: "Who takes part",
    key: (row) => row.instance,
    page: 15,
    columns: [
      { label: "Instance", text: (row) => names.instance(row.instance) },
      { label: "Arm", text: (row) => row.arm.toUpperCase() },
      { label: "Since", value: (row) => row.since_ms, text: (row) => moment(row.since_ms) },
      { label: "Values", number: true, value: (row) => row.values, text: (row) => count(row.values) },
      { label: "Mean", number: true, value: (row) => row.mean_milli, text: (row) => thousandths(row.mean_milli) },
      { label: "State", text: (row) => (row.left ? "has left: it was changed by its owner" : ""), tone: (row) => (row.left ? "warn" : "") },
    ],
  });
}

export function create({ names, refresh }) {
  const state = { key: null, rows: [] };
  const said = el("p", { class: "notice quiet", role: "status" }, "An operator can end an experiment; its instances are then as they were before.");
  const table = experimentsTable(names, state, (row) => { state.key = row.experiment; refresh(); }, stop);
  const [arms, exposures, effectOf] = [armsTable(), exposuresTable(names), drawing()];
  const note = el("p", { class: "quiet" }, "Choose an experiment.");
  const ends = new Map();

  async function stop(number) {
    const row = state.rows.find((one) => one.experiment === number);
    if (!row) return;
    const many = row.arms.reduce((sum, arm) => sum + arm.exposed, 0);
    const answer = await sure({
      title: `Stop experiment ${number}?`, yes: `Stop experiment ${number}`, words: null,
      text: `“${row.name}” ends for good. ${count(many)} instances take part; each is then as it was before. ${effect(row)}`,
    });
    if (!answer) return;
    try {
      const done = await post("experiment_stop", { experiment: number });
      tell(`Experiment ${number} has ended; instances still to be given back what was theirs: ${count(done.to_be_given_back)}`, "good");
    } catch (error) {
      tell(`Experiment ${number}: ${error.message}`, "bad");
    }
    refresh();
  }

  function tell(text, tone) {
    said.className = `notice ${tone}`;
    say(said, text);
  }

  /** Says what ended by itself to who does not see it. */
  function news(rows) {
    for (const row of rows) {
      if (ends.has(row.experiment) && ends.get(row.experiment) !== row.end) announce(`Experiment ${row.experiment}: ${row.end}, ${why(row)}`);
      ends.set(row.experiment, row.end);
    }
  }

  return {
    parts: [part("Experiments", said, table.element), part("What it did", note, effectOf.element, arms.element), part("Who takes part", exposures.element)],
    sources() {
      return { experiments: "experiments", ...(state.key === null ? {} : { exposed: `exposures?experiment=${state.key}` }) };
    },
    update({ experiments, exposed }) {
      const rows = experiments ?? [];
      const newest = rows.reduce((last, one) => (last === null || one.experiment > last.experiment ? one : last), null);
      const row = rows.find((one) => one.experiment === state.key) ?? newest;
      const first = row && state.key === null;
      [state.key, state.rows] = [row?.experiment ?? null, rows];
      news(rows);
      table.update(rows);
      effectOf.update(row);
      arms.update(row ? row.arms.map((arm, at) => ["AB"[at], arm, row.arms[1 - at]]) : []);
      say(exposures.empty, row && row.end !== GOES_ON ? "nobody any more" : "nobody yet");
      exposures.update(exposed ?? []);
      if (row) say(note, `${row.name || `Experiment ${row.experiment}`}: ${row.end}, ${why(row)}. ${effect(row)}`);
      if (first) refresh();
    },
  };
}
