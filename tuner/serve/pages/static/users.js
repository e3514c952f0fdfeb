// Users, for admins: who may come, with which role and limits; tokens are shown once; what was changed by whom.
import { call, path } from "./calls.js";
import { asked, confirmed } from "./dialogs.js";
import { byId, clock, counted, el, named, none, short, when } from "./elements.js";
import { begun, say, tried, user as me } from "./frame.js";
import { Table } from "./tables.js";

const data = begun();
const roles = { viewer: "looks at searches", user: "submits and changes searches of their own", admin: "changes all searches and the users" };
const limits = [["most_searches", "searches at one time"], ["most_devices", "devices together"], ["most_tokens", "tokens a day"]];

const table = new Table(byId("users"), {
  title: "Users", noun: "user", empty: "There are no users yet.", hasFilter: data.users.length > 20,
  idOf: (user) => user.name,
  columns: [
    { title: "name", key: (user) => user.name, cell: (user) => [named(user.name), user.is_disabled ? el("small", {}, " disabled") : null] },
    { title: "role", key: (user) => user.role, cell: (user) => user.role },
    { title: "team", key: (user) => user.team, cell: (user) => (user.team ? named(user.team) : none) },
    { title: "share", isNumber: true, key: (user) => user.weight, cell: (user) => String(user.weight) },
    { title: "device time", isNumber: true, key: (user) => user.used_seconds, cell: (user) => clock(user.used_seconds) },
    { title: "tokens today", isNumber: true, key: (user) => user.tokens_today, cell: (user) => `${short(user.tokens_today)}${user.most_tokens === null ? "" : ` of ${short(user.most_tokens)}`}` },
    { title: "in the queue", isNumber: true, key: (user) => user.searches, cell: (user) => counted(user.searches) },
    { title: "what to do", isUnnamed: true, cell: (user) => el("div.buttons", {}, [
      el("button", { type: "button", "data-act": "change", "aria-label": `Change ${user.name}`, click: () => change(user) }, "Change"),
      el("button", { type: "button", "data-act": "token", "aria-label": `New token for ${user.name}`, click: () => renew(user) }, "New token"),
      user.is_disabled || user.name === me.name ? null : el("button", { type: "button", "data-act": "disable", "aria-label": `Disable ${user.name}`, click: () => disable(user) }, "Disable"),
      user.name === me.name ? null : el("button.quiet", { type: "button", "data-act": "remove", "aria-label": `Remove ${user.name}`, click: () => remove(user) }, "Remove")]) },
  ],
});
const changes = new Table(byId("audit"), {
  title: "Changes, the newest first", noun: "change", most: 50, empty: "Nothing was changed yet.", hasFilter: true, idOf: (line) => `${line.at} ${line.action} ${line.search} ${line.detail}`,
  columns: [
    { title: "when", cell: (line) => when(line.at) }, { title: "who", cell: (line) => named(line.user) }, { title: "what", cell: (line) => line.action },
    { title: "search", cell: (line) => (line.search ? el("a", { href: path`/searches/${line.search}` }, named(line.search)) : none) },
    { title: "detail", cell: (line) => el("span.why", {}, line.detail) },
  ],
});

byId("add").append(el("button.main", { type: "button", click: add }, "Add a user"));

async function look() {
  const users = await tried(() => call("GET", "/users"));
  if (!users) return;
  const audit = await tried(() => call("GET", "/audit", { query: { limit: 200 } }));
  show(users, audit ?? []);
}

let count = 0;

function show(users, audit) {
  count = users.length;
  byId("open").replaceChildren(...(users.length ? [] : [el("p.notice", {}, "This server is open to whoever uses its machine. With the first user, who must be an admin, all need a token.")]));
  table.set(users);
  changes.set(audit);
}

function fields(user, isNew) {
  const form = {};
  const input = (name, label, attributes = {}) => el("label", {}, label, form[name] = el("input", { name, autocomplete: "off", spellcheck: "false", ...attributes }));
  const parts = [
    isNew ? input("name", "Name", { required: true, maxlength: 64, autofocus: true }) : null,
    el("label", {}, "Role", form.role = el("select", { name: "role" }, Object.entries(roles).map(([role, text]) => el("option", { value: role, selected: role === user.role }, `${role}: ${text}`)))),
    input("team", "Team", { value: user.team, maxlength: 100 }),
    input("weight", "Share relative to others", { value: user.weight, type: "number", min: "0.001", max: "1000", step: "any", required: true }),
    ...limits.map(([name, text]) => input(name, `Most ${text}`, { value: user[name] ?? "", type: "number", min: "1", step: "1", placeholder: "no limit" })),
  ];
  const values = () => Object.fromEntries(Object.entries(form).map(([name, field]) => [name,
    name === "weight" ? Number(field.value) : name.startsWith("most_") ? (field.value ? Number(field.value) : null) : field.value.trim()]));
  return { content: [el("div.form", {}, parts)], values };
}

async function add() {
  const isFirst = count === 0;
  const { content, values } = fields({ role: isFirst ? "admin" : "user", team: "", weight: 1 }, true);
  const made = await asked("Add a user", content, { action: "Add", doing: () => call("POST", "/users", { body: values() }) });
  if (made) await showToken(made);
}

async function change(user) {
  const { content, values } = fields(user, false);
  const changed = await asked(`Change ${user.name}`, content, { action: "Change", doing: () => call("PATCH", path`/users/${user.name}`, { body: values() }) });
  if (!changed) return;
  const before = Object.fromEntries(["role", "team", "weight", ...limits.map(([name]) => name)].map((name) => [name, user[name]]));
  say(`${user.name} is changed`, { undo: { text: "Undo", act: async () => { await tried(() => call("PATCH", path`/users/${user.name}`, { body: before })); look(); } } });
  look();
}

async function renew(user) {
  const given = await asked(`New token for ${user.name}`, [el("p", {}, user.is_disabled ? "The user may come in again." : "The present token ends at once, and with it the logins of browsers.")],
    { action: "Make it", isLoss: !user.is_disabled, doing: () => call("POST", path`/users/${user.name}/token`) });
  if (given) await showToken(given);
}

async function showToken({ user, token }) {
  const copy = el("button", { type: "button", click: async () => { await navigator.clipboard?.writeText(token); copy.textContent = "Copied"; } }, "Copy");
  await asked(`The token of ${user.name}`, [el("p", {}, "It is shown only now. Whoever has it is this user."), el("code.token", {}, token), el("p", {}, copy)], { action: "I have kept it" });
  look();
}

async function disable(user) {
  const text = "No token of the user works any more. Searches go on, and a new token ends this.";
  if (await confirmed(`Disable ${user.name}?`, text, "Disable", () => call("POST", path`/users/${user.name}/disable`))) look();
}

async function remove(user) {
  const text = "The user and the limits are forgotten; the searches stay, and admins see them.";
  if (await confirmed(`Remove ${user.name}?`, text, "Remove", () => call("DELETE", path`/users/${user.name}`))) look();
}

show(data.users, data.audit);
