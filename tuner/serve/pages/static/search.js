// Search: the answer first, then curves, trials, pictures, journal and space, all of which grow while it runs.
import { buttons, ended, stateOf } from "./actions.js";
import { call, path } from "./calls.js";
import { curvesIn } from "./curves.js";
import { asked } from "./dialogs.js";
import { byId, clock, counted, el, none, short, visible, when } from "./elements.js";
import { told } from "./events.js";
import { show as showPicture, writeLegend } from "./figures.js";
import { begun, mayChange, onTheme, say, tried } from "./frame.js";
import { operation } from "./operations.js";
import { followSearch } from "./stream.js";
import { Table, redrawn } from "./tables.js";

const data = begun();
const { name } = data.search;
let { search, summary } = data;
const api = path`/searches/${name}`;
const mostEvents = 200; // in the list
const refresh = 1500; // milliseconds between two answers while reports come
const pictureRefresh = 30_000;

// the state, and what can be done ------------------------------------------------------------------

function showState() {
  const facts = [];
  if (search.trials) facts.push(["trials", [el("progress", { value: search.trials_done, max: search.trials, "aria-label": "Trials that have ended" }), ` ${counted(search.trials_done)} of ${counted(search.trials)}`]]);
  if (search.tokens) facts.push(["trained", `${short(search.tokens)} tokens`]);
  if (search.tokens_per_second) facts.push(["speed", `${short(search.tokens_per_second)} tokens/s`]);
  if (search.seconds_left !== null) facts.push(["left", clock(search.seconds_left)]);
  if (search.devices) facts.push(["devices", search.devices]);
  if (search.newest !== null) facts.push(["newest event", when(search.newest)]);
  facts.push(["by", search.owner || "a command"], ["seen by", { private: "owner", team: "team", public: "all" }[search.visibility] ?? search.visibility]);
  redrawn(byId("state"), el("div.card.now", { class: `card now ${search.state}` }, stateOf(search),
    el("dl.numbers", {}, facts.map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value))))),
  search.waits_for ? el("p.waits", {}, `Place ${search.position ?? none}. Waits: ${visible(search.waits_for)}. `, search.begins_at ? ["It will probably begin ", when(search.begins_at), "."] : null) : "",
  search.problem ? el("p.problem", {}, search.problem) : "");
  const acts = buttons(search, { changed: (after) => stream.set(after), gone: () => location.assign("/") });
  const more = [
    mayChange(search) && search.owner ? el("button", { type: "button", "data-act": "edit", click: edit }, "Edit") : null,
    el("a.button", { href: `/new?fork=${encodeURIComponent(name)}` }, "Fork"),
    summary.best === null ? null : el("a.button", { href: `/api/v1${api}/report`, target: "_blank", rel: "noopener" }, "Report"),
    summary.best === null ? null : el("button", { type: "button", "data-act": "download", click: download }, "Download the winner"),
  ];
  redrawn(byId("acts"), ...[...acts, ...more].filter(Boolean));
}

async function edit() {
  const text = el("textarea", { spellcheck: "false", "aria-label": "Space as YAML", value: data.space });
  const after = await asked(`Edit ${visible(name)}`, [
    el("p", {}, "Ranges, trials and budget may change as far as a resumed search may have others. A search that runs goes on with the new space after the reports under way; its trials stay."), text,
  ], { action: "Edit the search", isWide: true, doing: () => call("POST", `${api}/edit`, { body: text.value }) });
  if (!after) return;
  data.space = text.value;
  stream.set(after);
  showSpace();
  say(`${name} is edited`);
}

async function download() {
  const format = el("select", { "aria-label": "Format" }, [["hf", "Hugging Face transformers"], ["gguf", "GGUF (llama.cpp)"], ["torch", "PyTorch"]].map(([value, text]) => el("option", { value }, text)));
  const part = operation(name, {
    action: "Write it", fields: [el("label", {}, "Format ", format)],
    wish: () => ({ kind: "export", format: format.value }), result: () => [el("p", {}, "It is written:")],
  });
  const files = byId("files").cloneNode(true);
  files.removeAttribute("id");
  await asked("Download the winner", [el("p", {}, `Trial ${summary.best} for other programs, or as it was kept:`), part, files], { action: "Done", doing: async () => true });
}

// the answer ---------------------------------------------------------------------------------------

