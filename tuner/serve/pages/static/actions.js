// What can be done with a search, wherever it is shown. What loses nothing is done at once and can be taken back.
import { call, path } from "./calls.js";
import { confirmed } from "./dialogs.js";
import { el, visible } from "./elements.js";
import { mayChange, say, tried } from "./frame.js";

export const priorities = ["low", "normal", "high", "urgent"];
export const ended = ["finished", "stopped", "failed", "interrupted", "unknown"];
const opposite = { pause: "resume", resume: "pause", stop: "resume" };
const done = { pause: "pauses after the reports under way", resume: "goes on", stop: "ends; it can be resumed" };

// verb → states in which it makes sense
const when = {
  pause: ["waiting", "starting", "running"],
  resume: ["pausing", "paused", "stopping", "stopped", "interrupted", "failed"],
  stop: ["waiting", "starting", "running", "pausing", "paused"],
  delete: ["waiting", "paused", "stopped", "interrupted", "failed", "finished", "unknown"],
};
const labels = { pause: "Pause", resume: "Resume", stop: "Stop", delete: "Delete" };

/** Pause, resume or stop a search; return it as it is then. */
export async function act(search, verb, changed) {
  const after = await tried(() => call("POST", `${path`/searches/${search.name}`}/${verb}`));
  if (after === undefined) return;
  changed(after);
  const undo = { text: "Undo", act: () => act(search, opposite[verb], changed) };
  say(`${search.name} ${done[verb]}`, verb === "resume" ? {} : { undo });
}

/** Ask, and delete a search; call `gone` after that. */
export async function remove(search, gone) {
  const tokens = search.tokens ? ` ${search.tokens.toLocaleString("en-US")} tokens were trained for it.` : "";
  const text = `Its journal, its runs in MLflow, its checkpoints and the weights of its winner are deleted, and cannot be brought back.${tokens}`;
  if (await confirmed(`Delete ${visible(search.name)}?`, text, "Delete it", () => call("DELETE", path`/searches/${search.name}`))) {
    say(`${search.name} is deleted`);
    gone(search);
  }
}

/** Return the buttons of a search that the user may press in its state. */
export function buttons(search, { changed, gone, verbs = ["pause", "resume", "stop", "delete"] }) {
  if (!mayChange(search)) return [];
  return verbs.filter((verb) => when[verb].includes(search.state)).map((verb) => el(`button${verb === "delete" ? ".quiet" : ""}`, {
    type: "button", "data-act": verb, "aria-label": `${labels[verb]} ${search.name}`,
    click: () => (verb === "delete" ? remove(search, gone) : act(search, verb, changed)),
  }, labels[verb]));
}

/** Return the state of a search in words, in the colour of the state. */
export const stateOf = (search) => el(`span.state.${search.state}`, {}, search.state);
