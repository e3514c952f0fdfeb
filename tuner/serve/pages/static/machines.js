// Machines: the devices of the queue and who has them, searches of commands, and the load of the server's machine.
import { call, path } from "./calls.js";
import { sentence } from "./dialogs.js";
import { byId, bytes, counted, el, named } from "./elements.js";
import { begun } from "./frame.js";

const every = 2000; // milliseconds
show(begun());

function show(machine) {
  const used = machine.devices.filter((each) => !each.is_free).length;
  const where = machine.address ? `the Ray cluster at ${machine.address}` : "this machine";
  const queued = machine.waiting === 0 ? "nothing waits" : `${counted(machine.waiting)} search${machine.waiting === 1 ? " waits" : "es wait"}`;
  byId("says").textContent = `${counted(used)} of ${counted(machine.devices.length)} devices of ${where} ${used === 1 ? "is" : "are"} in use; ${queued}.`;
  byId("devices").replaceChildren(...machine.devices.map((each) => el(`li${each.is_free ? "" : ".used"}`, {}, el("strong", {}, each.name),
    el("p", {}, each.is_free ? "free" : each.search === null ? "a search that you may not see" : [el("a", { href: path`/searches/${each.search}` }, named(each.search)), " of ", named(each.owner)]))));
  byId("outside").replaceChildren(machine.outside.length
    ? el("ul", {}, machine.outside.map((each) => el("li", {}, el("a", { href: path`/searches/${each.name}` }, named(each.name)), `, ${each.driver || each.state}`)))
    : el("p.says", {}, "No command runs a search of this home without the queue."));
  const { load } = machine;
  const bar = (name, value, most, text) => el("li", {}, el("span", {}, name), el("progress", { value, max: most, "aria-label": `Load of ${name}` }), el("span", {}, text));
  byId("load").replaceChildren(
    ...load.cores.map((value, i) => bar(`core ${i}`, value, 100, `${Math.round(value)} %`)),
    bar("memory", load.memory, load.all_memory, `${bytes(load.memory)} of ${bytes(load.all_memory)}`),
    bar("disk", load.disk, load.all_disk, `${bytes(load.disk)} of ${bytes(load.all_disk)}`),
    el("li", {}, el("span", {}, "processes"), el("span", {}, "that ran or waited for a core, of the last minute"), el("span", {}, load.waiting.toFixed(1))));
}

setInterval(async () => {
  if (document.hidden) return;
  try {
    show(await call("GET", "/machines"));
  } catch (error) {
    byId("says").textContent = sentence(error.message);
  }
}, every);
