// Pictures of the report, from the same figures that Plotly draws there, as SVG: lines, marks, bars, whiskers, notes.
// Plotly itself would be five megabytes, and sets styles that the policy of these pages forbids.
/* global pictureLegend */
import { svg, visible } from "./elements.js";
import { isDark, onTheme } from "./frame.js";

const narrow = 520; // pixels
const measure = document.createElement("canvas").getContext("2d");
const font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

function recoloured(value, dark) {
  if (typeof value === "string") return dark[value] ?? value;
  if (Array.isArray(value)) return value.map((item) => recoloured(item, dark));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item, dark)]));
}

const width = (text, size) => { measure.font = `${size}px ${font}`; return measure.measureText(text).width; };

// numbers ------------------------------------------------------------------------------------------

/** Write a number in a form of d3, as far as the report uses them. */
export function formatted(value, form = "") {
  if (typeof value !== "number") return visible(value ?? "");
  const [, comma, digits, kind] = /^(,?)(?:\.(\d+))?~?([a-z%]?)$/.exec(form) ?? [];
  if (kind === "s") {
    const power = value === 0 ? 0 : Math.max(-8, Math.min(8, Math.floor(Math.log10(Math.abs(value)) / 3)));
    return `${Number((value / 1000 ** power).toPrecision(digits ?? 12))}${"yzafpnµm kMGTPEZY"[power + 8].trim()}`;
  }
  if (kind === "e") return Number(value.toPrecision(6)).toExponential().replace("e+", "e");
  let text = kind === "f" ? value.toFixed(digits ?? 6) : kind === "d" ? String(Math.round(value)) : null;
  if (text === null) {
    const size = Math.abs(value);
    text = size !== 0 && (size < 1e-4 || size >= 1e15) ? Number(value.toPrecision(digits ?? 6)).toExponential().replace("e+", "e") : String(Number(value.toPrecision(digits ?? 12)));
  }
  return comma ? text.replace(/^(-?\d+)/, (whole) => Number(whole).toLocaleString("en-US")) : text;
}

function nice(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough * 0.999) * power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// axes ---------------------------------------------------------------------------------------------

class Axis {
  constructor(layout, values, { bars, isOwn }) {
    this.layout = layout;
    const texts = values.filter((value) => typeof value === "string");
    this.categories = texts.length ? layout.categoryarray ?? [...new Set(texts)] : null;
    this.isLog = layout.type === "log";
    if (layout.range) [this.low, this.high] = layout.range;
    else if (this.categories) [this.low, this.high] = [-0.5, this.categories.length - 0.5];
    else {
      const numbers = values.filter(Number.isFinite).map((value) => (this.isLog ? Math.log10(value) : value));
      [this.low, this.high] = [Math.min(...numbers), Math.max(...numbers)];
      const margin = 0.05 * (this.high - this.low) || 0.5;
      if (layout.rangemode === "tozero" || (bars && !isOwn)) [this.low, this.high] = [Math.min(0, this.low), this.high + margin];
      else if (bars) [this.low, this.high] = [this.low - 0.5, this.high + 0.5];
      else [this.low, this.high] = [this.low - margin, this.high + margin];
    }
    this.isReversed = layout.autorange === "reversed";
  }

  /** Return the share of the axis at which a value lies. */
  share(value) {
    const number = this.categories ? this.categories.indexOf(value) : this.isLog ? Math.log10(value) : value;
    const share = (number - this.low) / (this.high - this.low || 1);
    return this.isReversed ? 1 - share : share;
  }

  ticks(most) {
    const { layout } = this;
    if (layout.visible === false) return [];
    if (this.categories) return this.categories.map((each) => [each, visible(unescaped(each))]);
    if (layout.ticktext) return layout.tickvals.map((value, i) => [value, visible(unescaped(layout.ticktext[i]))]);
    let values = layout.tickvals;
    if (!values) {
      const [low, high] = this.isLog ? [10 ** this.low, 10 ** this.high] : [this.low, this.high];
      values = layout.dtick ? range(low, high, layout.dtick) : nice(low, high, most);
    }
    return values.filter((value) => { const share = this.share(value); return share > -0.001 && share < 1.001; }).map((value) => [value, formatted(value, layout.tickformat)]);
  }
}

const range = (low, high, step) => Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, i) => (Math.ceil(low / step) + i) * step);

/** Texts of figures are escaped for Plotly, which reads HTML. */
const unescaped = (text) => String(text).replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

// one figure ---------------------------------------------------------------------------------------

