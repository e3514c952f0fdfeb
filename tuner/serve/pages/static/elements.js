// Elements, made of texts and never of HTML; numbers and times as the report and the command line write them.

// As tuner/texts/control_characters.py: what could hide a text, or show it backwards, is shown as \x1b or \u202e.
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]/g;
const pairs = /[\ud800-\udbff][\udc00-\udfff]/g; // letters beyond 16 bits, which are no surrogates of Python

/** Return a text with its control characters shown. */
export function visible(text) {
  const kept = [];
  const marked = String(text).replace(pairs, (pair) => `\u0000${kept.push(pair) - 1}\u0000`);
  return marked.split(/\u0000(\d+)\u0000/).map((part, i) => (i % 2 ? kept[part] : part.replace(controls, escaped))).join("");
}

function escaped(character) {
  const code = character.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/**
 * Return an element.
 * @param {string} tag - name, with classes after dots: "td.n"
 * @param {object} [attributes] - values by name; functions listen to the event of their name; false and null leave one out
 * @param {...(Node|string|number|null|Array)} children
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (key === "value" || key === "checked") element[key] = value;
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, visible(value));
  }
  return filled(element, children);
}

/** Return an element of SVG; null and undefined leave an attribute out. */
export function svg(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  return filled(element, children);
}

function filled(element, children) {
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map(
    (child) => (child instanceof Node ? child : visible(child))));
  return element;
}

/** Return a name that others chose: its direction stays its own. */
export const named = (text) => el("bdi", {}, text);

/** Return the element of an id. */
export const byId = (id) => document.getElementById(id);

// numbers and times ------------------------------------------------------------------------------

export const none = "–";
const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 12,000 */
export const counted = (value) => (value === null || value === undefined ? none : grouped.format(value));

/** 950, 12.3k, 4.56M */
export function short(value) {
  if (value === null || value === undefined) return none;
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= 0.9995 * size) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return `${Math.round(value)}`;
}

/** 950 B, 12.3 MB */
export const bytes = (value) => short(value).replace(/[kMGT]?$/, " $&B");

/** Value of an objective: 3.1416, as report and tables have it. */
export const metric = (value) => {
  if (value === null || value === undefined) return none;
  const size = Math.abs(value);
  if (size < 1e3) return value.toFixed(4);
  return size < 1e5 ? value.toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 }) : size < 1e9 ? grouped.format(value) : value.toPrecision(3);
};

/** Duration: 1:05, 1:00:00, 2 d 1:00:00. */
export function clock(seconds) {
  if (seconds === null || seconds === undefined) return none;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24}:${two(minutes)}:${two(rest)}`;
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** Time from now: "3 minutes ago", with the exact time beside the pointer. */
export function when(epoch) {
  if (epoch === null || epoch === undefined) return el("span", {}, none);
  const seconds = epoch - Date.now() / 1000;
  const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  const date = new Date(epoch * 1000);
  return el("time", { datetime: date.toISOString(), title: date.toLocaleString() }, relative.format(Math.round(seconds / size), unit));
}
