// The one stream of a page: server-sent events, taken up again where they ended.
// A browser has six connections to a server for all its tabs, so a hidden tab gives its own back.
import { byId } from "./elements.js";

const live = byId("live");
const patience = 1500; // milliseconds without a connection, after which the page says so
const impatience = 10_000; // between two attempts that the browser does not make itself

/**
 * Follow a stream of the API.
 * @param {string} where - path below /api/v1
 * @param {Object<string, function(any, number)>} takers - by name of the event ("message" for those without): takes its JSON, and its id
 * @param {object} [options]
 * @param {number} [options.after] - id of the newest event that the page has
 * @param {function()} [options.ended] - called when the server has said everything
 * @param {function(): boolean} [options.isComplete] - true if no more is expected: an end is no loss of the connection
 * @returns {{restart: function(), close: function()}} `restart` opens a stream again that had ended
 */
export function follow(where, takers, { after = 0, ended = () => {}, isComplete = () => false } = {}) {
  let source = null;
  let timer = 0;
  let newest = after;
  let isOver = false;

  function say(text, kind) {
    clearTimeout(timer);
    if (live.textContent !== text) live.textContent = text;
    live.className = kind;
  }

  function open() {
    close();
    if (document.hidden || isOver) return;
    source = new EventSource(`/api/v1${where}${newest ? `?after=${newest}` : ""}`);
    const mine = source;
    mine.onopen = () => say("live", "on");
    mine.onerror = () => {
      if (mine !== source) return;
      if (isComplete()) return complete();
      if (mine.readyState === EventSource.CLOSED) return closed();
      clearTimeout(timer);
      timer = setTimeout(() => say("connection lost, trying again", "off"), patience);
    };
    for (const [name, take] of Object.entries(takers)) {
      mine.addEventListener(name, (event) => {
        if (live.className === "off") say("live", "on");
        if (event.lastEventId) newest = Number(event.lastEventId);
        take(JSON.parse(event.data), newest);
      });
    }
  }

  function complete() {
    close();
    isOver = true;
    say("", "");
    ended();
  }

  // 204: the server has nothing to add; anything else is an error, of the server or of a proxy
  async function closed() {
    close();
    const answer = await fetch(`/api/v1${where}?after=${newest}`, { headers: { "Last-Event-ID": `${newest}` } }).catch(() => null);
    answer?.body?.cancel();
    if (answer?.status === 204) {
      complete();
    } else if (answer?.status === 401 || answer?.status === 404) {
      location.reload();
    } else {
      say("connection lost, trying again", "off");
      timer = setTimeout(open, answer?.ok ? 0 : impatience);
    }
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  open();
  return { restart: () => { isOver = false; open(); }, close };
}
