// The browser client while it is connected: `node --test tests/client/*.test.mjs`.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";

import { client, connected, fileBytes, inRoom, pass, PhalanxError, rejects } from "./fake.mjs";
import { sample, server, settled, socket, sockets, start, stop } from "./fake.mjs";

beforeEach(start);
afterEach(stop);

describe("connecting", () => {
  it("requests the subprotocol and resolves with the welcome", async () => {
    const { phalanx, types } = client();
    const connecting = phalanx.connect();
    assert.deepEqual([socket().url, socket().protocol], ["ws://test/ws", "phalanx.1"]);
    assert.equal(phalanx.id, undefined);
    socket().welcome();
    assert.equal((await connecting).id, "c1");
    assert.equal(phalanx.id, "c1");
    assert.deepEqual(types(), ["connected"]);
  });

  it("is one attempt, however often it is called", async () => {
    const { phalanx } = client();
    assert.equal(phalanx.connect(), phalanx.connect());
    socket().welcome();
    await phalanx.connect();
    assert.equal(sockets.length, 1);
  });

  it("is retried until the first welcome", async () => {
    const { phalanx, types } = client({ connectTimeoutMs: Infinity });
    const connecting = phalanx.connect();
    for (let failed = 0; failed < 12; failed += 1) {
      socket().drop();
      pass(30_000);
    }
    assert.equal(sockets.length, 13);
    socket().welcome();
    assert.equal((await connecting).id, "c13");
    assert.deepEqual(types(), [...Array(12).fill("reconnecting"), "connected"]);
  });

  it("abandons a socket that never sends a welcome", async () => {
    const { phalanx } = client();
    phalanx.connect();
    const [silent] = sockets;
    pass(15_000);
    assert.equal(silent.closedWith, 1000);
    pass(250);
    assert.equal(sockets.length, 2);
    silent.welcome();
    assert.equal(phalanx.id, undefined, "frames of the abandoned socket are ignored");
    socket().welcome();
    assert.equal(phalanx.id, "c2");
  });

  it("rejects after the first attempt that a server refuses, and makes no other", async () => {
    const { phalanx, types } = client();
    const connecting = phalanx.connect();
    const queued = phalanx.action("a");
    socket().drop();
    await settled();
    pass(30_000 - 1);
    assert.equal(sockets.length, 2, "nothing answers: the next attempt follows");
    server.answers = true;
    socket().drop();
    await rejects(connecting, "refused");
    await rejects(queued, "not_connected");
    assert.deepEqual(server.requests[1], { url: "http://test/ws", mode: "no-cors" });
    pass(600_000);
    assert.equal(sockets.length, 2);
    assert.deepEqual(types(), ["reconnecting", "reconnecting"]);
    const again = phalanx.connect();
    socket().welcome();
    assert.equal((await again).id, "c3");
  });

  it("rejects when its time is over, also while an attempt is pending", async () => {
    for (const connectTimeoutMs of [undefined, 5_000]) {
      const { phalanx } = client({ connectTimeoutMs });
      const connecting = phalanx.connect();
      if (connectTimeoutMs === undefined) {
        pass(15_000); // no welcome
        pass(14_999);
      } else {
        pass(4_999);
      }
      phalanx.roomLeave("still wanted");
      const pending = socket();
      pass(1);
      await rejects(connecting, "not_connected");
      assert.equal(pending.closedWith, 1000);
      const opened = sockets.length;
      pass(600_000);
      assert.equal(sockets.length, opened);
    }
  });

  it("goes on after a rejection if asked to, and resolves for a later call", async () => {
    const { phalanx, types } = client({ keepTrying: true });
    const connecting = phalanx.connect();
    server.answers = true;
    socket().drop();
    await rejects(connecting, "refused");
    const later = phalanx.connect();
    pass(29_999);
    socket().drop();
    await rejects(later, "refused");
    pass(30_000);
    socket().welcome();
    assert.equal((await phalanx.connect()).id, "c3");
    assert.deepEqual(types(), ["reconnecting", "reconnecting", "connected"]);
    socket().drop();
    await settled();
    assert.equal(server.requests.length, 2, "only first connections are refused");
  });

  it("does not take a connection that the node accepted and closed for a refusal", async () => {
    const { phalanx } = client();
    const connecting = phalanx.connect();
    server.answers = true;
    socket().open();
    socket().drop(1001);
    await settled();
    pass(1_000);
    socket().welcome();
    assert.equal((await connecting).id, "c2");
    assert.equal(server.requests.length, 0);
  });

  it("rejects when the application refuses this client", async () => {
    const { phalanx, fired } = client();
    const connecting = phalanx.connect();
    socket().drop(4501);
    await rejects(connecting, "disconnected");
    assert.deepEqual(fired, [{ type: "disconnected", detail: { code: 4501, reason: "", willReconnect: false } }]);
  });

  it("rejects when the client is closed meanwhile, during an attempt or between two", async () => {
    for (const prepare of [() => {}, () => socket().drop()]) {
      const { phalanx, types } = client();
      const connecting = phalanx.connect();
      prepare();
      phalanx.close();
      await rejects(connecting, "disconnected");
      const opened = sockets.length;
      pass(60_000);
      assert.equal(sockets.length, opened);
      assert.ok(!types().includes("disconnected"), "it never was connected");
    }
  });

  it("rejects with the error of the WebSocket for an invalid address", async () => {
    class Throwing {
      constructor() {
        throw new SyntaxError("no address");
      }
    }
    const { phalanx } = client({ webSocket: Throwing });
    await assert.rejects(phalanx.connect(), SyntaxError);
    await rejects(phalanx.detailsView(), "not_connected");
  });
});

