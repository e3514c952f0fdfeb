// What every page has: its data, who looks at it, the theme, and the line that says what happened.
import { byId, el } from "./elements.js";
import { sentence } from "./dialogs.js";

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const meta = document.querySelector("meta[name=user]");
const shown = 8000; // milliseconds

export const user = { name: meta.content, role: meta.dataset.role };

/** Return true if the user may pause, stop, edit or delete a search. */
export const mayChange = (search) => user.role === "admin" || (user.role === "user" && search.owner === user.name);

export const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
const listeners = [];

/** Call a function whenever the colours change. */
export const onTheme = (listener) => listeners.push(listener);

/** Return a colour of the theme, such as "winner". */
export const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

/** Begin a page: return the data that the server gave it. */
export function begun() {
  const button = byId("theme");
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to the ${isDark() ? "light" : "dark"} theme`);
    listeners.forEach((listener) => listener());
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("tuner-theme", root.dataset.theme);
    label();
  });
  prefersDark.addEventListener("change", label);
  label();
  return JSON.parse(byId("data").textContent);
}

let timer = 0;

/**
 * Say what happened.
 * @param {string} text
 * @param {object} [options]
 * @param {boolean} [options.isProblem] - it stays until it is closed
 * @param {{text: string, act: function()}} [options.undo] - a button that takes it back
 */
export function say(text, { isProblem = false, undo } = {}) {
  const place = byId("said");
  const close = () => place.replaceChildren();
  clearTimeout(timer);
  place.replaceChildren(el(`p${isProblem ? ".problem" : ""}`, {},
    el("span", {}, sentence(text)),
    undo ? el("button", { type: "button", click: () => { close(); undo.act(); } }, undo.text) : null,
    el("button.close", { type: "button", "aria-label": "Close the message", click: close }, "×")));
  if (!isProblem) timer = setTimeout(close, shown);
}

/** Do something, and say why if it did not work; return undefined then. */
export async function tried(doing) {
  try {
    return await doing();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, { isProblem: true });
    return undefined;
  }
}
