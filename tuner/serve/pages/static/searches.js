// Searches: the queue in the order in which it will run, and what has ended.
import { act, buttons, ended, priorities, stateOf } from "./actions.js";
import { call, path } from "./calls.js";
import { byId, clock, counted, el, metric, named, none, short, visible, when } from "./elements.js";
import { begun, mayChange, say, tried, user } from "./frame.js";
import { follow } from "./stream.js";
import { Table, redrawn } from "./tables.js";

const data = begun();
const searches = new Map(data.searches.map((search) => [search.name, search]));

const link = (search) => el("a", { href: path`/searches/${search.name}` }, named(search.name));
const order = { running: 0, starting: 0, pausing: 0, stopping: 0, waiting: 1, paused: 2 };
// a search that waits without a place is about to begin
const byOrder = (a, b) => order[a.state] - order[b.state] || (a.position ?? 0) - (b.position ?? 0) || b.submitted - a.submitted;
const owner = (search) => (search.owner ? named(search.owner) : "a command");

function changed(search) {
  searches.set(search.name, search);
  show();
}

function gone(search) {
  searches.delete(search.name);
  show();
}

// the queue ----------------------------------------------------------------------------------------

const queue = byId("queue");
const cards = new Map();

function progress(search) {
  const { trials_done: done, trials } = search;
  if (!trials) return null;
  return el("p.progress", {}, el("progress", { value: done, max: trials, "aria-label": `Trials of ${search.name} that have ended` }),
    ` ${counted(done)} of ${counted(trials)} trials`);
}

function numbers(search) {
  const facts = [];
  if (search.best !== null) facts.push(["best", `${metric(search.best)}`, `${search.metric}, trial ${search.best_trial}`]);
  if (search.tokens_per_second) facts.push(["speed", `${short(search.tokens_per_second)} tokens/s`, `${counted(search.tokens)} tokens so far`]);
  if (search.seconds_left !== null) facts.push(["left", clock(search.seconds_left), "estimate of the remaining time"]);
  return el("dl.numbers", {}, facts.map(([name, text, title]) => el("div", { title }, el("dt", {}, name), el("dd", {}, text))));
}

function about(search) {
  const waits = search.waits_for && [
    `${search.waits_for}. `, search.begins_at ? ["It will probably begin ", when(search.begins_at), "."] : null];
  return [
    el("div.name", {},
      search.position ? el("span.position", { title: "place in the queue" }, `${search.position}.`) : null,
      el("h3", {}, link(search)), stateOf(search),
      el("span.by", {}, "by ", owner(search), search.visibility === "private" ? ", private" : "")),
    el("div.how", {}, progress(search), numbers(search)),
    waits ? el("p.waits", {}, "Waits: ", waits) : null,
    search.problem ? el("p.problem", {}, visible(search.problem)) : null,
  ];
}

function prioritySelect(search) {
  if (!mayChange(search) || !search.owner) return el("span.faint", {}, `${search.priority} priority`);
  const change = async (event) => {
    const to = event.target.value;
    const before = search.priority;
    const after = await prioritized(search, { priority: to });
    if (after) say(`${search.name} has ${to} priority`, { undo: { text: "Undo", act: () => prioritized(search, { priority: before }) } });
    else event.target.value = before;
  };
  return el("label.priority", {}, "priority ", el("select", { "data-act": "priority", "aria-label": `Priority of ${search.name}`, change },
    priorities.map((each) => el("option", { value: each, selected: each === search.priority }, each))));
}

async function prioritized(search, query) {
  const after = await tried(() => call("POST", path`/searches/${search.name}/priority`, { query }));
  if (after) changed(after);
  return after;
}