function showAnswer() {
  byId("headline").textContent = visible(summary.headline);
  byId("about").replaceChildren(...summary.about.map((part) => el("span", {}, part)));
  byId("tiles").hidden = !summary.tiles.length;
  byId("tiles").replaceChildren(...summary.tiles.map((tile) => el(`div${tile.is_winner ? ".winner" : ""}`, {}, el("dt", {}, tile.title), el("dd.number", {}, tile.number), el("dd.note", {}, tile.note))));
  byId("prose").replaceChildren(...summary.sentences.map((text) => el("p", {}, text)),
    ...(summary.advice.length ? [el("h3", {}, "Recommendations"), el("ul", {}, summary.advice.map((text) => el("li", {}, text)))] : []));
  const { winners } = summary;
  byId("winners").replaceChildren(...(winners ? [el("div.scroll", { tabindex: "0", role: "region", "aria-label": "Hyperparameters of the best trial" }, el("table.plain", {},
    el("caption", {}, winners.is_defaults ? "The defaults are the best" : ["Hyperparameters of ", el("a", { href: path`/searches/${name}/trials/${winners.number}` }, `trial ${winners.number}`)]),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "parameter"), el("th.n", { scope: "col" }, `trial ${winners.number}`), winners.has_defaults ? el("th.n", { scope: "col" }, "defaults") : null, el("th", { scope: "col" }, "searched"))),
    el("tbody", {}, winners.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.symbol, row.name ? el("small", {}, ` ${row.name}`) : null), el("td.n.strong", {}, row.best), winners.has_defaults ? el("td.n", {}, row.defaults) : null, el("td.range", {}, row.range))))))] : []));
  byId("environment").replaceChildren(...summary.environment.map(([title, text]) => el("div", {}, el("dt", {}, title), el("dd", {}, text))));
}

// curves and trials --------------------------------------------------------------------------------

const open = (number) => location.assign(path`/searches/${name}/trials/${number}`);
const curves = curvesIn(byId("curves-place"), "curves", `Curves of all trials of ${visible(name)}; the table of trials has their values`, open);
let table = null;
const rows = new Map();
let newest = 0;
let numEvents = 0; // of the curves: later reports are added one by one

async function loadCurves() {
  const answer = await tried(() => call("GET", `${api}/curves`));
  if (!answer) return;
  numEvents = answer.num_events;
  curves.describe({ metric: answer.metric });
  curves.set(answer.curves);
}

async function loadTrials() {
  const answer = await tried(() => call("GET", `${api}/trials`, { query: { since: newest } }));
  if (!answer?.heads.length) return;
  ({ newest } = answer);
  table ??= new Table(byId("trials"), {
    title: "Table of trials", noun: "trial", hasFilter: true, idOf: (row) => String(row.number), classOf: (row) => `${row.ending}${row.is_winner ? " winner" : ""}`,
    textOf: (row) => row.texts.join(" "), sorted: { column: 0, sign: 1 },
    columns: answer.heads.map((head, i) => ({
      title: visible(head), isNumber: answer.are_numbers[i],
      key: (row) => (answer.are_numbers[i] ? row.keys[i] : row.texts[i]),
      cell: (row) => (i ? row.texts[i] : el("a", { href: path`/searches/${name}/trials/${row.number}` }, row.texts[0])),
    })),
  });
  answer.rows.forEach((row) => rows.set(row.number, row));
  for (const row of rows.values()) if (row.is_winner !== (row.number === summary.best) && summary.winners) rows.set(row.number, { ...row, is_winner: row.number === summary.best });
  table.set([...rows.values()]);
}

// pictures -----------------------------------------------------------------------------------------

let drawnAt = 0;
let drawnEvents = -1;
let isNear = false;

