// Small pictures of numbers as SVG: lines, steps, bars and intervals. Their colours are classes, so they change with the theme.
import { el, svg, visible } from "./elements.js";

const [width, height, left, right, top, bottom] = [560, 240, 58, 14, 10, 40];

/** Return the width of a picture as wide as the page, so that its letters are as large as others on a phone, too. */
export const pageWidth = () => Math.min(900, document.getElementById("main").clientWidth);

/** A number as an axis writes it: 0.001, 12k, 3e-5. */
export function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e4) return size >= 1e9 ? value.toExponential(0) : size >= 1e6 ? `${Number((value / 1e6).toPrecision(3))}M` : `${Number((value / 1e3).toPrecision(3))}k`;
  return size && size < 1e-3 ? value.toExponential().replace(/(\.\d)\d+/, "$1").replace(".0e", "e") : `${Number(value.toPrecision(3))}`;
}

/** Return a function from values to places, and round values for the axis. */
function scaled(low, high, isLog, from, to) {
  const [a, b] = isLog ? [Math.log10(low), Math.log10(high)] : [low, high];
  const span = b - a || 1;
  const place = (value) => from + ((isLog ? Math.log10(value) : value) - a) / span * (to - from);
  const ticks = [];
  if (isLog && span >= 0.7 && span < 2) {
    for (let power = Math.floor(a); power <= b; power += 1) {
      for (const each of [1, 2, 5]) if (each * 10 ** power >= low * 0.999 && each * 10 ** power <= high * 1.001) ticks.push(each * 10 ** power);
    }
  } else if (isLog && span >= 1) {
    const every = Math.ceil(span / 5);
    for (let power = Math.ceil(a - 1e-9); power <= b + 1e-9; power += every) ticks.push(10 ** power);
  } else {
    const [first, last] = isLog ? [low, high] : [a, b];
    const size = 10 ** Math.floor(Math.log10((last - first || 1) / 4));
    const step = [1, 2, 5, 10].map((each) => each * size).find((each) => (last - first || 1) / each <= 5);
    for (let value = Math.ceil(first / step - 1e-9) * step; value <= last + step * 1e-9; value += step) ticks.push(Number(value.toPrecision(12)));
  }
  return { place, ticks };
}

function axes(x, y, xTitle, yTitle, [wide, high]) {
  return svg("g.axes", {},
    y.ticks.map((value) => svg("line.grid", { x1: left, x2: wide - right, y1: y.place(value), y2: y.place(value) })),
    y.ticks.map((value) => svg("text.y", { x: left - 7, y: y.place(value) + 4 }, tick(value))),
    x.ticks.map((value) => svg("text.x", { x: x.place(value), y: high - bottom + 17 }, tick(value))),
    svg("text.title", { x: (left + wide - right) / 2, y: high - 6 }, xTitle),
    svg("text.title.y", { x: left, y: top + 2, dy: -1 }, yTitle));
}

/**
 * Return a picture of lines.
 * @param {object} options
 * @param {string} options.title - what one sees, for readers that do not
 * @param {Array<{xs: number[], ys: number[], kind: number|string, label: string, isDashed?: boolean, level?: boolean}>} options.series
 * @param {boolean} [options.isLogX]
 * @param {boolean} [options.isLogY]
 * @param {boolean} [options.isSteps] - a value holds until the next one
 * @param {boolean} [options.isFilled]
 * @param {boolean} [options.fromZero] - the axis of the values begins at 0
 * @param {boolean} [options.fromZeroX]
 */
