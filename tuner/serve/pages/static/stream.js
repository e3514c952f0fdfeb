// The one stream of a page: server-sent events, taken up again where they ended.
// A browser has six connections to a server for all its tabs, so a hidden tab gives its own back.
import { ended } from "./actions.js";
import { call } from "./calls.js";
import { byId } from "./elements.js";

const live = byId("live");
const patience = 1500; // milliseconds without a connection, after which the page says so
const impatience = 10_000; // between two attempts that the browser does not make itself
const look = 5000; // between two looks at a search, whose stream ends with it, and begins when it is resumed

/**
 * Follow a stream of the API.
 * @param {string} where - path below /api/v1
 * @param {Object<string, function(any, number)>} takers - by name of the event ("message" for those without): takes its JSON, and its id
 * @param {object} [options]
 * @param {number} [options.after] - id of the newest event that the page has
 * @param {function()} [options.over] - called when the server has said everything
 * @param {function(): boolean} [options.isComplete] - true if no more is expected: an end is no loss of the connection
 * @returns {{restart: function(), close: function()}} `restart` opens a stream again that had ended
 */
export function follow(where, takers, { after = 0, over = () => {}, isComplete = () => false } = {}) {
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
    over();
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

/**
 * Follow a search: its events and its state, also after it was resumed.
 * @param {string} api - path of the search below /api/v1
 * @param {object} first - the search as it is
 * @param {object} options
 * @param {function(object, number)} options.take - takes an event, and its number
 * @param {function(object)} [options.changed] - takes the search whenever it has changed
 * @param {function()} [options.deleted]
 * @param {function()} [options.over] - called when all events are there, and no more will come
 * @param {number} options.after - number of the newest event that the page has
 * @returns {{set: function(object)}} `set` takes what an action has changed
 */
export function followSearch(api, first, { take, changed = () => {}, deleted = () => {}, over, after }) {
  let search = first;
  const change = (now) => { search = { ...search, ...now }; changed(search); };
  const stream = follow(`${api}/events`, { message: take, state: change, deleted: () => { stream.close(); deleted(); } },
    { after, over, isComplete: () => ended.includes(search.state) });
  setInterval(async () => {
    const now = document.hidden ? null : await call("GET", api).catch(() => null);
    if (!now) return;
    const wasOver = ended.includes(search.state);
    change(now);
    if (wasOver && !ended.includes(search.state)) stream.restart(); // somebody has resumed it
  }, look);
  return { set: (now) => { change(now); stream.restart(); } };
}