function draw(place, picture, dark) {
  const { data, layout } = isDark() ? recoloured(picture.figure, dark) : picture.figure;
  const [w, h] = [Math.max(place.clientWidth, picture.min_width, 200), picture.height];
  const margin = { ...layout.margin };
  if (w < narrow) Object.assign(margin, { l: Math.min(margin.l, 50), r: Math.min(margin.r, 10) });
  const bars = data.filter((trace) => trace.type === "bar");
  const isSide = bars[0]?.orientation === "h";
  const values = (key) => data.flatMap((trace) => (trace[key] ?? []).filter((value) => value !== null));
  const stack = layout.barmode === "stack" ? stacked(bars) : null;
  const x = new Axis(layout.xaxis, values("x"), { bars: bars.length > 0, isOwn: !isSide });
  const y = new Axis(layout.yaxis, [...values("y"), ...(stack ?? [])], { bars: bars.length > 0, isOwn: isSide });
  const yTicks = y.ticks((h - margin.t - margin.b) / 45);
  const title = layout.yaxis.title?.text && layout.yaxis.visible !== false ? visible(unescaped(layout.yaxis.title.text)) : "";
  const labels = Math.max(0, ...yTicks.map(([, text]) => width(text, layout.yaxis.tickfont?.size ?? 12)));
  if (layout.yaxis.visible !== false) margin.l = Math.min(Math.max(labels + (title ? 36 : 14), w < narrow ? 40 : margin.l), w / 2);
  const area = { x: margin.l, y: margin.t, w: w - margin.l - margin.r, h: h - margin.t - margin.b };
  const at = (value) => area.x + area.w * x.share(value);
  const up = (value) => area.y + area.h * (1 - y.share(value));
  const clip = `clip-${picture.key}`;
  const root = svg("svg", { viewBox: `0 0 ${w} ${h}`, width: w, height: h, "aria-hidden": "true", "font-family": font });
  root.append(svg("clipPath", { id: clip }, svg("rect", { x: area.x, y: area.y - 1, width: area.w, height: area.h + 2 })));
  const below = (layout.shapes ?? []).filter((each) => each.layer === "below");
  const above = (layout.shapes ?? []).filter((each) => each.layer !== "below");
  root.append(...axes(layout, { x, y }, { area, at, up, w, h, yTicks, title, labels }));
  root.append(...below.map((each) => shape(each, area, at, up)));
  const drawn = svg("g", {});
  bars.forEach((trace, i) => drawn.append(...barsOf(trace, i, bars, { isSide, layout, x, y, at, up, area })));
  for (const trace of data) if (trace.type !== "bar") drawn.append(...scatter(trace, { at, up, clip: trace.cliponaxis === false ? null : `url(#${clip})` }));
  root.append(drawn, ...above.map((each) => shape(each, area, at, up)));
  root.append(...(layout.annotations ?? []).map((each) => note(each, { area, at, up, layout, x, y, h })));
  place.replaceChildren(root);
}

function axes(layout, { x, y }, { area, at, up, w, h, yTicks, title, labels }) {
  const parts = [];
  const tick = (attributes, text, axis) => svg("text", { fill: axis.tickfont.color, "font-size": axis.tickfont.size, ...attributes }, text);
  for (const [value, text] of x.ticks(area.w / 80)) {
    const place = at(value);
    if (layout.xaxis.showgrid !== false) parts.push(svg("path", { d: `M${place} ${area.y}v${area.h}`, stroke: layout.xaxis.gridcolor }));
    parts.push(tick({ x: place, y: area.y + area.h + 17, "text-anchor": "middle" }, text, layout.xaxis));
  }
  for (const [value, text] of yTicks) {
    const place = up(value);
    if (layout.yaxis.showgrid !== false) parts.push(svg("path", { d: `M${area.x} ${place}h${area.w}`, stroke: layout.yaxis.gridcolor }));
    parts.push(tick({ x: area.x - 8, y: place + 4, "text-anchor": "end" }, text, layout.yaxis));
  }
  const named = (axis, attributes) => svg("text", { fill: axis.title.font.color, "font-size": axis.title.font.size, "text-anchor": "middle", ...attributes },
    visible(unescaped(axis.title.text)));
  if (layout.xaxis.title?.text && layout.xaxis.visible !== false) parts.push(named(layout.xaxis, { x: area.x + area.w / 2, y: Math.min(h - 6, area.y + area.h + 40) }));
  if (title) parts.push(named(layout.yaxis, { transform: `translate(${Math.max(12, area.x - labels - 22)} ${area.y + area.h / 2}) rotate(-90)` }));
  return parts;
}