export function lines({ title, series, xTitle, yTitle, isLogX = false, isLogY = false, isSteps = false, isFilled = false, fromZero = false, fromZeroX = false, size = [width, height] }) {
  const [wide, high] = size;
  const good = (xs, ys) => xs.map((x, i) => [x, ys[i]]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y) && (!isLogX || x > 0) && (!isLogY || y > 0));
  const curves = series.map((each) => ({ ...each, points: good(each.xs, each.ys) })).filter((each) => each.points.length);
  const all = curves.flatMap((each) => each.points);
  if (!all.length) return el("p.says", {}, "There is nothing to draw yet.");
  const ends = (values, zero) => [zero ? 0 : values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const [x0, x1] = ends(all.map(([x]) => x), fromZeroX);
  let [y0, y1] = ends(all.map(([, y]) => y), fromZero && !isLogY);
  if (y0 === y1) [y0, y1] = isLogY ? [y0 / 2, y1 * 2] : [y0 - (y0 ? Math.abs(y0) / 10 : 1), y1 + (y1 ? Math.abs(y1) / 10 : 1)];
  const x = scaled(x0, x1, isLogX, left, wide - right);
  const y = scaled(y0, y1, isLogY, high - bottom, top + 10);
  const path = (points) => points.map(([a, b], i) => `${i ? (isSteps ? `H${x.place(a).toFixed(1)}V` : `L${x.place(a).toFixed(1)},`) : `M${x.place(a).toFixed(1)},`}${y.place(b).toFixed(1)}`).join("");
  return svg("svg.drawing", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": visible(title) },
    axes(x, y, xTitle, yTitle, size),
    curves.map(({ points, kind, isDashed, label }) => [
      isFilled ? svg(`path.area.kind-${kind}`, { d: `${path(points)}V${high - bottom}H${x.place(points[0][0]).toFixed(1)}Z` }) : svg("g"),
      svg(`path.line.kind-${kind}${isDashed ? ".dashed" : ""}`, { d: path(points) }, svg("title", {}, label))]));
}

/** Return a picture of bars, one for each of some texts. */
export function bars({ title, names, values, kind = 0, size = [width, height] }) {
  const [wide, high] = size;
  const most = values.reduce((a, b) => Math.max(a, b), 0) || 1;
  const room = (wide - left - right) / names.length;
  const every = Math.ceil(names.length / 10);
  return svg("svg.drawing", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": visible(title) },
    names.map((name, i) => {
      const size = (values[i] / most) * (high - bottom - top - 14);
      return svg("g", {}, svg("title", {}, name),
        svg(`rect.kind-${kind}`, { x: left + i * room + room * 0.15, width: room * 0.7, y: high - bottom - size, height: size }),
        i % every ? svg("g") : svg("text.x", { x: left + (i + 0.5) * room, y: high - bottom + 17 }, name.length > 12 ? `${name.slice(0, 11)}…` : name));
    }));
}

/** Return a picture of intervals, a row for each of some names; a row without an interval has its point alone. */
export function intervals({ title, rows, xTitle, size = [width, 0] }) {
  const all = rows.flatMap(({ low, high, value }) => [low, high, value]).filter(Number.isFinite);
  if (!all.length) return el("p.says", {}, "No trial has reported yet.");
  const wide = size[0];
  const high = top + bottom + rows.length * 30;
  const [x0, x1] = [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
  const room = (x1 - x0) * 0.06 || Math.abs(x0) * 0.06 || 1;
  const labels = Math.min(150, wide / 3);
  const x = scaled(x0 - room, x1 + room, false, labels, wide - right);
  return svg("svg.drawing", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": visible(title) },
    x.ticks.map((value) => [svg("line.grid", { x1: x.place(value), x2: x.place(value), y1: top, y2: high - bottom }), svg("text.x", { x: x.place(value), y: high - bottom + 17 }, tick(value))]).flat(),
    svg("text.title", { x: (labels + wide - right) / 2, y: high - 6 }, xTitle),
    rows.map(({ name, low, high: upper, value, kind }, i) => {
      const y = top + 15 + i * 30;
      return svg("g", {}, svg("title", {}, name),
        svg("text.row", { x: labels - 10, y: y + 4 }, name.length > 20 ? `${name.slice(0, 19)}…` : name),
        Number.isFinite(low) ? svg(`line.line.kind-${kind}`, { x1: x.place(low), x2: x.place(upper), y1: y, y2: y }) : svg("g"),
        Number.isFinite(value) ? svg(`circle.kind-${kind}`, { cx: x.place(value), cy: y, r: 5 }) : svg("g"));
    }));
}

/** Return a legend: a line of the colour, and the name, of each series. */
export const legend = (series) => el("ul.legend", {}, series.map(({ kind, label, isDashed }) => el("li", {},
  svg("svg.long", { viewBox: "0 0 26 13", "aria-hidden": "true" }, svg(`path.line.kind-${kind}${isDashed ? ".dashed" : ""}`, { d: "M0,6.5H26" })), el("bdi", {}, label))));
