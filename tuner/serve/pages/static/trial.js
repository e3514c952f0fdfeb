// Trial: its curve beside the best one and the defaults, its hyperparameters, what it writes, and whether it reproduces.
import { call, path } from "./calls.js";
import { curvesIn } from "./curves.js";
import { sentence } from "./dialogs.js";
import { byId, counted, el, metric, none, visible } from "./elements.js";
import { begun, tried, user } from "./frame.js";
import { operation } from "./operations.js";
import { followSearch } from "./stream.js";
import { Table } from "./tables.js";

const data = begun();
const { search } = data;
let { trial } = data;
const { number } = trial;
const api = path`/searches/${search.name}`;
const page = (other) => path`/searches/${search.name}/trials/${other}`;
const refresh = 700; // milliseconds

function showTop() {
  const links = [trial.confirms === null ? null : ["confirms ", el("a", { href: page(trial.confirms) }, `trial ${trial.confirms}`)],
    trial.parent === null ? null : ["continues ", el("a", { href: page(trial.parent) }, `trial ${trial.parent}`)]];
  byId("about").replaceChildren(...[[trial.outcome], trial.is_best ? ["the best of the search"] : null, ...links].filter(Boolean).map((parts) => el("span", {}, parts)));
  const place = trial.numbers.indexOf(number);
  const link = (text, other) => (other === undefined ? null : el("a.button", { href: page(other) }, text));
  byId("others").replaceChildren(...[link("← Previous", trial.numbers[place - 1]), link("Next →", trial.numbers[place + 1])].filter(Boolean));
  const tile = (title, text, note, isBest) => el(`div${isBest ? ".winner" : ""}`, {}, el("dt", {}, title), el("dd.number", {}, text), el("dd.note", {}, note));
  const last = trial.reports.at(-1);
  byId("tiles").replaceChildren(
    tile(visible(trial.metric), trial.ending === "diverged" ? "∞" : metric(trial.value), last?.metrics.perplexity ? `perplexity ${last.metrics.perplexity.toFixed(1)}` : "", trial.is_best),
    tile("Reports", `${trial.place} of ${trial.num_places}`, trial.outcome),
    tile("Tokens", counted(trial.tokens), `of ${counted(trial.budget_tokens)}`));
}

function parameters(rows, title) {
  return el("div.scroll", { tabindex: "0", role: "region", "aria-label": title }, el("table.plain", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "parameter"), el("th.n", { scope: "col" }, "value"), el("th", { scope: "col" }, "searched"))),
    el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.symbol, row.name ? el("small", {}, ` ${row.name}`) : null), el("td.n.strong", {}, row.value), el("td.range", {}, row.range || none))))));
}

// the curve ----------------------------------------------------------------------------------------

const curves = curvesIn(byId("curve-place"), "curve", `Curve of trial ${number}; the table of reports has its values`, (other) => location.assign(page(other)));
let numEvents = 0;

async function loadCurves() {
  const [summary, all] = await Promise.all([call("GET", `${api}/summary`), call("GET", `${api}/curves`)]);
  numEvents = all.num_events;
  curves.describe({ metric: all.metric, best: summary.best, defaults: summary.defaults, values: summary.values, num_places: summary.num_places, shades: data.shades, chosen: number });
  curves.set(all.curves);
}

// what it writes, and whether it reproduces --------------------------------------------------------

function showText() {
  const place = byId("text");
  if (!trial.can_write || user.role === "viewer") return place.remove();
  const prompt = el("input", { type: "text", maxlength: "4000", autocomplete: "off" });
  const tokens = el("input", { type: "number", min: "1", max: "500", value: "120" });
  const heat = el("input", { type: "number", min: "0", max: "2", step: "0.1", value: "1" });
  place.append(trial.has_weights ? "" : el("p.says", {}, "Its weights were not kept, so it is trained again first."), operation(search.name, {
    action: "Write a text", fields: [el("label.wide", {}, "Beginning ", prompt), el("label", {}, "Tokens ", tokens), el("label", {}, "Temperature ", heat)],
    wish: () => ({ kind: "generate", trial: number, prompt: prompt.value, max_tokens: Number(tokens.value), temperature: Number(heat.value) }),
    result: (done) => done.result.texts.map(({ text, is_answer }) => el("pre.sample", { tabindex: "0" }, el("b", {}, is_answer ? `${done.result.prompt}\n` : done.result.prompt), text)),
  }));
  return undefined;
}

function showReplay() {
  const place = byId("replay");
  if (user.role === "viewer") return place.remove();
  const told = (done) => [el(`p.verdict${done.exit_status ? ".problem" : ""}`, {}, sentence(done.result.sentence))];
  place.append(operation(search.name, { action: "Replay it", wish: () => ({ kind: "replay", trial: number }), result: told }));
  call("GET", "/operations", { query: { search: search.name } }).then((all) => {
    const last = all.find((each) => each.kind === "replay" && each.state === "done" && (each.trial === number || (each.trial === null && trial.is_best)));
    if (last) place.append(el("p.says", {}, "The newest replay said:"), ...told(last));
  }).catch(() => {});
  return undefined;
}

// reports ------------------------------------------------------------------------------------------

const written = (value) => (value === null || value === undefined ? none : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? value.toFixed(4) : value.toExponential(3));
let table = null;
let shownNames = "";

function showReports() {
  if (trial.metrics.join() !== shownNames) {
    shownNames = trial.metrics.join();
    table = new Table(byId("reports"), {
      title: "Table of reports", noun: "report", idOf: (row) => String(row.step), empty: "It has not reported yet.", most: 100,
      columns: [
        { title: "tokens", isNumber: true, key: (row) => row.tokens, cell: (row) => counted(row.tokens) },
        { title: "update", isNumber: true, key: (row) => row.step, cell: (row) => counted(row.step) },
        ...trial.metrics.map((name) => ({ title: name, isNumber: true, key: (row) => row.metrics[name] ?? null, cell: (row) => written(row.metrics[name]) })),
        { title: "time", key: (row) => row.time, cell: (row) => (row.time ? new Date(row.time).toLocaleString() : none) },
      ],
    });
  }
  table?.set(trial.reports);
}

// live ---------------------------------------------------------------------------------------------

function showAll() {
  showTop();
  byId("searched").replaceChildren(parameters(trial.searched, "Searched hyperparameters"));
  byId("constant").replaceChildren(parameters(trial.others, "All other hyperparameters"));
  byId("facts").replaceChildren(...trial.facts.map(([title, text]) => el("div", {}, el("dt", {}, title), el("dd", {}, text))));
  showReports();
}

let timer = 0;
function soon() {
  timer ||= setTimeout(async () => {
    timer = 0;
    const now = await tried(() => call("GET", `${api}/trials/${number}`));
    if (!now) return;
    trial = now;
    showTop();
    showReports();
  }, refresh);
}

showAll();
showText();
showReplay();
await tried(loadCurves);
followSearch(api, search, {
  over: soon, after: numEvents,
  take: (event, id) => {
    if (id <= numEvents) return;
    curves.take(event);
    if (event.event === "end" || event.event === "edit") loadCurves();
    if (event.number === number || event.outcome || ["session", "edit", "end"].includes(event.event)) soon();
  },
});