describe("a call", () => {
  it("sends its frame with an id of its own", async () => {
    const { phalanx } = await connected();
    const calls = [
      phalanx.action("greet", { name: "Ann", action: "not this" }, { version: 2 }),
      phalanx.action("status"),
      phalanx.roomAdd("a"),
      phalanx.roomView("a"),
      phalanx.roomView("a", { after: "96" }),
      phalanx.say("a", { x: 1 }),
      phalanx.roomLeave("a"),
      phalanx.detailsView(),
      phalanx.file("x.txt"),
    ];
    const frames = socket().sent.map(({ messageId, ...frame }) => frame);
    assert.deepEqual(frames, [
      { event: "action", params: { name: "Ann", action: "greet", apiVersion: 2 } },
      { event: "action", params: { action: "status" } },
      { event: "roomAdd", room: "a" },
      { event: "roomView", room: "a" },
      { event: "roomView", room: "a", after: "96" },
      { event: "say", room: "a", message: { x: 1 } },
      { event: "roomLeave", room: "a" },
      { event: "detailsView" },
      { event: "file", file: "x.txt" },
    ]);
    assert.equal(new Set(socket().sent.map(({ messageId }) => messageId)).size, calls.length);
    calls.forEach((_, index) => socket().answer(index));
    await Promise.all(calls);
  });

  it("resolves with its own answer, in whatever order answers come", async () => {
    const { phalanx } = await connected();
    const [first, second] = [phalanx.action("a"), phalanx.detailsView()];
    socket().answer(1, { status: "OK", data: { id: "c1" } });
    socket().answer(0, { n: 1 });
    assert.deepEqual(await second, { id: "c1" });
    assert.equal((await first).n, 1);
  });

  it("rejects with the error of the node", async () => {
    const { phalanx } = await connected();
    const call = phalanx.action("a");
    const details = [{ path: "name", code: "required", message: "is required" }];
    socket().answer(0, { error: { code: "invalid_input", message: "the input is not valid", details } });
    const name = "PhalanxError";
    await assert.rejects(call, { name, code: "invalid_input", message: "the input is not valid", details });
  });

  it("times out after 30 seconds, and a late answer is dropped", async () => {
    const { phalanx, fired } = await connected();
    const call = phalanx.action("a");
    pass(29_999);
    const other = phalanx.action("b");
    pass(1);
    await rejects(call, "timeout");
    socket().answer(0, { late: true });
    socket().answer(1, { n: 2 });
    assert.equal((await other).n, 2);
    assert.deepEqual(fired, []);
  });

  it("times out after its own timeout, or that of the client", async () => {
    const { phalanx } = await connected({ timeoutMs: 500 });
    const [short, usual, endless] = [
      phalanx.say("a", "x", { timeoutMs: 10 }),
      phalanx.say("a", "y"),
      phalanx.action("a", {}, { timeoutMs: Infinity }),
    ];
    pass(10);
    await rejects(short, "timeout");
    pass(490);
    await rejects(usual, "timeout");
    pass(25_000);
    socket().answer(2, { n: 1 });
    assert.equal((await endless).n, 1);
  });

  it("is cancelled by its signal, with the signal's reason", async () => {
    const { phalanx } = await connected();
    const controller = new AbortController();
    const call = phalanx.action("a", {}, { signal: controller.signal });
    controller.abort(new Error("changed my mind"));
    await assert.rejects(call, /changed my mind/);
    const never = phalanx.action("b", {}, { signal: controller.signal });
    await assert.rejects(never, /changed my mind/);
    assert.equal(socket().sent.length, 1);
  });

  it("removes its listener from the signal once it is answered", async () => {
    const { phalanx } = await connected();
    const { signal } = new AbortController();
    const removed = mock.method(signal, "removeEventListener");
    const call = phalanx.action("a", {}, { signal });
    socket().answer(0, {});
    await call;
    assert.equal(removed.mock.callCount(), 1);
  });

  it("rejects when its input has no JSON form", async () => {
    const { phalanx } = await connected();
    await assert.rejects(phalanx.action("a", { n: 1n }), TypeError);
    assert.equal(socket().sent.length, 0);
  });

  it("rejects a frame that the node would close the connection for", async () => {
    const { phalanx } = client();
    phalanx.connect();
    const queued = phalanx.say("a", "ü".repeat(100));
    socket().welcome({ maxFrameBytes: 200 });
    await rejects(queued, "payload_too_large");
    await rejects(phalanx.say("a", "x".repeat(200)), "payload_too_large");
    phalanx.say("a", "x".repeat(100));
    assert.equal(socket().sent.length, 1);
  });

  it("is refused beyond 1000 pending ones", async () => {
    const { phalanx } = await connected();
    const waiting = Array.from({ length: 1000 }, () => phalanx.action("a"));
    await rejects(phalanx.action("a"), "too_many_pending");
    socket().answer(0, {});
    await waiting[0];
    phalanx.action("a");
    assert.equal(socket().sent.length, 1001);
  });

  it("rejects with an unknown outcome when the connection is lost", async () => {
    const { phalanx } = await connected();
    const call = phalanx.action("a");
    socket().drop();
    await assert.rejects(call, { code: "disconnected", message: /unknown/ });
    pass(250);
    socket().welcome();
    assert.deepEqual(socket().sent, [], "it is not sent twice");
  });
});

