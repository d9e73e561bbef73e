// The browser client when its connection is lost: `node --test tests/client/*.test.mjs`.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";

import { client, connected, inRoom, pass, rejects, rooms, settled, socket, sockets, start, stop } from "./fake.mjs";

beforeEach(start);
afterEach(stop);

describe("reconnecting", () => {
  it("follows the close code", async () => {
    for (const [code, reconnects] of [
      [1000, true], [1001, true], [1003, true], [1005, true], [1006, true], [1008, true], [1009, true],
      [4001, true], [4002, true], [4003, true], [4499, true], [4500, false], [4501, false], [4999, false], [5000, true],
    ]) {
      const { phalanx, fired } = await connected();
      const opened = sockets.length;
      socket().drop(code);
      assert.deepEqual(fired[0], { type: "disconnected", detail: { code, reason: "", willReconnect: reconnects } });
      pass(30_000);
      assert.equal(sockets.length - opened, reconnects ? 1 : 0, `after ${code}`);
      phalanx.close();
    }
  });

  it("connects anew when the page asks for it, once a user has signed in", async () => {
    const made = await connected();
    const { phalanx, fired, types } = made;
    await inRoom("chat", made);
    const sent = phalanx.action("a");
    const before = socket();
    phalanx.reconnect();
    assert.equal(before.closedWith, 1000);
    await rejects(sent, "disconnected");
    assert.deepEqual(fired[0], { type: "disconnected", detail: { code: 1000, reason: "", willReconnect: true } });
    assert.equal(sockets.length, 2, "at once");
    const queued = phalanx.action("b");
    before.drop(); // the browser tells of the old socket late
    socket().welcome();
    assert.deepEqual(socket().sent.map(({ event }) => event), ["roomAdd"]);
    socket().answer(0);
    await settled();
    socket().answer(1);
    await queued;
    assert.deepEqual(types(), ["disconnected", "connected"]);
  });

  it("connects anew at once also where it waits for the next attempt, and not after its end", async () => {
    const { phalanx } = await connected();
    socket().drop();
    phalanx.reconnect();
    assert.equal(sockets.length, 2);
    pass(14_000);
    assert.equal(sockets.length, 2, "the attempt that it waited for is not made as well");
    phalanx.addEventListener("disconnected", () => phalanx.close());
    socket().welcome();
    phalanx.reconnect();
    assert.equal(sockets.length, 2);
    assert.throws(() => phalanx.reconnect(), { code: "not_connected" });
  });

  it("rejects all calls when the application refuses this client", async () => {
    const { phalanx } = await connected();
    const sent = phalanx.action("a");
    socket().drop(4500);
    await rejects(sent, "disconnected");
    await rejects(phalanx.action("b"), "not_connected");
  });

  it("also ends with a code that forbids it after an attempt", async () => {
    const { phalanx, types } = await connected();
    socket().drop();
    const queued = phalanx.action("a");
    pass(250);
    socket().drop(4501);
    await rejects(queued, "not_connected");
    pass(60_000);
    assert.equal(sockets.length, 2);
    assert.deepEqual(types(), ["disconnected", "reconnecting", "disconnected"]);
  });

  it("waits twice as long each time, with full jitter, and 30 seconds at most", async () => {
    const { phalanx, fired } = client({ connectTimeoutMs: Infinity });
    phalanx.connect();
    for (const part of [0.5, 0, 0.999, 0.5, 0.5, 0.5, 0.5, 0.5]) {
      Math.random.mock.mockImplementation(() => part);
      socket().drop();
      pass(30_000);
    }
    const delays = fired.map(({ detail }) => detail.delayMs);
    assert.deepEqual(delays, [250, 0, 1998, 2000, 4000, 8000, 15_000, 15_000]);
    assert.deepEqual(fired.map(({ detail }) => detail.attempt), [1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("keeps to its delay", async () => {
    await connected();
    socket().drop();
    pass(249);
    assert.equal(sockets.length, 1);
    pass(1);
    assert.equal(sockets.length, 2);
  });

  it("starts over with its delays only after a connection of at least 5 seconds", async () => {
    const { fired } = await connected();
    const attempt = () => fired.findLast(({ type }) => type === "reconnecting").detail.attempt;
    for (const [upFor, expected] of [[0, 1], [4_999, 2], [4_999, 3], [5_000, 1], [100, 2]]) {
      pass(upFor);
      socket().drop();
      assert.equal(attempt(), expected);
      pass(30_000);
      socket().welcome();
    }
  });

  it("has the new connection's id, and none between", async () => {
    const { phalanx } = await connected();
    socket().drop();
    assert.equal(phalanx.id, undefined);
    pass(250);
    socket().welcome();
    assert.equal(phalanx.id, "c2");
  });

  it("can be stopped by a listener", async () => {
    const { phalanx } = await connected();
    phalanx.addEventListener("disconnected", () => phalanx.close());
    socket().drop();
    pass(60_000);
    assert.equal(sockets.length, 1);
  });
});

describe("a browser that is offline", () => {
  let listeners;
  beforeEach(() => {
    listeners = new EventTarget();
    globalThis.addEventListener = listeners.addEventListener.bind(listeners);
    globalThis.removeEventListener = listeners.removeEventListener.bind(listeners);
    Object.defineProperty(globalThis, "navigator", { value: { onLine: false }, configurable: true });
  });
  afterEach(() => {
    for (const name of ["addEventListener", "removeEventListener", "navigator"]) delete globalThis[name];
  });
  const online = () => {
    navigator.onLine = true;
    listeners.dispatchEvent(new Event("online"));
  };

  it("does not reconnect until it is online again", async () => {
    const { fired } = await connected();
    socket().drop();
    assert.deepEqual(fired.at(-1), { type: "reconnecting", detail: { attempt: 1, delayMs: null } });
    pass(600_000);
    assert.equal(sockets.length, 1);
    online();
    pass(250);
    assert.equal(sockets.length, 2);
  });

  it("ends a long wait when it comes online", async () => {
    navigator.onLine = true;
    const { phalanx } = client({ connectTimeoutMs: Infinity });
    phalanx.connect();
    for (let failed = 0; failed < 10; failed += 1) {
      pass(30_000);
      socket().drop();
    }
    const opened = sockets.length;
    online();
    pass(250);
    assert.equal(sockets.length, opened + 1);
    pass(14_900); // past the end of the previous wait, before the new socket is abandoned
    assert.equal(sockets.length, opened + 1);
  });

  it("probes the node that it was connected to", async () => {
    const { types } = await connected();
    pass(1_000);
    online();
    assert.deepEqual(socket().sent.map(({ event }) => event), ["detailsView"]);
    socket().answer(0, { data: {} });
    await settled();
    pass(29_999);
    assert.deepEqual([socket().sent.length, types()], [1, []]);
    online();
    pass(10_000);
    await settled();
    assert.deepEqual(types(), ["disconnected", "reconnecting"]);
  });

  it("does not reconnect a client that is closed", async () => {
    const { phalanx } = await connected();
    socket().drop();
    phalanx.close();
    online();
    pass(60_000);
    assert.equal(sockets.length, 1);
  });
});

describe("a silent node", () => {
  const probes = () => socket().sent.filter(({ event }) => event === "detailsView").length;

  it("is probed after a heartbeat, and kept if any frame arrives", async () => {
    const { phalanx, types } = await connected();
    pass(20_000);
    socket().receive({ context: "alert" });
    pass(29_999);
    assert.equal(probes(), 0);
    pass(1);
    assert.equal(probes(), 1);
    socket().refuse(0, "rate_limited");
    await settled();
    pass(30_000);
    assert.equal(probes(), 2);
    socket().receive({ context: "alert" });
    pass(10_000);
    await settled();
    assert.deepEqual([types(), phalanx.id], [["alert", "alert"], "c1"]);
  });

  it("is disconnected if no frame arrives after the probe", async () => {
    const { phalanx, fired } = await connected();
    const [silent] = sockets;
    const call = rejects(phalanx.action("a", {}, { timeoutMs: Infinity }), "disconnected");
    pass(30_000);
    pass(9_999);
    await settled();
    assert.deepEqual(fired, []);
    pass(1);
    await settled();
    assert.deepEqual(fired[0].detail, { code: 1006, reason: "silent", willReconnect: true });
    assert.equal(silent.closedWith, 1000);
    await call;
    pass(250);
    socket().welcome();
    assert.equal(phalanx.id, "c2");
  });

  it("is probed even with the maximum of pending calls", async () => {
    const { phalanx, types } = await connected();
    for (let n = 0; n < 1000; n += 1) phalanx.action("a", {}, { timeoutMs: Infinity }).catch(() => {});
    pass(30_000);
    assert.equal(probes(), 1);
    socket().answer(1000, { data: {} });
    await settled();
    assert.deepEqual(types(), []);
  });

  it("is probed after the heartbeat that it announced, and not by a client that is closed", async () => {
    const { phalanx } = client();
    phalanx.connect();
    socket().welcome({ heartbeatMs: 5_000 });
    pass(5_000);
    assert.equal(probes(), 1);
    phalanx.close();
    pass(60_000);
    await settled();
    assert.equal(sockets.length, 1);
  });
});

describe("rooms", () => {
  /** A client that was in these rooms, on a new connection with a welcome. */
  async function reconnected(...names) {
    const made = await connected();
    for (const name of names) await inRoom(name, made);
    socket().drop();
    pass(250);
    socket().welcome();
    made.fired.length = 0;
    return made;
  }

  it("are rejoined after a reconnect, and only then is the client connected", async () => {
    const { types } = await reconnected("a", "b");
    assert.deepEqual(rooms(socket()), ["a", "b"]);
    socket().answer(0);
    await settled();
    assert.deepEqual(types(), []);
    socket().answer(1);
    await settled();
    assert.deepEqual(types(), ["connected"]);
  });

  it("are not rejoined once they are left", async () => {
    const made = await connected();
    await inRoom("a", made);
    await inRoom("b", made);
    const leaving = made.phalanx.roomLeave("a");
    socket().answer(2);
    await leaving;
    socket().drop();
    pass(250);
    socket().welcome();
    assert.deepEqual(rooms(socket()), ["b"]);
  });

  it("are not rejoined if joining was refused", async () => {
    const { phalanx } = await connected();
    const joining = phalanx.roomAdd("vip");
    socket().refuse(0, "forbidden");
    await rejects(joining, "forbidden");
    socket().drop();
    pass(250);
    socket().welcome();
    assert.deepEqual(socket().sent, []);
  });

  it("are not rejoined when the join is answered after the leave was sent", async () => {
    const { phalanx } = await connected();
    const both = [phalanx.roomAdd("a"), phalanx.roomLeave("a")];
    socket().answer(0);
    await both[0];
    socket().answer(1);
    await both[1];
    socket().drop();
    pass(250);
    socket().welcome();
    assert.deepEqual(socket().sent, []);
  });

  it("count as joined when the node put the client in already", async () => {
    const { types } = await reconnected("a");
    socket().refuse(0, "conflict");
    await settled();
    socket().answer(1, { data: { rooms: ["a"] } });
    await settled();
    assert.deepEqual(types(), ["connected"]);
    socket().drop();
    pass(500);
    socket().welcome();
    assert.deepEqual(rooms(socket()), ["a"]);
  });

  it("are rejoined after a conflict that did not put the client in", async () => {
    const { types } = await reconnected("a", "b");
    socket().refuse(0, "conflict");
    socket().refuse(1, "conflict");
    await settled();
    assert.equal(socket().sent.length, 3, "one request for both");
    socket().answer(2, { data: { rooms: ["b"] } });
    await settled();
    pass(1_000);
    await settled();
    assert.deepEqual(rooms(socket()), ["a", "b", "a"]);
    socket().answer(3);
    await settled();
    assert.deepEqual(types(), ["connected"]);
  });

  it("fire an event and are forgotten when they refuse, and the others are joined", async () => {
    const { fired, types } = await reconnected("a", "b");
    socket().refuse(0, "forbidden");
    socket().answer(1);
    await settled();
    assert.deepEqual(types(), ["refused", "connected"]);
    assert.deepEqual([fired[0].detail.room, fired[0].detail.error.code], ["a", "forbidden"]);
    socket().drop();
    pass(500);
    socket().welcome();
    assert.deepEqual(rooms(socket()), ["b"]);
  });

  it("are retried after a temporary error, and fire an event after four attempts", async () => {
    const { types } = await reconnected("a", "b");
    socket().answer(1);
    for (const [index, pause, code] of [[0, 1000, "unavailable"], [2, 2000, "rate_limited"], [3, 3000, "timeout"]]) {
      socket().refuse(index, code);
      await settled();
      const before = socket().sent.length;
      pass(pause - 1);
      await settled();
      assert.equal(socket().sent.length, before);
      pass(1);
      await settled();
    }
    assert.deepEqual(rooms(socket()), ["a", "b", "a", "a", "a"]);
    assert.deepEqual(types(), []);
    socket().refuse(4, "unavailable");
    await settled();
    assert.deepEqual(types(), ["refused", "connected"]);
  });

  it("are retried on the next connection when this one is lost meanwhile", async () => {
    const { types } = await reconnected("a");
    socket().refuse(0, "unavailable");
    await settled();
    socket().drop();
    pass(500);
    socket().welcome();
    pass(10_000);
    assert.deepEqual(rooms(socket()), ["a"]);
    socket().answer(0);
    await settled();
    assert.deepEqual(types(), ["disconnected", "reconnecting", "connected"]);
  });

  it("are retried on the next connection when this one is lost before the answer", async () => {
    const { phalanx, types } = await reconnected("a");
    phalanx.say("a", "queued");
    socket().drop();
    await settled();
    assert.deepEqual(types(), ["disconnected", "reconnecting"]);
    pass(500);
    socket().welcome();
    assert.deepEqual(rooms(socket()), ["a"]);
    socket().answer(0);
    await settled();
    assert.equal(socket().sent[1].message, "queued");
  });

  it("are only forgotten when they are left while disconnected", async () => {
    const made = await connected();
    await inRoom("a", made);
    socket().drop();
    await made.phalanx.roomLeave("a");
    const joining = made.phalanx.roomAdd("b");
    await made.phalanx.roomLeave("b");
    await rejects(joining, "not_connected");
    pass(250);
    await made.phalanx.roomLeave("c");
    socket().welcome();
    assert.deepEqual(socket().sent, []);
  });

  it("are left after they are rejoined when the leave is called in between", async () => {
    const { phalanx } = await reconnected("a");
    const leaving = phalanx.roomLeave("a");
    assert.deepEqual(socket().sent.map(({ event }) => event), ["roomAdd"]);
    socket().answer(0);
    await settled();
    assert.deepEqual(socket().sent.map(({ event }) => event), ["roomAdd", "roomLeave"]);
    socket().answer(1);
    await leaving;
  });
});
