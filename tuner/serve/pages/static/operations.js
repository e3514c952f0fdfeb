// What the server does for a trial in a process of its own: replay, export, texts. It is asked for, watched, and shown.
import { call, path } from "./calls.js";
import { el, visible } from "./elements.js";

const poll = 700; // milliseconds
const over = ["done", "failed", "interrupted"];

/** Begin an operation, say how far it is, and return it when it is over. */
export async function operate(search, wish, progress) {
  let operation = await call("POST", path`/searches/${search}/operations`, { body: wish });
  while (!over.includes(operation.state)) {
    progress(operation);
    await new Promise((done) => setTimeout(done, poll));
    operation = await call("GET", path`/operations/${operation.id}`);
  }
  progress(operation);
  return operation;
}

/**
 * Return a part of a page with a button that begins an operation, and shows what comes of it.
 * @param {string} search
 * @param {object} options
 * @param {string} options.action - text of the button
 * @param {function(): object} options.wish
 * @param {function(object): Array<Node|string>} options.result - what is shown of an operation that is done
 * @param {Array<Node>} [options.fields] - fields before the button
 */
export function operation(search, { action, wish, result, fields = [] }) {
  const said = el("div.result", { role: "status" });
  const button = el("button", {}, action);
  const form = el("form.operation", { submit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const done = await operate(search, wish(), (each) => said.replaceChildren(el("p.says", {}, `${each.state}${each.progress ? `: ${visible(each.progress)}` : ""}`)));
      const files = done.files.map((file) => el("li", {}, el("a", { href: `/api/v1${path`/operations/${done.id}/files/${file.name}`}`, download: file.name }, file.name)));
      said.replaceChildren(...(done.state === "done" ? [...result(done), files.length ? el("ul.files", {}, files) : ""] : [el("p.problem", {}, done.problem ?? done.state)]));
    } catch (error) {
      said.replaceChildren(el("p.problem", {}, error.message));
    }
    button.disabled = false;
  } }, ...fields, button);
  return el("div", {}, form, said);
}
