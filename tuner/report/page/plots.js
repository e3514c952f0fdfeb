"use strict";
// Plots: drawn in the colours of the theme, redrawn when the theme or the width changes, saved as files.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const darkColours = read("dark-colours");
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const byTouch = matchMedia("(pointer: coarse)").matches;
  const plots = [...document.querySelectorAll("[data-figure]")];
  const narrow = 520; // pixels

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

  function recoloured(value) {
    if (typeof value === "string") return darkColours[value] ?? value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item)]));
  }

  // Plotly's own legend would take space from the plot, most of it on a phone.
  const shapes = {
    bar: "M1 1h14v14H1z", x: "M3 3l10 10M13 3L3 13", diamond: "M8 1l7 7-7 7-7-7z",
    "circle-open": "M3 8a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "line-ns-open": "M8 0v16", line: "M0 8h32",
    square: "M3 3h10v10H3z", "diamond-open": "M8 2l6 6-6 6-6-6z",
    star: "M8 0l2.3 5.4 5.7.4-4.4 3.8 1.4 5.7L8 12.2l-5 3.1 1.4-5.7L0 5.8l5.7-.4z",
  };
  shapes.circle = shapes["circle-open"];
  shapes["circle-open-dot"] = shapes["circle-open"] + "M7 8a1 1 0 1 0 2 0a1 1 0 1 0-2 0z";
  const isNamed = (trace) => trace.name && trace.showlegend !== false;
  const dashes = { dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };

  function entry(trace) {
    const isArea = trace.type === "bar" || trace.fill;
    const isLine = !isArea && trace.mode.includes("lines");
    const kind = isArea ? "bar" : isLine ? "line" : trace.marker.symbol ?? "circle";
    const isStroke = !["bar", "diamond", "circle", "square", "star"].includes(kind);
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

  // A legend names the plots that it is of, and has each of their names once.
  function write(legend, dark) {
    const traces = legend.dataset.legend.split(" ").flatMap((key) => figures[key].data).filter(isNamed);
    const named = new Map(traces.map((trace) => [trace.name, trace]));
    if (named.size > 1) legend.replaceChildren(...[...named.values()].map((trace) => entry(dark ? recoloured(trace) : trace)));
  }

  function draw(plot, dark) {
    const figure = figures[plot.dataset.figure];
    const { data, layout } = dark ? recoloured(figure) : structuredClone(figure);
    if (plot.clientWidth < narrow) {
      layout.margin.l = Math.min(layout.margin.l, 50);
      layout.margin.r = Math.min(layout.margin.r, 10);
    }
    if (byTouch) { // touch scrolls the page
      layout.dragmode = false;
      Object.assign(layout.xaxis, { fixedrange: true });
      Object.assign(layout.yaxis, { fixedrange: true });
    }
    return Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
  }

  function drawAll(dark = isDark()) {
    document.querySelectorAll("[data-legend]").forEach((legend) => write(legend, dark));
    return Promise.all(plots.map((plot) => draw(plot, dark)));
  }

  // For papers: light, with its legend, for a width of 6.5 inches; as PNG with 300 dots per inch.
  function save(key, format) {
    const { data, layout } = structuredClone(figures[key]);
    const count = data.filter(isNamed).length;
    data.forEach((trace) => { trace.showlegend = count > 1 && Boolean(isNamed(trace)); });
    const hasAxis = layout.xaxis.visible !== false; // parallel coordinates have their titles on top
    const place = hasAxis ? { y: 1.02, yanchor: "bottom" } : { y: -0.02, yanchor: "top" };
    const legend = { orientation: "h", x: 0, xanchor: "left", ...place };
    Object.assign(layout, { showlegend: count > 1, legend, paper_bgcolor: "#ffffff", autosize: false });
    const filename = `${root.dataset.name}-${key}`.replace(/[^\p{L}\p{N}._-]+/gu, "-");
    const least = parseInt(document.querySelector(`[data-figure="${key}"]`).style.minWidth) || 0;
    const width = Math.max(6.5 * 96, least);
    const scale = format === "png" ? (6.5 * 300) / width : 1;
    return Plotly.downloadImage({ data, layout }, { format, filename, width, height: layout.height, scale });
  }
  document.querySelectorAll(".save").forEach((place) => {
    place.hidden = false;
    place.querySelectorAll("button").forEach((each) => {
      each.addEventListener("click", () => save(place.dataset.save, each.value));
    });
  });

  const hints = [...document.querySelectorAll(".hint")];
  const hint = () => hints.forEach((each) => {
    const scrolled = each.nextElementSibling;
    each.hidden = scrolled.scrollWidth <= scrolled.clientWidth;
  });
  addEventListener("resize", hint);

  const button = document.getElementById("theme");
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to the ${isDark() ? "light" : "dark"} theme`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    drawAll();
  });
  prefersDark.addEventListener("change", () => { label(); drawAll(); });
  addEventListener("beforeprint", () => {
    root.dataset.before = root.dataset.theme ?? "";
    root.dataset.theme = "light";
    root.classList.add("printing");
    drawAll(false);
    plots.forEach((plot) => Plotly.Plots.resize(plot));
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = root.dataset.before;
    if (!root.dataset.theme) delete root.dataset.theme;
    delete root.dataset.before;
    root.classList.remove("printing");
    drawAll();
    plots.forEach((plot) => Plotly.Plots.resize(plot));
  });
  label();
  drawAll().then(() => { hint(); root.dataset.drawn = "true"; });
})();
