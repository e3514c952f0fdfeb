// New search: a form and a text that say the same, what is wrong with it as one types, and what it will cost.
import { priorities } from "./actions.js";
import { Refusal, call, newKey, path } from "./calls.js";
import { sentence } from "./dialogs.js";
import { bars, legend, lines, pageWidth } from "./drawing.js";
import { byId, bytes, clock, counted, el, named, short, when } from "./elements.js";
import { Form } from "./form.js";
import { begun, say, user } from "./frame.js";

const data = begun();
const text = byId("text");
const wait = 350; // milliseconds after the last key
let [timer, asking, valid] = [0, null, null];
let key = newKey();

// how it is run ------------------------------------------------------------------------------------

const select = (name, values, value, change) => el("select", { name, change }, values.map((each) => el("option", { value: each, selected: each === value }, each)));
const fields = {
  name: el("input", { name: "name", maxlength: "100", placeholder: "the space's name, and a number" }),
  priority: select("priority", priorities, "normal", () => check(0)),
  visibility: select("visibility", ["private", "team", "public"], "team"),
  least: el("input", { name: "least", type: "number", min: "1", max: "4096", placeholder: "as many as it asks for", change: () => check(0) }),
};
const presets = el("select", { name: "preset", change: choosePreset }, el("option", { value: "" }, data.fork ? `the space of ${data.fork}` : "an empty space"),
  data.presets.map((each) => el("option", { value: each.name, selected: each.name === data.preset }, each.name)));
const about = el("p.says", { role: "status" });
byId("choose").append(
  el("label", {}, "Begin with", presets), el("label", {}, "Name", fields.name), el("label", {}, "Priority", fields.priority),
  el("label", {}, "Who else sees it", fields.visibility), el("label", {}, "Devices that are enough", fields.least));
byId("choose").after(about);
if (data.fork) byId("title").replaceChildren("Fork of ", named(data.fork));

function choosePreset() {
  const preset = data.presets.find((each) => each.name === presets.value);
  about.textContent = preset ? preset.about : "";
  put(preset ? preset.text : data.text);
}

// the text -----------------------------------------------------------------------------------------

function put(value) {
  text.value = value;
  number([]);
  check(0);
}

function number(mistakes) {
  const wrong = new Set(mistakes.map((each) => each.line));
  const count = text.value.split("\n").length;
  byId("numbers").replaceChildren(...Array.from({ length: count }, (_, i) => el(`span${wrong.has(i + 1) ? ".wrong" : ""}`, {}, i + 1)));
  byId("numbers").scrollTop = text.scrollTop;
}

text.addEventListener("scroll", () => { byId("numbers").scrollTop = text.scrollTop; });
text.addEventListener("input", () => { number([]); check(wait); });

/** Put the cursor at a mistake. */
function goTo({ line, column }) {
  const start = text.value.split("\n").slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0) + column - 1;
  text.focus();
  text.setSelectionRange(start, start);
  const rows = text.value.split("\n").length;
  text.scrollTop = Math.max(0, (line - 6) * (text.scrollHeight / rows));
}

const form = new Form(byId("form"), data.schema, async (changes) => {
  try {
    const after = await call("POST", "/draft", { body: { text: text.value, changes } });
    put(after.text);
  } catch (error) {
    say(error.message, { isProblem: true });
    form.fill(form.data);
  }
});

/** Ask the server what the text is, some time after the last change. */
function check(milliseconds) {
  clearTimeout(timer);
  valid = null;
  key = newKey();
  showSubmit();
  timer = setTimeout(ask, milliseconds);
}

async function ask() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  const sent = text.value;
  const query = { priority: fields.priority.value, least: fields.least.value };
  byId("verdict").textContent = "Checking…";
  const [draft, found] = await Promise.allSettled([
    call("POST", "/draft", { body: { text: sent, changes: [] }, signal }),
    call("POST", "/validate", { body: sent, query, signal })]);
  if (signal.aborted || sent !== text.value) return;
  form.fill(draft.status === "fulfilled" ? draft.value.data : null);
  byId("form-says").textContent = draft.status === "fulfilled" ? "Each field writes into the text; what the text has beside stays." : "The text cannot be read at present, so the form waits.";
  if (found.status === "fulfilled") showValid(found.value);
  else showMistakes(found.reason);
}

function showMistakes(error) {
  const mistakes = error instanceof Refusal && error.mistakes.length ? error.mistakes : [{ line: 0, column: 0, message: error.message }];
  number(mistakes);
  byId("verdict").textContent = mistakes.length === 1 ? "One mistake:" : `${mistakes.length} mistakes:`;
  byId("verdict").className = "says problem";
  show(false);
  byId("mistakes").replaceChildren(...mistakes.map((each) => el("li", {},
    each.line ? el("button", { type: "button", click: () => goTo(each) }, `${each.line}:${each.column}`) : null, " ", each.message)));
  showSubmit();
}

// what it is ---------------------------------------------------------------------------------------

/** Show what a valid text is, and hide it below a text with mistakes, of which it would not be. */
function show(isValid) {
  for (const id of ["cost", "notes", "priors", "rates"]) byId(id).hidden = !isValid;
}

