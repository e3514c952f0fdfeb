// A form made from the schema of a space. It has no values of its own: they are those of the text, and changes go into the text.
import { el } from "./elements.js";

// What a beginner needs is in front; all else of a section is behind a summary.
const common = {
  data: ["source", "files"], tokenizer: ["vocab_size"], budget: ["tokens", "reports"], search: ["trials", "sampler", "scheduler", "seed"],
  confirm: ["top", "seeds"], objective: ["metric"], engine: ["workers"], proxy: [],
};
const sizes = ["d_model", "n_layers", "n_heads", "context_length"];
const titles = { data: "Data", tokenizer: "Tokenizer", model: "Model", hyperparameters: "Hyperparameters", budget: "Budget of a trial", search: "Search", confirm: "Confirmation", objective: "Objective", engine: "Engine", proxy: "Proxy" };
const [pairs, lists] = [["uniform", "log", "int", "int_log"], ["choice", "grid"]];
const number = /^[-+]?(\.\d+|\d[\d_]*(\.[\d_]*)?)([eE][-+]?\d+)?$/;

/** Write a value as YAML on one line. */
export function flow(value) {
  if (Array.isArray(value)) return `[${value.map(flow).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${key}: ${flow(each)}`).join(", ")}}`;
  if (typeof value !== "string") return String(value);
  return /^[\p{L}\p{N}_][\p{L}\p{N}_./-]*$/u.test(value) && !number.test(value) && !/^(true|false|null)$/i.test(value) ? value : JSON.stringify(value);
}

/** Read what somebody typed: a number, a truth value, or a text. */
const typed = (text) => (number.test(text) || /^(true|false)$/.test(text) ? text : flow(text));
const list = (text) => `[${text.split(",").map((each) => each.trim()).filter(Boolean).map(typed).join(", ")}]`;
const plain = (value) => (value === null || value === undefined ? "" : Array.isArray(value) ? value.map((each) => (typeof each === "object" ? flow(each) : each)).join(", ") : typeof value === "object" ? flow(value) : String(value));

/** Return the form of a distribution that fields can show: its kind, its ends or values, and all beside (prior, when …); null for others. */
function distribution(value) {
  if (value === null || value === undefined || typeof value !== "object") return { kind: "value", texts: [plain(value)], beside: "" };
  const entries = Array.isArray(value) ? [] : Object.entries(value);
  const [[kind, inner] = [], ...more] = entries.filter(([key]) => key === "value" || lists.includes(key) || pairs.includes(key));
  if (!kind || more.length) return null;
  const beside = entries.filter(([key]) => key !== kind).map(([key, each]) => `${key}: ${flow(each)}`).join(", ");
  if (pairs.includes(kind) && Array.isArray(inner) && inner.length === 2) return { kind, texts: inner.map(plain), beside };
  if (lists.includes(kind) && Array.isArray(inner)) return { kind, texts: [plain(inner)], beside };
  return kind === "value" ? { kind, texts: [plain(inner)], beside } : null;
}

export class Form {
  data = {};
  #place;
  #schema;
  #change;
  #sections = new Map();

  /**
   * @param {HTMLElement} place
   * @param {object} schema - as GET /schema answers
   * @param {function(Array<{path: string[], value: string|null}>)} change - called with changes of the text
   */
  constructor(place, schema, change) {
    this.#place = place;
    this.#schema = schema;
    this.#change = change;
    place.addEventListener("submit", (event) => event.preventDefault());
    const made = (names) => names.map((name) => {
      this.#sections.set(name, el("fieldset", {}, el("legend", {}, titles[name]), el("div.fields")));
      return this.#sections.get(name);
    });
    place.append(...made(["data", "model", "hyperparameters", "budget", "search", "confirm", "objective"]),
      el("details", {}, el("summary", {}, "Tokenizer, engine and proxy"), made(["tokenizer", "engine", "proxy"])));
  }

  /** Show the values of a text; null if it cannot be read. */
  fill(data) {
    for (const set of this.#sections.values()) set.disabled = data === null || typeof data !== "object";
    if (data === null || typeof data !== "object") return;
    this.data = data;
    for (const section of this.#schema.sections) this.#fillSection(section.name, section.settings, common[section.name]);
    this.#fillModel();
    this.#fillRows();
  }

  #set(section, parts) {
    const fields = this.#sections.get(section).querySelector(".fields");
    const active = fields.contains(document.activeElement) ? document.activeElement.name : "";
    const isOpen = fields.querySelector("details")?.open;
    fields.replaceChildren(...parts.filter(Boolean));
    const details = fields.querySelector("details");
    if (details && isOpen) details.open = true;
    if (active) fields.querySelector(`[name="${CSS.escape(active)}"]`)?.focus({ preventScroll: true });
  }

  #value(path) {
    return path.reduce((inner, key) => (inner !== null && typeof inner === "object" ? inner[key] : undefined), this.data);
  }

  #fillSection(name, settings, first) {
    const inner = this.#value([name]);
    if (inner !== undefined && (typeof inner !== "object" || Array.isArray(inner))) { // such as confirm: off
      this.#set(name, [this.#input([name], { name, symbol: name, meaning: "as it stands in the text", type: "string", choices: [] })]);
      return;
    }
    const isGiven = (setting) => inner?.[setting.name] !== undefined;
    const front = settings.filter((each) => first.includes(each.name) || isGiven(each));
    const rest = settings.filter((each) => !front.includes(each));
    this.#set(name, [...front.map((each) => this.#input([name, each.name], each)), this.#more(rest.map((each) => this.#input([name, each.name], each)))]);
  }

  #more(fields) {
    return fields.length ? el("details.field.drawn", {}, el("summary", {}, `${fields.length} more`), el("div.fields", {}, fields)) : null;
  }

  #fillModel() {
    const inner = this.#value(["model"]) ?? {};
    const front = this.#schema.model.filter((each) => sizes.includes(each.name) || inner[each.name] !== undefined);
    const rest = this.#schema.model.filter((each) => !front.includes(each));
    this.#set("model", [...front.map((each) => this.#drawn("model", each.name, each)), this.#more(rest.map((each) => this.#drawn("model", each.name, each)))]);
  }

  #fillRows() {
    const inner = this.#value(["hyperparameters"]) ?? {};
    const rows = this.#schema.hyperparameters;
    const of = (key) => rows.find((row) => [row.symbol, row.name].includes(key) || row.spellings?.includes(key));
    const given = Object.keys(inner).map((key) => [key, of(key)]).filter(([, row]) => row);
    const others = rows.filter((row) => !given.some(([, each]) => each === row));
    const add = el("select", { name: "add", "aria-label": "Add a hyperparameter", change: (event) => {
      const row = others.find((each) => each.name === event.target.value);
      if (row) this.#change([{ path: ["hyperparameters", row.symbol], value: row.default !== null ? flow(row.default) : row.choices[0] ?? String(row.low || 1) }]);
    } }, el("option", { value: "" }, "add one …"), others.map((row) => el("option", { value: row.name }, `${row.symbol}: ${row.meaning}`)));
    this.#set("hyperparameters", [...given.map(([key, row]) => this.#drawn("hyperparameters", key, row)), el("p.field.drawn", {}, add)]);
  }

  /** Return the field of a setting that has one value. */
  #input(path, setting) {
    const value = this.#value(path);
    const name = path.join(".");
    const change = (event) => {
      const text = event.target.value.trim();
      const made = text === "" ? null : setting.type === "array" && !text.startsWith("[") ? list(text) : setting.type === "array" ? text : typed(text);
      this.#change([{ path, value: made }]);
    };
    const fallback = setting.default === null || setting.default === undefined || setting.default.length === 0 ? "" : `default ${plain(setting.default)}`;
    const options = setting.type === "boolean" ? ["true", "false"] : setting.choices;
    const isOpen = options.length === 0 || (value !== undefined && !options.map(String).includes(plain(value)));
    const field = isOpen
      ? el("input", { name, value: plain(value), placeholder: fallback, inputmode: ["integer", "number"].includes(setting.type) ? "decimal" : null, change, spellcheck: "false", autocomplete: "off" })
      : el("select", { name, change }, el("option", { value: "" }, fallback ? `(${fallback})` : "(not set)"), options.map((each) => el("option", { value: each, selected: String(each) === plain(value) }, each)));
    return el("div.field", {}, el("label", {}, el("span", {}, setting.name, setting.unit ? el("small", {}, `, ${setting.unit}`) : null), field, el("small", {}, said(setting.meaning), limits(setting))));
  }

  /** Return the fields of an entry that may be searched: its kind, and its value, ends or values. */
  #drawn(section, key, row) {
    const value = this.#value([section, key]);
    const found = distribution(value);
    const path = [section, key];
    const base = path.join(".");
    const input = (text, label, suffix) => el("input", { name: `${base}.${suffix}`, value: text, "aria-label": `${label} of ${row.symbol}`, placeholder: suffix === "value" && value === undefined ? `default ${row.default_text || plain(row.default)}` : label, spellcheck: "false", autocomplete: "off" });
    const kinds = row.type === "string" || row.type === "boolean" ? ["value", ...lists] : Object.keys(this.#schema.kinds);
    const kind = found ? found.kind : "text";
    const select = el("select", { name: `${base}.kind`, "aria-label": `Kind of ${row.symbol}` }, [...kinds, ...(found ? [] : ["text"])].map((each) => el("option", { value: each, selected: each === kind, title: this.#schema.kinds[each] ?? "as it stands in the text" }, each)));
    const inputs = !found ? [input(flow(value), "text", "text")]
      : pairs.includes(kind) ? [input(found.texts[0], "low end", "low"), input(found.texts[1], "high end", "high")]
        : kind === "value" && row.choices.length ? [el("select", { name: `${base}.value`, "aria-label": `Value of ${row.symbol}` }, el("option", { value: "" }, `(default ${row.default_text || plain(row.default)})`), row.choices.map((each) => el("option", { value: each, selected: each === found.texts[0], title: row.choice_meanings?.[each] ?? "" }, each)))]
          : [input(found.texts[0], kind === "value" ? "value" : "values, apart by commas", "value")];
    const send = () => this.#change([{ path, value: written(select.value, inputs.map((each) => each.value.trim()), found?.beside ?? "") }]);
    inputs.forEach((each) => each.addEventListener("change", () => { if (inputs.length === 1 || inputs.every((one) => one.value.trim())) send(); }));
    select.addEventListener("change", () => this.#change([{ path, value: turned(select.value, found, row) }]));
    const remove = value === undefined ? null : el("button.quiet", { type: "button", "aria-label": `Remove ${row.symbol}`, click: () => this.#change([{ path, value: null }]) }, "remove");
    return el("div.field.drawn", { role: "group", "aria-label": row.symbol },
      el("div.name", {}, el("strong", {}, row.symbol), row.symbol === row.name ? null : el("small", {}, row.name), row.unit ? el("small", {}, row.unit) : null),
      el("small", {}, `${said(row.meaning)}${limits(row)}, default ${row.default_text || plain(row.default)}`),
      el("div.row", {}, select, inputs, remove), found?.beside ? el("small", {}, "with ", el("code", {}, found.beside)) : null);
  }
}

/** Return a sentence of the code's documentation without its marks and its full stop. */
const said = (meaning) => meaning.replaceAll("`", "").replace(/\.$/, "");

