"use strict";
// Legends and marks of pictures, in pages that Plotly draws and in pages that draw themselves.
// Plotly's own legend would take space from the plot, most of it on a phone.
const pictureLegend = (() => {
  const shapes = {
    bar: "M1 1h14v14H1z", x: "M3 3l10 10M13 3L3 13", diamond: "M8 1l7 7-7 7-7-7z",
    "circle-open": "M3 8a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "line-ns-open": "M8 0v16", line: "M0 8h32",
    square: "M3 3h10v10H3z", "diamond-open": "M8 2l6 6-6 6-6-6z",
    star: "M8 0l2.3 5.4 5.7.4-4.4 3.8 1.4 5.7L8 12.2l-5 3.1 1.4-5.7L0 5.8l5.7-.4z",
  };
  shapes.circle = shapes["circle-open"];
  shapes["circle-open-dot"] = shapes["circle-open"] + "M7 8a1 1 0 1 0 2 0a1 1 0 1 0-2 0z";
  const dashes = { dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };
  const isNamed = (trace) => trace.name && trace.showlegend !== false;
  const isFilled = (kind) => ["bar", "diamond", "circle", "square", "star"].includes(kind);

  // The part of a legend for a trace of Plotly.
  function entry(trace) {
    const isArea = trace.type === "bar" || trace.fill;
    const isLine = !isArea && trace.mode.includes("lines");
    const kind = isArea ? "bar" : isLine ? "line" : trace.marker.symbol ?? "circle";
    const isStroke = !isFilled(kind);
    const colour = trace.fillcolor ?? (isLine ? trace.line.color : trace.marker.color);
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", isLine ? "0 0 32 16" : "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    if (isLine) svg.setAttribute("class", "long");
    const path = document.createElementNS(space, "path");
    const style = { d: shapes[kind], fill: isStroke ? "none" : colour };
    if (isStroke) Object.assign(style, { stroke: colour, "stroke-width": isLine ? 1.2 * trace.line.width : 2 });
    if (isLine && dashes[trace.line.dash]) style["stroke-dasharray"] = dashes[trace.line.dash];
    Object.entries(style).forEach(([name, value]) => path.setAttribute(name, value));
    const item = document.createElement("li");
    svg.append(path);
    item.append(svg, trace.name);
    return item;
  }

  // Each name once; a single one needs no legend.
  function entries(traces) {
    const named = new Map(traces.filter(isNamed).map((trace) => [trace.name, trace]));
    return named.size > 1 ? [...named.values()].map(entry) : [];
  }

  return { dashes, entries, isFilled, isNamed, shapes };
})();