function shape(each, area, at, up) {
  const place = (value, ref, map, start, size, isUp) => (/domain|paper/.test(ref ?? "") ? (isUp ? start + size * (1 - value) : start + size * value) : map(value));
  const [x0, x1] = [each.x0, each.x1].map((value) => place(value, each.xref, at, area.x, area.w, false));
  const [y0, y1] = [each.y0, each.y1].map((value) => place(value, each.yref, up, area.y, area.h, true));
  const line = { stroke: each.line?.width === 0 ? null : each.line?.color, "stroke-width": each.line?.width ?? 1, "stroke-dasharray": pictureLegend.dashes[each.line?.dash] };
  if (each.type === "line") return svg("path", { d: `M${x0} ${y0}L${x1} ${y1}`, fill: "none", ...line });
  const [left, right] = [Math.max(area.x, Math.min(x0, x1)), Math.min(area.x + area.w, Math.max(x0, x1))];
  return svg("rect", { x: left, y: Math.min(y0, y1), width: Math.max(0, right - left), height: Math.abs(y1 - y0), fill: each.fillcolor ?? "none", ...line });
}

function scatter(trace, { at, up, clip }) {
  const parts = [];
  const points = trace.x.map((x, i) => (x === null || trace.y[i] === null ? null : [at(x), up(trace.y[i])]));
  if (trace.mode?.includes("lines") && (trace.line?.width !== 0 || trace.fill)) {
    let isOn = false;
    let d = "";
    for (const point of points) {
      if (point) d += !isOn ? `M${point[0].toFixed(1)} ${point[1].toFixed(1)}` : trace.line?.shape === "hv" ? `H${point[0].toFixed(1)}V${point[1].toFixed(1)}` : `L${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      isOn = point !== null;
    }
    const hasLine = trace.line?.width !== 0;
    parts.push(svg("path", { d, fill: trace.fill ? trace.fillcolor : "none", stroke: hasLine ? trace.line?.color : null, "stroke-width": trace.line?.width ?? 2,
      "stroke-dasharray": pictureLegend.dashes[trace.line?.dash], "stroke-linejoin": "round", opacity: trace.opacity, "clip-path": clip }));
  }
  if (trace.error_x) parts.push(...whiskers(trace, at, up));
  if (trace.mode?.includes("markers")) {
    points.forEach((point, i) => {
      const size = Array.isArray(trace.marker.size) ? trace.marker.size[i] : trace.marker.size ?? 6;
      if (point && size) parts.push(mark(trace, i, point, size));
    });
  }
  return parts;
}

function mark(trace, i, [x, y], size) {
  const kind = trace.marker.symbol ?? "circle";
  const all = trace.marker.color ?? trace.line?.color;
  const colour = Array.isArray(all) ? all[i] : all;
  const isFilled = pictureLegend.isFilled(kind);
  const scale = size / (kind.startsWith("circle") ? 10 : 15);
  return svg("path", { d: pictureLegend.shapes[kind], transform: `translate(${(x - 8 * scale).toFixed(1)} ${(y - 8 * scale).toFixed(1)}) scale(${scale})`,
    fill: isFilled ? colour : "none", stroke: isFilled ? null : colour, "stroke-width": 1.5 / scale, opacity: trace.opacity }, hint(trace, i));
}

function whiskers(trace, at, up) {
  const { array, color, thickness, width: cap } = trace.error_x;
  return trace.x.map((x, i) => {
    if (x === null || !array[i]) return null;
    const [left, right, y] = [at(x - array[i]), at(x + array[i]), up(trace.y[i])];
    return svg("path", { d: `M${left} ${y - cap}v${2 * cap}M${left} ${y}H${right}M${right} ${y - cap}v${2 * cap}`, stroke: color, "stroke-width": thickness, fill: "none" });
  }).filter(Boolean);
}

function stacked(bars) {
  const tops = new Map();
  bars.forEach((trace) => trace.x.forEach((x, i) => tops.set(x, (tops.get(x) ?? 0) + trace.y[i])));
  return [...tops.values()];
}

function barsOf(trace, index, bars, { isSide, layout, x, y, at, up, area }) {
  const isStack = layout.barmode === "stack";
  const step = 1 - (layout.bargap ?? 0.2);
  const length = isSide ? area.h / (y.high - y.low) : area.w / (x.high - x.low);
  const thick = (length * step) / (isStack ? 1 : bars.length);
  const shapes = trace[isSide ? "y" : "x"].map((place, i) => {
    const amount = trace[isSide ? "x" : "y"][i];
    if (!amount) return null;
    const base = isStack ? bars.slice(0, index).reduce((sum, each) => sum + (each.y[each.x.indexOf(place)] ?? 0), 0) : 0;
    const offset = isStack ? -thick / 2 : -(length * step) / 2 + index * thick;
    const box = isSide
      ? { x: at(0), y: up(place) + offset, width: Math.max(0, at(amount) - at(0)), height: thick }
      : { x: at(place) + offset, y: up(base + amount), width: thick, height: Math.max(0, up(base) - up(base + amount)) };
    return svg("rect", { ...box, fill: trace.marker.color }, hint(trace, i));
  }).filter(Boolean);
  if (isSide && trace.error_x) {
    const offset = -(length * step) / 2 + (index + 0.5) * thick;
    shapes.push(...whiskers(trace, at, (place) => up(place) + offset));
  }
  return shapes;
}

function hint(trace, i) {
  if (!trace.hovertemplate || trace.hoverinfo === "skip") return null;
  const values = { x: trace.x[i], y: trace.y[i], customdata: trace.customdata?.[i] };
  const text = trace.hovertemplate.replace(/<extra>.*<\/extra>/, "").replace(/<br>/g, "\n").replace(/%\{(\w+)(?:\[(\d+)\])?(?::([^}]*))?\}/g,
    (_, name, place, form) => formatted(place === undefined ? values[name] : values[name]?.[Number(place)], form));
  return svg("title", {}, visible(unescaped(text)));
}

function note(each, { area, at, up, layout, x, y, h }) {
  const size = each.font?.size ?? layout.font.size;
  const lines = each.text.split("<br>").map((line) => ({
    text: visible(unescaped(line.replace(/<\/?[bi]>/g, ""))), isBold: /<b>/.test(each.text), isItalic: /<i>/.test(line) }));
  const place = (axis, value, ref) => (ref === "paper" ? value : axis.isLog ? (value - axis.low) / (axis.high - axis.low) : axis.share(value));
  let left = area.x + area.w * place(x, each.x, each.xref) + (each.xshift ?? 0);
  const base = area.y + area.h * (1 - place(y, each.y, each.yref)) - (each.yshift ?? 0);
  const tall = 1.25 * size;
  const top = each.yanchor === "bottom" ? base - tall * lines.length : each.yanchor === "top" ? base : base - (tall * lines.length) / 2;
  const anchor = { left: "start", right: "end" }[each.xanchor] ?? "middle";
  const wide = Math.max(...lines.map((line) => width(line.text, size)));
  const group = svg("g", {});
  if (anchor === "start") left = Math.max(2, left);
  if (each.bgcolor) {
    const start = anchor === "start" ? left : anchor === "end" ? left - wide : left - wide / 2;
    group.append(svg("rect", { x: start - 1, y: Math.max(0, top), width: wide + 2, height: Math.min(h, tall * lines.length), fill: each.bgcolor }));
  }
  lines.forEach((line, i) => group.append(svg("text", { x: left, y: top + tall * (i + 0.78), "text-anchor": anchor, "font-size": size, fill: each.font?.color ?? layout.font.color,
    "font-weight": line.isBold ? 650 : null, "font-style": line.isItalic ? "italic" : null }, line.text)));
  return group;
}

// pictures of a page -------------------------------------------------------------------------------

const shown = new Map(); // element → how to draw it
const observer = new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => {
  const each = shown.get(target);
  if (each && Math.abs(contentRect.width - each.width) > 1) redraw(target);
}));
onTheme(() => [...shown.keys()].forEach((place) => (place.isConnected ? redraw(place) : shown.delete(place))));

function redraw(place) {
  const each = shown.get(place);
  each.width = place.clientWidth;
  draw(place, each.picture, each.dark);
  if (each.legend) writeLegend(each.legend, each.picture.figure.data, each.dark);
}

/** Write the legend of some traces in the colours of the theme. */
export function writeLegend(legend, traces, dark) {
  const named = traces.map((trace) => ({ ...trace, name: trace.name && visible(trace.name) }));
  legend.replaceChildren(...pictureLegend.entries(isDark() ? recoloured(named, dark) : named));
}

/** Draw a picture into an element, and again when the width or the theme changes. */
export function show(place, picture, dark, legend = null) {
  shown.set(place, { picture, dark, legend, width: place.clientWidth });
  observer.observe(place);
  redraw(place);
}