function showValid(found) {
  valid = found;
  show(true);
  number([]);
  byId("verdict").textContent = `${found.name} is a valid space.`;
  byId("verdict").className = "says";
  byId("mistakes").replaceChildren();
  const { cost } = found;
  const tile = (title, value, note = "") => el("div", {}, el("dt", {}, title), el("dd.number", {}, value), el("dd.note", {}, note));
  byId("cost").replaceChildren(
    tile("training tokens", short(cost.expected_tokens), `expected; ${short(cost.full_tokens)} if no trial is stopped early`),
    tile("trials", counted(cost.trials), `of ${short(cost.trial_tokens)} tokens each`),
    tile("time", cost.seconds === null ? "unknown" : clock(cost.seconds), cost.seconds === null ? "until this server has trained something" : `on ${counted(cost.devices)} device${cost.devices === 1 ? "" : "s"}, at the speed of late`),
    tile("memory", cost.peak_bytes === null ? "unknown" : bytes(cost.peak_bytes), "predicted peak of a process that trains the largest model on a CPU, for each that trains at one time"),
    tile("place in the queue", cost.position === null ? "at once" : `${cost.position}.`, [sentence(cost.waits_for), cost.begins_at && cost.position !== null ? [" Probably ", when(cost.begins_at), "."] : ""]));
  byId("notes").replaceChildren(...found.notes.map((note) => el("p.notice", {}, sentence(note))),
    el("details", {}, el("summary", {}, "The search in sentences"), el("ul", {}, found.lines.map((line) => el("li", {}, line)))),
    el("details", {}, el("summary", {}, `${counted(found.stacks.length)} model${found.stacks.length === 1 ? "" : "s"}`),
      el("ul", {}, found.stacks.map((each) => el("li", {}, `${each.name}: ${counted(each.parameters)} weights, ${[...new Set(each.steps)].map(counted).join(" to ")} updates a trial`)))));
  byId("priors").replaceChildren(...found.parameters.map(prior));
  byId("rates").replaceChildren(...found.schedules.map(rates));
  showSubmit();
}

function prior(parameter) {
  const title = `${parameter.symbol}: ${parameter.text}`;
  const size = [360, 170];
  const isNamed = typeof parameter.xs[0] === "string";
  const picture = isNamed
    ? bars({ title, names: parameter.xs, values: parameter.density, size })
    : lines({ title, series: [{ xs: parameter.xs, ys: parameter.density, kind: 0, label: title }], xTitle: parameter.symbol, yTitle: "", isLogX: parameter.is_log, isFilled: true, fromZero: true, size });
  return el("figure", {}, el("h3", {}, parameter.symbol), picture, el("figcaption", {}, sentence(parameter.text + (parameter.used_when ? `; only with ${parameter.used_when}` : ""))));
}

function rates({ schedule, curves }) {
  const labels = [...new Set(curves.slice(1).map((each) => each.label.split(" = ")[0]))];
  const series = curves.map((curve, i) => {
    const parameter = labels.indexOf(curve.label.split(" = ")[0]);
    const isSecond = i > 0 && curves.findIndex((each) => each.label.split(" = ")[0] === labels[parameter]) !== i;
    return { xs: curve.steps, ys: curve.rates, label: curve.label, kind: i ? parameter % 6 : "ink", isDashed: i > 0 && !isSecond };
  });
  const peaks = curves.map((curve) => Math.max(...curve.rates));
  const isLogY = Math.max(...peaks) > 20 * Math.min(...peaks);
  const ordered = [...series.slice(1), series[0]];
  return el("figure", {}, el("h3", {}, schedule), legend(series),
    lines({ title: `Learning rate by update, schedule ${schedule}`, series: ordered, xTitle: "update", yTitle: "learning rate", isLogY, fromZero: true, size: [pageWidth(), 300] }));
}

// submit -------------------------------------------------------------------------------------------

const button = el("button.main", { type: "button", click: submit }, data.fork ? "Submit the fork" : "Submit");
const says = el("p", { role: "status" });
byId("submit").append(button, says);

function showSubmit() {
  button.disabled = !valid || user.role === "viewer";
  if (user.role === "viewer") says.textContent = "Viewers may not submit searches.";
  else if (!valid) says.textContent = "";
  else says.textContent = `${counted(valid.cost.trials)} trials, about ${short(valid.cost.expected_tokens)} tokens${valid.cost.seconds === null ? "" : `, ${clock(valid.cost.seconds)}`}.`;
}

async function submit() {
  button.disabled = true;
  const query = { priority: fields.priority.value, visibility: fields.visibility.value, least: fields.least.value };
  try {
    const search = data.fork
      ? await call("POST", path`/searches/${data.fork}/fork`, { body: text.value, query: { ...query, new_name: fields.name.value } })
      : await call("POST", "/searches", { body: text.value, key, query: { ...query, name: fields.name.value } });
    location.assign(path`/searches/${search.name}`);
  } catch (error) {
    showSubmit();
    if (error.mistakes?.length) showMistakes(error);
    else if (error.body?.name) says.replaceChildren(sentence(error.message), " ", el("a", { href: path`/searches/${error.body.name}` }, "Look at it"), " or change the seed.");
    else says.textContent = sentence(error.message);
  }
}

choosePreset();
if (!data.preset) put(data.text);
