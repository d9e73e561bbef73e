// The browser client with a fake socket and a mocked clock, for the tests beside this file.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { mock } from "node:test";

// Imported as text, so that any version of node takes it for a module: no package.json declares the type of `.js` files.
const source = await readFile(new URL("../../crates/server/assets/phalanx-client.js", import.meta.url), "utf8");
export const { Phalanx, PhalanxError, fileBytes } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

/** The JSON of a node, from the samples that the server's own tests compare with its types. */
export const sample = async (name) =>
  JSON.parse(await readFile(new URL(`../../crates/core/src/protocol/samples/${name}.json`, import.meta.url), "utf8"));

const samples = Object.fromEntries(
  await Promise.all(["welcome", "verb-done", "error-reply"].map(async (name) => [name, await sample(name)])),
);

/** Whether a server answers `fetch`, and the requests so far. */
export const server = { answers: false, requests: [] };

/** Every socket that a client opened, the newest last. */
export let sockets = [];

export class FakeSocket {
  sent = [];
  closedWith;
  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    sockets.push(this);
  }
  send(text) {
    assert.equal(this.closedWith, undefined, "nothing is sent on a closed socket");
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    this.closedWith ??= code;
  }
  receive(frame) {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }
  welcome(more = {}) {
    this.receive({ ...samples.welcome, id: `c${sockets.length}`, ...more });
  }
  answer(index, more = samples["verb-done"]) {
    this.receive({ ...more, context: "response", messageId: this.sent[index].messageId });
  }
  refuse(index, code) {
    const { error } = samples["error-reply"];
    this.answer(index, { error: { ...error, code, message: `because ${code}` } });
  }
  open() {
    this.onopen?.({});
  }
  drop(code = 1006) {
    this.onclose?.({ code, reason: "" });
  }
}

export const socket = () => sockets.at(-1);
export const settled = () => new Promise((resolve) => setImmediate(resolve));
export const pass = (ms) => mock.timers.tick(ms);
export const rooms = (socket) => socket.sent.filter(({ event }) => event === "roomAdd").map(({ room }) => room);
export const rejects = (promise, code) =>
  assert.rejects(promise, (error) => error instanceof PhalanxError && error.code === code);

/** A client, and the events that it fired, in order. */
export function client(options = {}) {
  const phalanx = new Phalanx({ url: "ws://test/ws", webSocket: FakeSocket, ...options });
  const fired = [];
  const kinds = "connected disconnected reconnecting refused message presence gap away api alert other error";
  for (const kind of kinds.split(" ")) {
    phalanx.addEventListener(kind, ({ type, detail }) => fired.push({ type, detail }));
  }
  return { phalanx, fired, types: () => fired.map(({ type }) => type) };
}

export async function connected(options) {
  const made = client(options);
  const connecting = made.phalanx.connect();
  socket().welcome();
  await connecting;
  made.fired.length = 0;
  return made;
}

export async function inRoom(room, made) {
  const joining = made.phalanx.roomAdd(room);
  socket().answer(socket().sent.length - 1);
  await joining;
}

/** Before each test. */
export function start() {
  sockets = [];
  Object.assign(server, { answers: false, requests: [] });
  mock.method(globalThis, "fetch", async (url, options) => {
    server.requests.push({ url, mode: options.mode });
    if (!server.answers) throw new TypeError("fetch failed");
  });
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0.5);
}

/** After each test. */
export function stop() {
  mock.timers.reset();
  mock.restoreAll();
}
