// Events of a journal in words.
import { counted, metric } from "./elements.js";

/** Return the value of a metric at a report of a journal; undefined if the report alone does not tell it. */
export function valueOf(report, name) {
  if (report.status === "diverged") return null;
  if (name === "perplexity") return number(report.val_loss) === null ? null : Math.exp(Math.min(report.val_loss, 700));
  return name in report ? number(report[name]) : undefined;
}

const number = (value) => (typeof value === "number" ? value : null); // NaN is an object

/** Return how an outcome of a journal ends a trial: `finished`, `stopped`, `diverged`, or `unfinished`; empty without one. */
export function endingOf(outcome) {
  const word = (outcome ?? "").split(" ", 1)[0];
  return !word || ["finished", "stopped", "diverged"].includes(word) ? word : "unfinished";
}

const words = {
  search: () => "the search begins",
  edit: () => "the search is edited",
  session: (event) => `a driver begins${event.lanes ? ` with ${event.lanes} places for trials` : ""}`,
  trial: (event) => `trial ${event.number} begins${event.parent === null ? "" : `, from trial ${event.parent}`}${event.confirms === null ? "" : `, to confirm trial ${event.confirms}`}`,
  resume: (event) => `trial ${event.number} goes on`,
  report: (event, name) => {
    const value = valueOf(event.report, name);
    const end = event.outcome ? `: ${event.outcome}` : event.decision === "pause" ? ": paused" : "";
    return `trial ${event.number} reports${value === undefined ? "" : ` ${name} ${value === null ? "∞" : metric(value)}`} at ${counted(event.report.tokens)} tokens${end}`;
  },
  failure: (event) => `trial ${event.number} failed: ${event.reason}`,
  workers: (event) => `${event.up} of ${event.number} workers can train`,
  node: (event) => `the node ${event.name} is lost`,
  stall: (event) => `no report has come for ${Math.round(event.seconds)} seconds`,
  message: (event) => event.text,
  end: (event) => `the driver ends: ${event.status}${event.halted ? `, ${event.halted}` : ""}`,
};

/** Return an event in words. */
export const told = (event, name) => words[event.event]?.(event, name) ?? event.event;