describe("calls made while not connected", () => {
  it("are sent in order after the welcome", async () => {
    const { phalanx, types } = client();
    phalanx.connect();
    const calls = [phalanx.action("a"), phalanx.action("b")];
    socket().drop();
    pass(250);
    assert.deepEqual(socket().sent, []);
    socket().welcome();
    assert.deepEqual(socket().sent.map(({ params }) => params.action), ["a", "b"]);
    socket().answer(0, {});
    socket().answer(1, {});
    await Promise.all(calls);
    assert.deepEqual(types(), ["reconnecting", "connected"]);
  });

  it("wait until the rooms are joined again", async () => {
    const made = await connected();
    await inRoom("lobby", made);
    socket().drop();
    made.phalanx.say("lobby", "early");
    pass(250);
    socket().welcome();
    made.phalanx.say("lobby", "later");
    assert.deepEqual(socket().sent.map(({ event }) => event), ["roomAdd"]);
    socket().answer(0);
    await settled();
    assert.deepEqual(socket().sent.map(({ message }) => message), [undefined, "early", "later"]);
  });

  it("reject at their timeout as never sent", async () => {
    const { phalanx } = client();
    phalanx.connect();
    const call = phalanx.action("a", {}, { timeoutMs: 100 });
    pass(100);
    await rejects(call, "not_connected");
    socket().welcome();
    assert.deepEqual(socket().sent, []);
  });

  it("are refused beyond 100", async () => {
    const { phalanx } = client();
    phalanx.connect();
    for (let n = 0; n < 100; n += 1) phalanx.action("a");
    await rejects(phalanx.action("a"), "too_many_pending");
    socket().welcome();
    assert.equal(socket().sent.length, 100);
  });

  it("can be cancelled by their signal", async () => {
    const { phalanx } = client();
    phalanx.connect();
    const controller = new AbortController();
    const call = phalanx.action("a", {}, { signal: controller.signal });
    controller.abort();
    await assert.rejects(call, { name: "AbortError" });
    socket().welcome();
    assert.deepEqual(socket().sent, []);
  });

  it("reject at once before connect() and after close()", async () => {
    const { phalanx } = client();
    await rejects(phalanx.action("a"), "not_connected");
    phalanx.connect();
    socket().welcome();
    phalanx.close();
    await rejects(phalanx.action("a"), "not_connected");
  });
});

