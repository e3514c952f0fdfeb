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

  // A legend names the plots that it is of, and has each of their names once.
  function write(legend, dark) {
    const traces = legend.dataset.legend.split(" ").flatMap((key) => figures[key].data);
    const entries = pictureLegend.entries(dark ? traces.map(recoloured) : traces);
    if (entries.length) legend.replaceChildren(...entries);
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
    const count = data.filter(pictureLegend.isNamed).length;
    data.forEach((trace) => { trace.showlegend = count > 1 && Boolean(pictureLegend.isNamed(trace)); });
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