function limits({ low, high, is_low_open: isLowOpen, is_high_open: isHighOpen }) {
  if ((low === null || low === undefined) && (high === null || high === undefined)) return "";
  return ` ${isLowOpen ? "(" : "["}${low ?? "−∞"}, ${high ?? "∞"}${isHighOpen || high === null || high === undefined ? ")" : "]"}`;
}

/** Return a distribution as YAML. */
function written(kind, texts, beside) {
  if (kind === "text") return texts[0] || null;
  if (kind === "value" && !beside) return texts[0] === "" ? null : typed(texts[0]);
  const inner = kind === "value" ? typed(texts[0]) : pairs.includes(kind) ? `[${texts.map(typed).join(", ")}]` : list(texts[0]);
  return `{${kind}: ${inner}${beside ? `, ${beside}` : ""}}`;
}

/** Return a distribution of another kind that keeps what it can of the one before. */
function turned(kind, found, row) {
  const texts = found?.texts ?? [];
  const numbers = texts.flatMap((text) => text.split(",")).map((text) => text.trim()).filter(Boolean);
  const values = numbers.length ? numbers : [row.default !== null && row.default !== undefined ? plain(row.default) : row.choices[0] ?? String(row.low || 1)];
  const beside = found?.beside ?? "";
  if (kind === "value") return written(kind, values, beside);
  if (!pairs.includes(kind)) return written(kind, [values.join(", ")], beside);
  const middle = Number(values[0].replaceAll("_", "")) || Number(row.low) || 1;
  const isWhole = kind.startsWith("int");
  let [low, high] = values.length > 1 ? [values[0], values.at(-1)] : [middle / 3, middle * 3].map((each) => Number((isWhole ? Math.max(1, Math.round(each)) : each).toPrecision(2)));
  if (row.high !== null && row.high !== undefined && Number(high) > row.high) high = row.is_high_open ? (middle + row.high) / 2 : row.high;
  return written(kind, [String(low), String(high)], beside);
}
