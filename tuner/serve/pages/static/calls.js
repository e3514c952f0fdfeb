// Requests to the API: who asks is in the cookie, and each change repeats the pledge of the page (against CSRF).
import { visible } from "./elements.js";

const pledge = document.querySelector("meta[name=pledge]").content;
const waits = [500, 2000]; // milliseconds, before a request is repeated that may be

/** A request that the server refused, or that did not reach it; `mistakes` has those of a space, with line and column. */
export class Refusal extends Error {
  constructor(message, status = 0, mistakes = [], body = null) {
    super(message);
    Object.assign(this, { status, mistakes, body });
  }
}

/** A key by which a request may be repeated: the server does it once. */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Path of the API: path`/searches/${name}` escapes what is put in. */
export const path = (parts, ...values) => String.raw({ raw: parts }, ...values.map(encodeURIComponent));

/**
 * Ask the API, and return its answer.
 * @param {string} method
 * @param {string} where - path below /api/v1, made by `path`
 * @param {object} [options]
 * @param {object} [options.query] - values by name; those without a value are left out
 * @param {string|Blob|object} [options.body] - a text is YAML, a Blob bytes, all else JSON
 * @param {string} [options.key] - Idempotency-Key: the request is repeated if the connection fails
 * @param {AbortSignal} [options.signal]
 * @throws {Refusal}
 */
export async function call(method, where, { query = {}, body, key, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRF-Token"] = pledge;
  if (key) headers["Idempotency-Key"] = key;
  if (typeof body === "string") headers["Content-Type"] = "application/yaml";
  else if (body instanceof Blob) headers["Content-Type"] = "application/octet-stream";
  else if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") [value].flat().forEach((each) => parameters.append(name, each));
  }
  const url = `/api/v1${where}${parameters.size ? `?${parameters}` : ""}`;
  const mayRepeat = method === "GET" || Boolean(key);
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await answered(await fetch(url, { method, headers, body, signal, credentials: "same-origin" }));
    } catch (error) {
      if (error instanceof Refusal || error.name === "AbortError") throw error;
      if (!mayRepeat || attempt === waits.length) throw new Refusal("the server does not answer; is it running?");
      await new Promise((done) => setTimeout(done, waits[attempt]));
    }
  }
}

async function answered(response) {
  const isJson = response.headers.get("Content-Type")?.includes("json");
  const body = response.status === 204 ? null : isJson ? await response.json() : await response.text();
  if (response.ok) return body;
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Refusal("log in again", 401);
  }
  if (Array.isArray(body)) {
    const [first] = body;
    const place = first.line ? `line ${first.line}, column ${first.column}: ` : "";
    const more = body.length > 1 ? ` (and ${body.length - 1} more)` : "";
    throw new Refusal(visible(`${place}${first.message}${more}`), response.status, body);
  }
  throw new Refusal(visible(body?.message ?? `the server answered ${response.status}`), response.status, [], body);
}
