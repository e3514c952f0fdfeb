// Learning curves of all trials, which grow while one looks. uPlot draws axes and takes care of zoom; the lines are kept as a
// bitmap, to which a new report adds one stroke. When the scales change, it is drawn anew over many frames, above the one
// before, which is stretched to the new scales meanwhile.
/* global uPlot, pictureLegend */
import { byId, counted, el, metric as value } from "./elements.js";
import { endingOf, valueOf } from "./events.js";
import { colour, isDark, onTheme } from "./frame.js";
import { formatted } from "./figures.js";

const slice = 10; // milliseconds of a frame in which lines are drawn
const together = 40; // strokes, after which the time is looked at: a canvas notes strokes, and draws them when it must
const many = 400; // curves, from which on lines are of one pixel: wider ones take five times as long, and hide each other
const near = 30; // pixels from a curve at which it is named
const height = 430;

export class Curves {
  #curves = new Map(); // number → {tokens, values, place, ending}
  #layer = bitmap();
  #before = null; // the bitmap of other scales, until the new one is complete
  #queue = []; // curves that the bitmap lacks
  #isZoomed = false;
  #showsAll = false;
  #named = null;
  #frame = 0;
  #most = 0; // tokens that the horizontal axis has room for

  /**
   * @param {HTMLElement} place
   * @param {object} options
   * @param {HTMLElement} options.legend
   * @param {HTMLElement} options.says - where the curve under the pointer is named
   * @param {function(number)} options.open - called with the trial that was chosen
   */
  constructor(place, { legend, says, open }) {
    Object.assign(this, { place, legend, says, options: { metric: "", best: null, defaults: null, values: null, shades: [] } });
    this.plot = new uPlot(this.#settings(), [[0, 1], [0, 1]], place);
    this.plot.over.addEventListener("click", () => this.#named !== null && open(this.#named));
    this.plot.over.addEventListener("dblclick", () => { this.#showsAll = !this.#showsAll && !this.#isZoomed; this.#isZoomed = false; this.#rescale(); });
    new ResizeObserver(() => this.plot.setSize({ width: place.clientWidth, height })).observe(place);
    onTheme(() => { this.#redraw(); this.#write(); });
  }

  /** Set what the curves are about: metric, best, defaults, values (the axis), shades (light and dark, by place). */
  describe(options) {
    const before = this.options;
    this.options = { ...before, ...options };
    if (before.values?.is_log !== this.options.values?.is_log || before.metric !== this.options.metric) {
      this.plot.destroy();
      this.plot = new uPlot(this.#settings(), [[0, 1], [0, 1]], this.place);
    }
    if (JSON.stringify(before) !== JSON.stringify(this.options)) { this.#rescale(); this.#write(); }
  }

  /** Show these curves, as the API gives them. */
  set(curves) {
    this.#curves = new Map(curves.map((curve) => [curve.trial, curve]));
    this.#most = 0;
    this.#rescale();
    this.#write();
  }

  /** Add a report of a trial. */
  add(number, tokens, newest, { place, ending }) {
    const curve = this.#curves.get(number) ?? { trial: number, tokens: [], values: [], place: 0, ending: "" };
    this.#curves.set(number, curve);
    if (tokens <= curve.tokens.at(-1)) return;
    Object.assign(curve, { place: place ?? curve.place + 1, ending });
    curve.tokens.push(tokens);
    curve.values.push(Number.isFinite(newest) ? newest : null);
    const { x, y } = this.plot.scales;
    const isInside = tokens <= x.max && (newest === null || newest >= y.min);
    if (!this.#isZoomed && !isInside) this.#rescale();
    else if (!this.#queue.includes(curve)) this.#clipped(this.#layer.context, () => this.#stroke(this.#layer.context, curve, Math.max(0, curve.tokens.length - 2)));
    this.#soon();
  }

  /** Take an event of the journal: a report adds to a curve, and a trial that goes on is under way again. */
  take(event) {
    if (event.event === "report") {
      this.add(event.number, event.report.tokens, valueOf(event.report, this.options.metric || "val_loss") ?? null, { ending: endingOf(event.outcome) || (event.decision === "pause" ? "paused" : "") });
    } else if (event.event === "resume" && this.#curves.has(event.number)) {
      this.#curves.get(event.number).ending = "";
      this.#write();
      this.#soon();
    }
  }

  #settings() {
    const axis = (more) => ({ stroke: () => colour("faint"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif", labelSize: 22, ...more });
    const distr = this.options.values?.is_log ? 3 : 1;
    return {
      width: Math.max(200, this.place.clientWidth), height, legend: { show: false },
      scales: { x: { time: false, auto: false }, y: { auto: false, distr } },
      series: [{}, { paths: () => null, points: { show: false } }],
      axes: [axis({ label: "tokens trained by the trial", size: 30, values: (_, all) => all.map((each) => formatted(each, "~s")), space: 80 }), axis({ label: this.options.metric || " ", size: 52, values: (_, all) => all.map((each) => (each === null ? "" : formatted(each))) })],
      cursor: { drag: { x: true, y: true, uni: 20 }, points: { show: false } },
      hooks: {
        setSelect: [(plot) => { if (plot.select.width > 0) this.#isZoomed = true; }],
        setScale: [() => this.#redraw()], setSize: [() => this.#redraw()],
        draw: [(plot) => this.#paint(plot)], setCursor: [(plot) => this.#point(plot)],
      },
    };
  }

  #rescale() {
    if (this.#isZoomed) return this.#redraw();
    const { values } = this.options;
    let [low, high, most] = [values?.low ?? Infinity, values?.high ?? -Infinity, 1];
    for (const curve of this.#curves.values()) {
      most = Math.max(most, curve.tokens.at(-1) ?? 0);
      for (const each of this.#showsAll || !values ? curve.values : curve.values.slice(-1)) {
        if (each === null) continue;
        low = Math.min(low, each);
        if (this.#showsAll || !values) high = Math.max(high, each);
      }
    }
    // with room to grow: otherwise each report of the longest curve would draw all of them anew
    const grows = this.#most > 0 && most > this.#most;
    if (most > this.#most || most < this.#most / 1.5) this.#most = grows ? 1.25 * most : 1.02 * most;
    if (low > high) [low, high] = [0, 1];
    const isLog = values?.is_log;
    const margin = isLog ? 0 : 0.05 * (high - low) || 0.05 * Math.abs(high) || 0.5;
    this.plot.batch(() => {
      this.plot.setScale("x", { min: 0, max: this.#most });
      this.plot.setScale("y", isLog ? { min: low / 1.05, max: high * 1.05 } : { min: low - margin, max: high + margin });
    });
    this.#redraw();
  }

  #redraw() {
    if (!this.plot) return;
    const { canvas } = this.plot.ctx;
    if (!this.#queue.length) [this.#layer, this.#before] = [this.#before ?? bitmap(), this.#layer];
    [this.#layer.canvas.width, this.#layer.canvas.height] = [canvas.width, canvas.height];
    this.#layer.scales = this.#scales();
    this.#queue = [...this.#curves.values()].sort((a, b) => a.place - b.place);
    this.#soon();
  }

  #soon() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#queue.length) this.#drawSome();
      this.plot.redraw(false, false);
      if (this.#queue.length) this.#soon();
    });
  }

  #drawSome() {
    const { context } = this.#layer;
    const until = performance.now() + slice;
    let count = 0;
    this.#clipped(context, () => {
      while (count < this.#queue.length && performance.now() < until) {
        for (const end = Math.min(count + together, this.#queue.length); count < end; count += 1) this.#stroke(context, this.#queue[count], 0);
        context.getImageData(0, 0, 1, 1); // now they are drawn
      }
    });
    this.#queue = this.#queue.slice(count);
    if (!this.#queue.length && this.#before) this.#before.scales = null;
  }

  /** Return what decides where a value lies: the area, and the ends of both scales. */
  #scales() {
    const { left, top, width, height: tall } = this.plot.bbox;
    const { x, y } = this.plot.scales;
    const isLog = Boolean(this.options.values?.is_log);
    const [low, high] = isLog ? [Math.log10(y.min), Math.log10(y.max)] : [y.min, y.max];
    return { left, top, width, tall, x: { min: x.min, max: x.max }, low, high, isLog };
  }

  /** Return functions from values to pixels; calls of the plot for each point would take too long. */
  #maps() {
    const { left, top, width, tall, x, low, high, isLog } = this.#scales();
    return [
      (tokens) => left + (width * (tokens - x.min)) / (x.max - x.min),
      (each) => top + tall * (1 - ((isLog ? Math.log10(each) : each) - low) / (high - low)),
    ];
  }

  #style(curve) {
    const { shades } = this.options;
    if (curve.ending === "diverged") return [colour("diverged"), 1.2, [2, 3]];
    const place = Math.min(shades.length - 1, Math.round((curve.place / (this.options.num_places || 1)) * (shades.length - 1)));
    const isThin = this.#curves.size > many;
    return [shades[Math.max(0, place)]?.[Number(isDark())] ?? colour("stopped"), isThin ? 1 / devicePixelRatio : curve.ending === "finished" ? 2 : 1.3, []];
  }

  /** Draw with the area of the plot as the limit. */
  #clipped(context, draw) {
    const { left, top, width, height: tall } = this.plot.bbox;
    context.save();
    context.beginPath();
    context.rect(left, top, width, tall);
    context.clip();
    draw();
    context.restore();
  }

  #stroke(context, curve, first, style = this.#style(curve)) {
    const [at, up] = this.#maps();
    const scale = devicePixelRatio;
    const [stroke, wide, dash] = style;
    Object.assign(context, { strokeStyle: stroke, fillStyle: stroke, lineWidth: wide * scale, lineJoin: "round" });
    context.setLineDash(dash.map((each) => each * scale));
    context.beginPath();
    let isOn = false;
    for (let i = first; i < curve.tokens.length; i += 1) {
      const each = curve.values[i];
      if (each !== null) context[isOn ? "lineTo" : "moveTo"](at(curve.tokens[i]), up(each));
      isOn = each !== null;
    }
    context.stroke();
    const last = curve.values.findLastIndex((each) => each !== null);
    if (last === 0) { context.beginPath(); context.arc(at(curve.tokens[0]), up(curve.values[0]), 2.5 * scale, 0, 7); context.fill(); }
    if (curve.ending === "diverged" && last >= 0) {
      const [x, y, d] = [at(curve.tokens[last]), up(curve.values[last]), 4 * scale];
      context.setLineDash([]);
      context.stroke(new Path2D(`M${x - d} ${y - d}l${2 * d} ${2 * d}m0 ${-2 * d}l${-2 * d} ${2 * d}`));
    }
  }

  #paint(plot) {
    const { ctx } = plot;
    const { best, chosen = null, defaults } = this.options;
    ctx.globalAlpha = chosen === null ? 1 : 0.35;
    this.#clipped(ctx, () => this.#stretched(ctx));
    ctx.drawImage(this.#layer.canvas, 0, 0);
    ctx.globalAlpha = 1;
    this.#rungs(ctx);
    const [at, up] = this.#maps();
    const over = (number, style) => this.#curves.has(number) && this.#clipped(ctx, () => this.#stroke(ctx, this.#curves.get(number), 0, style));
    if (defaults !== best) over(defaults, [colour("ink"), 2, [7, 4]]);
    over(best, [colour("winner"), chosen === null || chosen === best ? 4 : 2, []]);
    if (chosen !== null && chosen !== best) over(chosen, [colour("finished"), 4, []]);
    if (this.#named !== null && this.#named !== best) over(this.#named, [colour("ink"), 3, []]);
    ctx.fillStyle = colour("green");
    for (const curve of this.#curves.values()) { // a dot where a trial is under way
      if (curve.ending || !curve.tokens.length || curve.values.at(-1) === null) continue;
      ctx.beginPath();
      ctx.arc(at(curve.tokens.at(-1)), up(curve.values.at(-1)), 3.5 * devicePixelRatio, 0, 7);
      ctx.fill();
    }
  }

  /** Draw the bitmap before, where its curves lie by the new scales. */
  #stretched(context) {
    const [old, now] = [this.#before?.scales, this.#layer.scales];
    if (!old || old.isLog !== now.isLog) return;
    const wide = (now.width * (old.x.max - old.x.min)) / (now.x.max - now.x.min);
    const tall = (now.tall * (old.high - old.low)) / (now.high - now.low);
    const left = now.left + (now.width * (old.x.min - now.x.min)) / (now.x.max - now.x.min);
    const top = now.top + (now.tall * (now.high - old.high)) / (now.high - now.low);
    context.drawImage(this.#before.canvas, old.left, old.top, old.width, old.tall, left, top, wide, tall);
  }

  /** Draw a line where trials were stopped, with their number. */
  #rungs(context) {
    const stopped = new Map();
    for (const curve of this.#curves.values()) if (curve.ending === "stopped" && curve.tokens.length) stopped.set(curve.place, [(stopped.get(curve.place)?.[0] ?? 0) + 1, curve.tokens.at(-1)]);
    const { top, height: tall, left, width } = this.plot.bbox;
    const [at] = this.#maps();
    const scale = devicePixelRatio;
    context.save();
    Object.assign(context, { strokeStyle: colour("stopped"), fillStyle: colour("faint"), lineWidth: scale, font: `${11 * scale}px system-ui, sans-serif`, textBaseline: "top" });
    context.setLineDash([2 * scale, 4 * scale]);
    let end = -Infinity; // of the label before
    for (const [count, tokens] of [...stopped.values()].sort(([, a], [, b]) => a - b)) {
      const x = at(tokens);
      if (x < left || x > left + width) continue;
      context.stroke(new Path2D(`M${x} ${top}v${tall}`));
      const text = `${count} stopped`;
      const room = context.measureText(text).width;
      if (x < end || x + room > left + width) continue;
      context.fillText(text, x + 4 * scale, top + 2 * scale);
      end = x + room + 10 * scale;
    }
    context.restore();
  }

  #point(plot) {
    const { left, top } = plot.cursor;
    let found = null;
    if (left >= 0) {
      const [at, up] = this.#maps();
      const scale = devicePixelRatio;
      const [x, y] = [left * scale + plot.bbox.left, top * scale + plot.bbox.top];
      let least = (near * scale) ** 2;
      for (const curve of this.#curves.values()) {
        for (let i = 0; i < curve.tokens.length; i += 1) {
          if (curve.values[i] === null) continue;
          const distance = (at(curve.tokens[i]) - x) ** 2 + (up(curve.values[i]) - y) ** 2;
          if (distance < least) [least, found] = [distance, [curve, i]];
        }
      }
    }
    const number = found ? found[0].trial : null;
    plot.over.classList.toggle("chosen", number !== null);
    this.says.textContent = found ? `trial ${number}${found[0].ending ? `, ${found[0].ending}` : ""}: ${this.options.metric} ${value(found[0].values[found[1]])} at ${counted(found[0].tokens[found[1]])} tokens` : "\u00a0";
    if (number !== this.#named) { this.#named = number; this.#soon(); }
  }

  #write() {
    const { best, chosen = null, defaults, shades } = this.options;
    const has = (ending) => [...this.#curves.values()].some((curve) => curve.ending === ending && curve.tokens.length);
    const shade = (place) => shades.at(place)?.[Number(isDark())] ?? "var(--stopped)";
    const line = (name, color, width, dash) => ({ name, mode: "lines", line: { color, width, dash } });
    const traces = [];
    if (chosen !== null && chosen !== best) traces.push(line(`trial ${chosen}`, "var(--finished)", 4));
    if (best !== null) traces.push(line(`best, trial ${best}`, "var(--winner)", 4));
    if (defaults !== null && defaults !== best) traces.push(line("defaults", "var(--ink)", 2, "dash"));
    if (has("finished")) traces.push(line("finished", shade(-1), 2));
    if (has("stopped")) traces.push(line("stopped", shade(0), 1.3));
    if (has("diverged")) traces.push({ name: "diverged", mode: "markers", marker: { symbol: "x", color: "var(--diverged)" } });
    if (has("")) traces.push({ name: "in training", mode: "markers", marker: { symbol: "circle", color: "var(--green)" } });
    this.legend.replaceChildren(...pictureLegend.entries(traces));
  }
}

/** Return a bitmap that is kept in memory, where drawing into it can be timed. */
function bitmap() {
  const canvas = document.createElement("canvas");
  return { canvas, context: canvas.getContext("2d", { willReadFrequently: true }), scales: null };
}

/** Return the parts of a page that curves need: legend, plot, and the line that names a curve. */
export function place(id, label) {
  return [el("ul.legend", { id: `${id}-legend` }), el("div.curves", { id, role: "img", "aria-label": label }), el("p.says.point", { id: `${id}-says`, "aria-hidden": "true" }, "\u00a0")];
}

/** Make curves in an element. */
export function curvesIn(target, id, label, open) {
  target.replaceChildren(...place(id, label));
  return new Curves(byId(id), { legend: byId(`${id}-legend`), says: byId(`${id}-says`), open });
}