async function loadPictures() {
  if (!isNear || drawnEvents === summary.num_events || summary.best === null) return;
  drawnAt = Date.now();
  byId("pictures-state").textContent = drawnEvents < 0 ? "They are being drawn …" : "";
  const answer = await tried(() => call("GET", `${api}/pictures`));
  if (!answer) return;
  drawnEvents = answer.num_events;
  byId("pictures-state").textContent = "";
  const { sections, dark } = answer;
  const parts = [];
  const queue = [];
  const figure = (picture, { hasHead = true, hasLegend = true, says = true } = {}) => {
    const legend = hasLegend ? el("ul.legend") : null;
    const plot = el("div.plot", { role: "img", "aria-label": picture.caption || picture.title });
    queue.push(() => showPicture(plot, picture, dark, legend));
    return el("figure", { id: picture.key }, hasHead ? el("h3", {}, picture.title) : null, legend,
      picture.min_width ? el("div.scroll", { tabindex: "0", role: "region", "aria-label": `${picture.title}: plot, scrolls sideways` }, plot) : plot,
      says && picture.caption ? el("figcaption", {}, picture.caption) : null);
  };
  for (const section of ["confirmed", "progress", "curves", "matters"]) {
    const figures = (sections[section] ?? []).map((picture) => figure(picture));
    if (figures.length) parts.push(el(section === "progress" ? "div.pair" : "div", {}, figures));
  }
  if (answer.no_shares) parts.push(el("p.notice", {}, answer.no_shares));
  if (sections.slices?.length) {
    const legend = el("ul.legend");
    parts.push(el("h3", {}, "One parameter at a time"), el("p.says", {}, answer.slices_caption), legend,
      el("div.grid", {}, sections.slices.map((picture) => figure(picture, { hasHead: false, hasLegend: false, says: false }))));
    const traces = sections.slices.flatMap((each) => each.figure.data);
    queue.push(() => writeLegend(legend, traces, dark));
    onTheme(() => legend.isConnected && writeLegend(legend, traces, dark));
  }
  byId("pictures").replaceChildren(...parts);
  queue.forEach((draw) => draw());
}

new IntersectionObserver((entries) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  isNear = true;
  if (drawnEvents < 0) loadPictures();
}, { rootMargin: "600px" }).observe(byId("pictures"));

// journal, log, space ------------------------------------------------------------------------------

const list = byId("events");

function note(event, id) {
  list.prepend(el("li", { value: id }, el("time", { datetime: new Date(event.time_ms).toISOString() }, new Date(event.time_ms).toLocaleTimeString()), " ", told(event, summary.metric)));
  while (list.children.length > mostEvents) list.lastChild.remove();
}

byId("log").addEventListener("toggle", async () => {
  if (!byId("log").open) return;
  const answer = await fetch(`/api/v1${api}/files/log.txt`, { headers: { Range: "bytes=-65536" } }).catch(() => null);
  byId("log").querySelector("pre").textContent = answer?.ok ? visible(await answer.text()) : "No driver of the server has written a log.";
});

function showSpace() {
  byId("space").textContent = visible(data.space || "The search was begun without a file of its space.");
}

async function loadFiles() {
  const answer = await tried(() => call("GET", `${api}/files`));
  byId("files").replaceChildren(...(answer?.files ?? []).map((file) => el("li", {}, el("a", { href: `/api/v1${path`/searches/${name}/files/${file.name}`}`, download: `${name}-${file.name}` }, file.name), ` ${short(file.bytes)}B`)));
}

// live ---------------------------------------------------------------------------------------------

let timer = 0;
let isStale = false;
let newestEvent = 0;

async function loadAnswer() {
  const answer = await tried(() => call("GET", `${api}/summary`));
  if (!answer) return;
  const hadBest = summary.best !== null;
  summary = answer;
  describe();
  showAnswer();
  if (!hadBest && summary.best !== null) showState();
  if (Date.now() - drawnAt > pictureRefresh || ended.includes(search.state)) loadPictures();
}

function describe() {
  const { metric, best, defaults, values, num_places: numPlaces } = summary;
  curves.describe({ metric, best, defaults, values, num_places: numPlaces, shades: data.shades });
}

/** Ask for the answer again, soon: the first event waits little, many together are one. */
function soon() {
  isStale = true;
  if (timer) return;
  timer = setTimeout(async () => {
    isStale = false;
    await Promise.all([loadAnswer(), loadTrials()]);
    timer = 0;
    if (isStale || summary.num_events < newestEvent) soon(); // the server gives large answers again for a while
  }, refresh);
}

function take(event, id) {
  newestEvent = id;
  note(event, id);
  if (id <= numEvents) return;
  curves.take(event);
  if (event.event === "end" || event.event === "edit") {
    loadCurves();
    loadFiles();
  }
  soon();
}


describe();
showAnswer();
showSpace();
loadTrials();
loadFiles();
await loadCurves();
const stream = followSearch(api, search, {
  take, over: soon, after: Math.max(0, numEvents - mostEvents),
  changed: (now) => { search = now; showState(); },
  deleted: () => say(`${name} was deleted`, { isProblem: true }),
});
showState();