// A search can be moved among those of its class and user; moving down is moving the next one up.
function moves(search, waiting) {
  if (search.state !== "waiting" || !mayChange(search)) return [];
  const same = waiting.filter((each) => each.owner === search.owner && each.priority === search.priority);
  const place = same.findIndex((each) => each.name === search.name);
  const move = (text, label, actName, one, other) => el("button.icon", {
    type: "button", disabled: !(one && other), "data-act": actName, "aria-label": `Move ${search.name} ${label}`,
    click: async () => { if (await prioritized(one, { before: other.name })) say(`${search.name} is moved ${label}`); },
  }, text);
  return [move("↑", "up", "up", search, same[place - 1]), move("↓", "down", "down", same[place + 1], search)];
}

function showQueue() {
  const active = [...searches.values()].filter((search) => search.state in order).sort(byOrder);
  const waiting = active.filter((search) => search.state === "waiting");
  const used = active.reduce((sum, search) => sum + search.devices, 0);
  byId("devices").textContent = `${used} of ${data.devices} device${data.devices === 1 ? "" : "s"} in use`;
  const names = new Set(active.map((search) => search.name));
  for (const name of cards.keys()) if (!names.has(name)) cards.delete(name);
  const elements = active.map((search) => {
    if (!cards.has(search.name)) cards.set(search.name, { element: el(`li.card`, { "data-row": search.name }, el("div.about"), el("div.buttons")), about: "", acts: "" });
    const card = cards.get(search.name);
    const text = JSON.stringify(search);
    if (card.about !== text) redrawn(card.element.firstChild, ...about(search).filter(Boolean));
    card.about = text;
    const acts = [...moves(search, waiting), prioritySelect(search), ...buttons(search, { changed, gone })];
    const key = acts.map((each) => each.outerHTML).join("");
    if (card.acts !== key) redrawn(card.element.lastChild, ...acts);
    card.acts = key;
    card.element.className = `card ${search.state}`;
    return card.element;
  });
  if (!active.length) {
    queue.replaceChildren(el("p.says", {}, "Nothing runs and nothing waits."));
    return;
  }
  let list = queue.querySelector("ol");
  if (!list) queue.replaceChildren(list = el("ol.cards"));
  if (elements.length !== list.children.length || elements.some((each, i) => each !== list.children[i])) redrawn(list, ...elements);
}

// what has ended -----------------------------------------------------------------------------------

const table = new Table(byId("ended"), {
  title: "Searches that have ended", noun: "search", nouns: "searches", empty: "No search has ended yet.", most: 50, hasFilter: true,
  idOf: (search) => search.name,
  textOf: (search) => [search.name, search.state, search.owner || "a command", search.metric, search.priority, search.visibility].join(" "),
  columns: [
    { title: "search", key: (search) => search.name, cell: (search) => link(search) },
    { title: "state", key: (search) => search.state, cell: (search) => [stateOf(search), search.problem ? el("small.why", {}, search.problem) : null] },
    { title: "best", isNumber: true, key: (search) => search.best, cell: (search) => [metric(search.best), el("small", {}, search.metric && search.best !== null ? ` ${search.metric}` : "")] },
    { title: "trials", isNumber: true, key: (search) => search.trials_done, cell: (search) => (search.trials ? `${counted(search.trials_done)} of ${counted(search.trials)}` : none) },
    { title: "tokens", isNumber: true, key: (search) => search.tokens, cell: (search) => short(search.tokens) },
    { title: "by", key: (search) => search.owner || "a command", cell: owner },
    { title: "newest event", key: (search) => (search.newest === null ? null : -search.newest), cell: (search) => when(search.newest) },
    { title: "what to do", isUnnamed: true, cell: (search) => el("div.buttons", {}, buttons(search, { changed, gone })) },
  ],
});

function showEnded() {
  const rows = [...searches.values()].filter((search) => ended.includes(search.state));
  table.set(rows.sort((a, b) => (b.newest ?? 0) - (a.newest ?? 0)));
}

function show() {
  showQueue();
  showEnded();
}

show();
follow("/events", {
  searches: ({ searches: all, gone: names, is_all: isAll }) => {
    if (isAll) searches.clear();
    names.forEach((name) => searches.delete(name));
    all.forEach((search) => searches.set(search.name, search));
    show();
  },
});
setInterval(showEnded, 30_000); // "3 minutes ago"
