// Compare: what differed in the spaces of two or more searches, what it did, and how the best value fell.
import { call, path } from "./calls.js";
import { sentence } from "./dialogs.js";
import { intervals, legend, lines, pageWidth } from "./drawing.js";
import { byId, counted, el, metric, named, none, short } from "./elements.js";
import { begun } from "./frame.js";

const data = begun();
const most = 8;
const every = 10_000; // milliseconds between two looks
const chosen = [...new Set(data.chosen)].slice(0, most);
let shown = "";

const link = (name) => el("a", { href: path`/searches/${name}` }, named(name));
const input = el("input", { id: "add", name: "add", list: "names", autocomplete: "off", spellcheck: "false", placeholder: "name of a search" });
byId("choose").append(el("label", {}, "Add a search", input), el("button", {}, "Add"),
  el("datalist", { id: "names" }, data.names.map((name) => el("option", { value: name }))));
byId("choose").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = input.value.trim();
  if (name && !chosen.includes(name) && chosen.length < most) chosen.push(name);
  input.value = "";
  choose();
});

function choose() {
  const query = new URLSearchParams(chosen.map((name) => ["search", name]));
  history.replaceState(null, "", chosen.length ? `/compare?${query}` : "/compare");
  byId("chosen").replaceChildren(...chosen.map((name) => el("li", {}, named(name),
    el("button", { type: "button", "aria-label": `Leave out ${name}`, click: () => { chosen.splice(chosen.indexOf(name), 1); choose(); input.focus(); } }, "×"))));
  shown = "";
  look();
}

async function look() {
  const names = chosen.join("\n");
  if (chosen.length < 2) {
    byId("compared").replaceChildren(el("p.notice", {}, chosen.length ? "Add one more search." : "Add two or more searches."));
    return;
  }
  let found;
  try {
    found = await call("GET", "/compare", { query: { search: chosen } });
  } catch (error) {
    if (names === chosen.join("\n")) byId("compared").replaceChildren(el("p.notice", {}, sentence(error.message)));
    return;
  }
  if (names !== chosen.join("\n") || JSON.stringify(found) === shown) return;
  shown = JSON.stringify(found);
  byId("compared").replaceChildren(...drawn(found));
}

function drawn(found) {
  const { searches } = found;
  const better = (values) => values.reduce((a, b) => (b === null ? a : a === null || (found.mode === "min" ? b < a : b > a) ? b : a), null);
  const best = better(searches.map((each) => each.best));
  const series = searches.map((each, i) => ({ xs: each.curve_tokens, ys: each.curve_values, kind: i % 6, label: each.name, isDashed: i > 5 }));
  const values = series.flatMap((each) => each.ys).filter((each) => each > 0);
  const isLogY = values.length > 0 && Math.max(...values) > 5 * Math.min(...values);
  return [
    el("section.first", {}, el("h2", {}, found.verdict), el("div.scroll.framed", { tabindex: "0", role: "region", "aria-label": "Results" },
      el("table.rows", {}, el("thead", {}, el("tr", {}, ["search", "trials", "tokens", `best ${found.metric}`, "defaults", "confirmed", "95 % interval", "seeds"].map((each, i) => el(`th${i ? ".n" : ""}`, { scope: "col" }, el("span", {}, each))))),
        el("tbody", {}, searches.map((each) => el(`tr${each.best !== null && each.best === best ? ".winner" : ""}`, {},
          el("th", { scope: "row" }, link(each.name)), el("td.n", {}, counted(each.trials_done)), el("td.n", {}, short(each.tokens)),
          el("td.n", {}, metric(each.best), each.best === null ? null : el("small", {}, ` trial ${each.best_trial}`)),
          el("td.n", {}, metric(each.defaults)), el("td.n", {}, metric(each.mean)),
          el("td.n", {}, each.low === null ? none : `${metric(each.low)} … ${metric(each.high)}`), el("td.n", {}, each.seeds ? counted(each.seeds) : none))))))),
    el("section", {}, el("h2", {}, "What differed"), differences(found)),
    el("section", {}, el("h2", {}, "Best so far"),
      el("p.says", {}, "Best value of the trials that have finished, by the training tokens of all trials of the search."),
      legend(series), lines({ title: `Best ${found.metric} so far of ${searches.map((each) => each.name).join(", ")}`, series, xTitle: "tokens trained by all trials", yTitle: found.metric, isSteps: true, fromZeroX: true, isLogY, size: [pageWidth(), 320] })),
    el("section", {}, el("h2", {}, "The noise of the seeds"),
      el("p.says", {}, "Mean of the winner's retrainings with fresh seeds and its 95 % interval; where there are none, the best value alone, which is the best of many noisy ones."),
      intervals({ title: `Confirmed ${found.metric} and its interval`, xTitle: found.metric, size: [pageWidth()], rows: searches.map((each, i) => ({ name: each.name, low: each.low, high: each.high, value: each.mean ?? each.best, kind: i % 6 })) })),
  ];
}

function differences(found) {
  const rows = Object.entries(found.differences);
  if (!rows.length) return el("p", {}, "The searches have the same space.");
  return el("div.scroll.framed", { tabindex: "0", role: "region", "aria-label": "Settings that differ" },
    el("table.rows", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", {}, "setting")), found.searches.map((each) => el("th", { scope: "col" }, el("span", {}, named(each.name)))))),
      el("tbody", {}, rows.map(([name, texts]) => el("tr", {}, el("th", { scope: "row" }, name), texts.map((text) => el("td", {}, text || none)))))));
}

choose();
setInterval(() => { if (!document.hidden && chosen.length > 1) look(); }, every);