describe("frames", () => {
  it("fire the event of their context", async () => {
    const { fired } = await connected();
    const frames = [
      ["message", await sample("room-message")],
      ["presence", await sample("presence-join")],
      ["presence", await sample("presence-leave")],
      ["gap", await sample("gap")],
      ["away", await sample("away")],
      ["alert", { context: "alert", event: "gap" }],
      ["api", { context: "api", welcome: "once more" }],
      ["alert", { context: "alert", level: 3 }],
      ["other", { context: "connected" }],
      ["other", { context: "constructor" }],
      ["other", { hello: 1 }],
      ["other", await sample("file-push")],
      ["other", { context: "response", message: "sent by the application" }],
    ];
    for (const [, frame] of frames) socket().receive(frame);
    assert.deepEqual(fired, frames.map(([type, detail]) => ({ type, detail })));
  });

  it("of many members fire an event for each", async () => {
    const { fired } = await connected();
    const { members, ...frame } = await sample("presence-leaves");
    assert.equal(members.length, 2);
    socket().receive({ ...frame, members });
    assert.deepEqual(fired, members.map((member) => ({ type: "presence", detail: { ...frame, member } })));
  });

  it("that are not JSON objects fire errors, and the connection is kept", async () => {
    const { phalanx, fired } = await connected();
    for (const frame of ["", "{", "null", "5", '"text"']) socket().receive(frame);
    socket().onmessage({ data: new Blob(["{}"]) });
    assert.deepEqual(fired.map(({ type, detail }) => [type, detail.code]), Array(6).fill(["error", "malformed"]));
    const call = phalanx.action("a");
    socket().answer(0, { n: 1 });
    assert.equal((await call).n, 1);
  });

  it("with an error that answers no call fire errors", async () => {
    const { fired } = await connected();
    socket().receive(await sample("error-without-id"));
    assert.deepEqual(fired.map(({ type, detail }) => [type, detail.code]), [["error", "forbidden"]]);
  });
});

describe("close()", () => {
  it("closes with 1000, rejects pending calls and fires one event", async () => {
    const { phalanx, fired } = await connected();
    const call = phalanx.action("a");
    phalanx.close();
    assert.equal(socket().closedWith, 1000);
    await rejects(call, "disconnected");
    socket().drop(1000);
    phalanx.close();
    assert.deepEqual(fired, [{ type: "disconnected", detail: { code: 1000, reason: "", willReconnect: false } }]);
  });

  it("rejects queued calls as never sent", async () => {
    const { phalanx } = await connected();
    socket().drop();
    const queued = phalanx.action("a");
    phalanx.close();
    await rejects(queued, "not_connected");
  });

  it("leaves no timer behind in any state", async () => {
    mock.timers.reset();
    const timers = new Set();
    let next = 0;
    mock.method(globalThis, "setTimeout", () => timers.add(++next) && next);
    mock.method(globalThis, "clearTimeout", (timer) => timers.delete(timer));
    const situations = [
      () => {}, // the welcome is awaited
      () => socket().drop(), // the next attempt is awaited
      (phalanx) => phalanx.action("queued").catch(() => {}),
      (phalanx) => {
        socket().welcome();
        phalanx.action("sent").catch(() => {});
      },
    ];
    for (const situation of situations) {
      const { phalanx } = client();
      phalanx.connect().catch(() => {});
      situation(phalanx);
      assert.ok(timers.size > 0 || phalanx.id !== undefined);
      phalanx.close();
      assert.equal(timers.size, 0, `${situation}`);
    }
  });

  it("can be followed by connect(), which starts in no room and with the shortest wait", async () => {
    const made = await connected();
    await inRoom("a", made);
    socket().drop();
    made.phalanx.close();
    const connecting = made.phalanx.connect();
    socket().drop();
    assert.equal(made.fired.at(-1).detail.attempt, 1);
    pass(250);
    socket().welcome();
    assert.equal((await connecting).id, "c3");
    assert.deepEqual(socket().sent, []);
  });
});

describe("a file", () => {
  it("has bytes, from text and from base64", () => {
    assert.deepEqual(fileBytes({ content: "ü" }), new Uint8Array([0xc3, 0xbc]));
    assert.deepEqual(fileBytes({ content: "AP+A", encoding: "base64" }), new Uint8Array([0, 255, 128]));
  });
});
