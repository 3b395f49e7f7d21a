// Charts over time: uPlot in the page's own colours, redrawn when those change.

import { el } from "./dom.js";

/** Times of 24 hours below the axis, by how far apart they are: [seconds, text, text where the day is another]. */
const TIMES = [
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
];

/** Between two marks of a value: all that is shown is counted in whole units. */
const WHOLE = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

const dark = matchMedia("(prefers-color-scheme: dark)");

/** A colour of style.css as it stands now, light or dark. */
function colour(name) {
  const probe = el("span", { hidden: true });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/**
 * `series`: { label, colour, width, dash, points, scale, bars } of each line after time; `bands`: [upper, lower, colour];
 * `scales`: the names of value scales and how they are shown, the first left, the second right. `now` marks this moment,
 * `ranges` joins the values of two lines, from the one up to the other, `span()` is from when to when it reaches.
 * `marks` are shaded: [from, to, name] in seconds.
 */
export class Chart {
  constructor({ label, series, bands = [], scales, height = 260, now = false, ranges = null, span = null }) {
    this.options = { series, bands, scales, height, now, ranges, span };
    this.data = [[], ...series.map(() => [])];
    this.marks = [];
    this.box = el("div", { class: "chart", role: "img", "aria-label": label });
    this.box.style.height = `${height + 64}px`;
    this.note = el("p", { class: "empty" }, "nothing yet");
    this.element = el("figure", {}, this.box, el("figcaption", {}, label));
    this.box.append(this.note);
    this.caption = this.element.querySelector("figcaption");
    this.watch = new ResizeObserver(() => this.#resize());
    this.watch.observe(this.box);
    this.redraw = () => this.#build();
    dark.addEventListener("change", this.redraw);
    document.addEventListener("theme", this.redraw);
  }

  /** What it is of, and what a chart says to who does not see it. */
  name(text, summary) {
    this.caption.textContent = text;
    this.box.setAttribute("aria-label", `${text}. ${summary}`);
  }

  /** Seconds, then values of each line; `null` is a gap. */
  update(data) {
    this.data = data;
    this.note.hidden = data[0].length > 0;
    if (!this.plot) this.#build();
    else this.plot.setData(data);
  }

  end() {
    this.watch.disconnect();
    dark.removeEventListener("change", this.redraw);
    document.removeEventListener("theme", this.redraw);
    this.plot?.destroy();
  }

  #resize() {
    const width = this.box.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height });
    else if (!this.plot) this.#build();
  }

  #build() {
    const width = this.box.clientWidth;
    if (width === 0 || this.data[0].length === 0) return;
    this.plot?.destroy();
    const { series, bands, scales, height, now, ranges, span } = this.options;
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    const sides = Object.entries(scales).map(([scale, shown], at) => ({
      ...axis, scale, size: 64, incrs: WHOLE, side: at === 0 ? 3 : 1, label: shown.label, labelSize: 20,
      grid: at === 0 ? axis.grid : { show: false },
      values: (_plot, values) => values.map((value) => (value === null ? "" : shown.text(value))),
    }));
    const lines = series.map((line) => ({
      label: line.label, scale: line.scale ?? Object.keys(scales)[0], stroke: colour(line.colour),
      width: line.width ?? 2, dash: line.dash, points: { show: line.points ?? false, size: 5 }, spanGaps: false,
      fill: line.bars ? colour(line.colour) : undefined,
      paths: line.unseen ? () => null : line.bars ? uPlot.paths.bars({ size: [0.6, 24] }) : line.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
      value: (_plot, value) => (value === null || value === undefined ? "–" : (line.text ?? scales[line.scale ?? Object.keys(scales)[0]].text)(value)),
    }));
    const range = Object.fromEntries(Object.entries(scales).map(([scale, shown]) => [scale, { range: shown.range }]));
    this.plot = new uPlot({
      width, height,
      scales: { x: { time: true, range: span ?? undefined }, ...range },
      axes: [{ ...axis, space: 60, values: TIMES }, ...sides],
      series: [{ label: "time", value: "{HH}:{mm}:{ss}" }, ...lines],
      bands: bands.map(([upper, lower, name]) => ({ series: [upper, lower], fill: colour(name) })),
      cursor: { drag: { x: false, y: false } },
      hooks: { drawAxes: [(plot) => drawMarks(plot, this.marks)], draw: [...(now ? [drawNow] : []), ...(ranges ? [(plot) => drawRanges(plot, ranges)] : [])] },
    }, this.data, this.box);
  }
}

/** What goes on for a while, behind the lines; each name below the one before, so that none hides another. */
function drawMarks(plot, marks) {
  const { left, top, width, height } = plot.bbox;
  const [ink, shade, line] = [colour("warn"), colour("planned"), 14 * devicePixelRatio];
  const place = (time) => Math.round(plot.valToPos(time, "x", true));
  const inside = (x) => Math.min(left + width, Math.max(left, x));
  plot.ctx.save();
  plot.ctx.beginPath();
  plot.ctx.rect(left, top, width, height);
  plot.ctx.clip();
  plot.ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  plot.ctx.textBaseline = "top";
  plot.ctx.textAlign = "left";
  let named = 0;
  for (const [from, to, name] of marks) {
    const edges = [place(from), place(to)];
    const [begin, end] = edges.map(inside);
    if (begin === end) continue;
    plot.ctx.fillStyle = shade;
    plot.ctx.fillRect(begin, top, end - begin, height);
    plot.ctx.fillStyle = ink;
    for (const edge of edges) plot.ctx.fillRect(edge, top, devicePixelRatio, height);
    const at = Math.max(left, Math.min(begin, left + width - plot.ctx.measureText(name).width - line));
    plot.ctx.fillText(name, at + line / 3, top + line * (named % 4) + 2);
    named += 1;
  }
  plot.ctx.restore();
}

/** Upright lines between two series. */
function drawRanges(plot, [low, high]) {
  const [times, from, to] = [plot.data[0], plot.data[low], plot.data[high]];
  const scale = plot.series[low].scale;
  plot.ctx.save();
  plot.ctx.strokeStyle = colour("quiet");
  plot.ctx.lineWidth = devicePixelRatio;
  plot.ctx.beginPath();
  for (const [at, time] of times.entries()) {
    const x = Math.round(plot.valToPos(time, "x", true)) + 0.5;
    plot.ctx.moveTo(x, plot.valToPos(from[at], scale, true));
    plot.ctx.lineTo(x, plot.valToPos(to[at], scale, true));
  }
  plot.ctx.stroke();
  plot.ctx.restore();
}

/** A line at this moment. */
function drawNow(plot) {
  const x = Math.round(plot.valToPos(Date.now() / 1000, "x", true));
  const { left, top, width, height } = plot.bbox;
  if (x < left || x > left + width) return;
  plot.ctx.save();
  plot.ctx.strokeStyle = colour("text");
  plot.ctx.setLineDash([2, 4]);
  plot.ctx.beginPath();
  plot.ctx.moveTo(x, top);
  plot.ctx.lineTo(x, top + height);
  plot.ctx.stroke();
  plot.ctx.restore();
}
