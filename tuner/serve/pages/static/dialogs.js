// Questions before something is lost. The element `dialog` keeps the keyboard inside, and Escape means no.
import { el } from "./elements.js";

let count = 0;

/**
 * Open a dialog, and return what it was left with; null if nothing shall happen.
 * @param {string} title
 * @param {Array<Node|string>} content
 * @param {object} options
 * @param {string} options.action - text of the button that does it
 * @param {boolean} [options.isLoss] - something is lost: the button that does nothing has the focus
 * @param {function(): Promise<any>} [options.doing] - done before the dialog closes; an error is shown, and keeps it open
 * @param {boolean} [options.isWide]
 */
export function asked(title, content, { action, isLoss = false, doing = async () => true, isWide = false }) {
  count += 1;
  const id = `dialog-${count}`;
  return new Promise((answer) => {
    const problem = el("p.problem", { role: "alert" });
    const no = el("button", { type: "button", click: () => dialog.close(), autofocus: isLoss }, "Cancel");
    const yes = el(`button.${isLoss ? "loss" : "main"}`, { type: "submit" }, action);
    const form = el("form", { method: "dialog" }, el("h2", { id }, title), ...content, problem, el("p.buttons", {}, no, yes));
    const dialog = el(`dialog${isWide ? ".wide" : ""}`, { "aria-labelledby": id }, form);
    let result = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      yes.disabled = true;
      problem.textContent = "";
      try {
        result = (await doing()) ?? true;
        dialog.close();
      } catch (error) {
        problem.textContent = sentence(error.message);
        yes.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Ask before something is lost; return true if it shall be. */
export const confirmed = async (title, text, action, doing) => (await asked(title, [el("p", {}, text)], { action, isLoss: true, doing })) !== null;

/** Return a text with a capital letter and a full stop. */
export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
