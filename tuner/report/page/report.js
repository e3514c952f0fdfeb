"use strict";
// Plots: drawn in the colours of the theme, and redrawn when the theme or the width changes.
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
  };
  shapes.circle = shapes["circle-open"];
  const dashes = { dash: "7 4", dot: "2 3" };

  function entry(trace) {
    const isLine = (trace.mode ?? "").includes("lines");
    const kind = trace.type === "bar" ? "bar" : isLine ? "line" : trace.marker.symbol ?? "circle";
    const isStroke = !["bar", "diamond", "circle"].includes(kind);
    const colour = isLine ? trace.line.color : trace.marker.color;
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

  function draw(plot, dark) {
    const figure = figures[plot.dataset.figure];
    const { data, layout } = dark ? recoloured(figure) : structuredClone(figure);
    if (plot.clientWidth < narrow) {
      layout.margin.l = Math.min(layout.margin.l, 50);
      layout.margin.r = Math.min(layout.margin.r, 10);
    }
    const legend = document.querySelector(`[data-legend="${plot.dataset.figure}"]`);
    const shown = data.filter((trace) => trace.name && trace.showlegend !== false);
    if (legend && shown.length > 1) legend.replaceChildren(...shown.map(entry));
    if (byTouch) { // touch scrolls the page
      layout.dragmode = false;
      Object.assign(layout.xaxis, { fixedrange: true });
      Object.assign(layout.yaxis, { fixedrange: true });
    }
    return Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
  }

  const drawAll = (dark = isDark()) => Promise.all(plots.map((plot) => draw(plot, dark)));

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
  drawAll().then(() => { root.dataset.drawn = "true"; });
})();

// The table: sorted by buttons in its heads, filtered by words.
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const numbers = new Intl.Collator("en", { numeric: true });

  function compare(a, b, column, sign) {
    const [one, other] = [a.cells[column], b.cells[column]];
    const [x, y] = [one.dataset.key, other.dataset.key];
    if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1; // cells without a value are last
    return sign * numbers.compare(one.textContent, other.textContent);
  }

  function sort(column) {
    const head = heads[column];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => compare(a, b, column, sign)));
  }
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => sort(column));
    if ([...body.rows].some((row) => row.cells[column].classList.contains("n"))) head.classList.add("n");
  });

  const filter = document.getElementById("filter");
  const output = document.querySelector("output");
  filter.closest(".filter").hidden = false;
  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = [...row.cells].map((cell) => cell.title || cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    output.textContent = `${count} of ${body.rows.length} trials`;
  }
  filter.addEventListener("input", show);
  show();
})();
