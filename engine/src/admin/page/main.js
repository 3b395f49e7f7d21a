// Views, and the loop that keeps the one in front up to date.

import { Refused, get, token } from "./api.js";
import { announce, el, say } from "./dom.js";
import { count, duration } from "./format.js";
import { Names } from "./names.js";
import { signIn } from "./sign-in.js";
import * as audit from "./view-audit.js";
import * as experiments from "./view-experiments.js";
import * as forecasts from "./view-forecasts.js";
import * as holdings from "./view-holdings.js";
import * as leases from "./view-leases.js";
import * as limits from "./view-limits.js";
import * as market from "./view-market.js";
import * as overview from "./view-overview.js";
import * as swaps from "./view-swaps.js";

const VIEWS = [overview, market, holdings, limits, leases, forecasts, experiments, swaps, audit];
/** Between two looks: at least this, and four times what the last one took. */
const EVERY_MS = 1500;
const AWAY_MS_MAX = 15_000;
const STALE_MS = 6000;
const NAMES_MS = 10_000;

const main = document.getElementById("content");
const link = document.getElementById("link");
const names = new Names();
let [shown, timer, turn, failures, seenAt, problem] = [null, 0, 0, 0, 0, ""];

function links() {
  const list = document.getElementById("views");
  list.append(...VIEWS.map((view) => el("li", {}, el("a", { href: `#${view.id}`, id: `to-${view.id}` }, view.title))));
}

/** Shows the view that the address names. */
function route() {
  const wanted = VIEWS.find((view) => `#${view.id}` === location.hash) ?? VIEWS[0];
  for (const view of VIEWS) {
    const current = view === wanted ? "page" : null;
    const anchor = document.getElementById(`to-${view.id}`);
    if (current) anchor.setAttribute("aria-current", current);
    else anchor.removeAttribute("aria-current");
  }
  const moved = shown !== null;
  shown?.end?.();
  shown = wanted.create({ names, refresh: look });
  document.title = `${wanted.title} – Vendue`;
  main.replaceChildren(el("h1", { class: "unseen" }, wanted.title), ...shown.parts);
  if (moved) main.focus();
  look();
}

function stop() {
  clearTimeout(timer);
  turn += 1;
}

/** Asks for everything the view shows, draws it, and comes again. Who came before gives up. */
async function look() {
  stop();
  if (document.hidden || !shown) return;
  const [mine, view, began] = [turn, shown, Date.now()];
  try {
    const data = await answers(view);
    if (mine !== turn) return;
    view.update(data);
    [failures, seenAt] = [0, Date.now()];
    facts(data.status);
    const wait = Math.max(EVERY_MS, 4 * (Date.now() - began));
    timer = setTimeout(look, wait);
  } catch (error) {
    if (mine !== turn) return;
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) {
      stranger(error);
      return;
    }
    failures += 1;
    problem = error.message;
    timer = setTimeout(look, Math.min(AWAY_MS_MAX, EVERY_MS * 2 ** Math.min(failures, 8)));
  }
  age();
}

/** By name; what a role may not see is `null`, and said so once. */
async function answers(view) {
  const sources = { status: "status", ...view.sources?.() };
  const all = Object.entries(sources).map(async ([name, path]) => {
    try {
      return [name, await get(path)];
    } catch (error) {
      if (error.status !== 403 && error.status !== 404) throw error;
      return [name, null];
    }
  });
  const [answered] = await Promise.all([Promise.all(all), names.refresh(view.names ?? NAMES_MS)]);
  return Object.fromEntries(answered);
}

/** What holds wherever one looks. */
function facts(status) {
  document.getElementById("dry-run").hidden = status.host !== "dry-run";
  const faults = status.faults_standing ? `, ${count(status.faults_standing)} faults` : "";
  const parts = [
    `${count(status.instances)} instances of ${count(status.accounts)} accounts`,
    `${count(status.orders)} orders`, `${count(status.trades)} trades`,
    `up ${duration(status.uptime_ms)}`,
  ];
  say(document.getElementById("facts"), parts.join(" · ") + faults);
  const tone = !status.accepting ? "bad" : status.faults_standing ? "warn" : "good";
  state(tone, !status.accepting ? "takes no requests" : status.faults_standing ? "has faults" : "live");
}

function state(tone, text) {
  link.className = `badge ${tone}`;
  say(link, text);
}

/** Says how old the figures are, once they are. */
function age() {
  const old = seenAt ? Date.now() - seenAt : 0;
  const late = seenAt > 0 && old > STALE_MS;
  document.body.classList.toggle("stale", late || failures > 0);
  if (failures > 0) {
    const from = seenAt ? `; figures of ${duration(old)} ago` : "";
    state("bad", `The daemon is away (${problem})${from}`);
    announce(`The daemon is away: ${problem}`);
  } else if (late) {
    state("warn", `Figures of ${duration(old)} ago`);
  } else if (seenAt) {
    announce("The figures are live");
  }
}

function ask(why) {
  stop();
  shown?.end?.();
  shown = null;
  state("", "not signed in");
  document.getElementById("sign-out").hidden = true;
  main.replaceChildren(signIn(why, begin));
  main.querySelector("input").focus();
}

/** Who showed nothing is asked to; whose token or certificate is not known reads that. */
function stranger(refused) {
  ask(refused.code ? refused.message : "");
}

async function begin() {
  document.getElementById("sign-out").hidden = !token.get();
  // Where there can be no certificate there must be a token.
  if (!token.get() && location.protocol === "http:") {
    ask("");
    return;
  }
  try {
    await get("status");
  } catch (error) {
    if (error.status === 401) {
      stranger(error);
      return;
    }
  }
  [failures, seenAt, names.read] = [0, 0, 0];
  route();
}

document.getElementById("sign-out").addEventListener("click", () => {
  token.clear();
  ask("");
});
document.addEventListener("visibilitychange", look);
addEventListener("hashchange", () => { if (shown) route(); });
setInterval(() => { if (shown && !document.hidden) age(); }, 1000);
links();
begin();
