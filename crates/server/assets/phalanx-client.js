// The browser client of Phalanx: a promise for every verb, events for messages of rooms, reconnect and rejoin.
//
// Browsers reply to the protocol pings of a node themselves and do not expose them to scripts, so a page cannot
// distinguish a dead node from a quiet one. After `heartbeatMs` of silence the client therefore sends a small call, and
// treats the connection as lost if no frame arrives then either. The node finds dead clients by its pings (close code
// 4002).

const CALL_TIMEOUT_MS = 30_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const WELCOME_WITHIN_MS = 15_000;
/** The time limit of `connect()`. */
const CONNECT_WITHIN_MS = 30_000;
/** The heartbeat of a node whose welcome does not name one. */
const HEARTBEAT_MS = 30_000;
/** The time limit for a frame after a probe. */
const PROBE_WITHIN_MS = 10_000;
/** The limit of calls without a reply, sent or queued. */
const MOST_PENDING = 1000;
/** The limit of calls queued while not connected: the burst that a node accepts, unless its settings lower that. */
const MOST_QUEUED = 100;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
/** The time after which a connection counts as healthy, and its loss starts the backoff anew. */
const HEALTHY_AFTER_MS = 5_000;
const REJOIN_ROUNDS = 4;
const REJOIN_PAUSE_MS = 1_000;
/** Codes of a failed rejoin that may be temporary and are retried; `conflict` if the room is destroyed meanwhile. */
const PASSING = ["conflict", "rate_limited", "timeout", "unavailable"];
const EVENTS = new Map([["user", "message"], ["presence", "presence"], ["api", "api"], ["alert", "alert"]]);

/** The error that a node replied with, or the reason why there is no reply. */
export class PhalanxError extends Error {
  constructor({ code = "internal", message = "no reason was given", details = [] }) {
    super(message);
    this.name = "PhalanxError";
    this.code = code;
    this.details = details;
  }
}

/** Returns the bytes of a file that `file()` resolved with. */
export function fileBytes({ content, encoding }) {
  if (encoding !== "base64") return new TextEncoder().encode(content);
  return Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
}

/** A connection to a node that reconnects automatically. `phalanx-client.d.ts` lists the events. */
export class Phalanx extends EventTarget {
  #url;
  #WebSocket;
  #timeoutMs;
  #connectTimeoutMs;
  #keepTrying;
  #socket;
  /** Whether the node has accepted the handshake of this socket. */
  #isOpen = false;
  /** Whether to keep a connection: from `connect()` until `close()`, or a close code that forbids to reconnect. */
  #isWanted = false;
  /** Whether calls are sent at once: after the welcome and the rejoin. */
  #isReady = false;
  /** The promise of `connect()`, with its `resolve` and `reject`, and the timer of its limit. */
  #opening;
  #welcomedAt;
  /** Whether there was a welcome since `connect()`. */
  #wasWelcomed = false;
  #heardAt;
  #heartbeatMs;
  #maxFrameBytes = Infinity;
  /** Calls without a reply, by messageId, in the order in which they were made. */
  #pending = new Map();
  #counter = 0;
  #rooms = new Set();
  /** The number of failed attempts to connect in a row. */
  #attempt = 0;
  /** The timer of the current state: waiting for the welcome, the next rejoin, a heartbeat, or the next attempt. */
  #timer;

  /** The connection's id from its welcome until it is lost; each reconnect brings a new one. */
  id;

  constructor({
    url, webSocket, timeoutMs = CALL_TIMEOUT_MS, connectTimeoutMs = CONNECT_WITHIN_MS, keepTrying = false,
  } = {}) {
    super();
    this.#url = url ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
    this.#WebSocket = webSocket ?? globalThis.WebSocket;
    this.#timeoutMs = timeoutMs;
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#keepTrying = keepTrying;
  }

  /** Connects; resolves with the first welcome, and rejects once a node refuses or the time is over. */
  connect() {
    if (this.#opening) return this.#opening.promise;
    const opening = (this.#opening = deferred());
    if (this.#connectTimeoutMs <= LONGEST_TIMER_MS) {
      const late = unsent(`not connected within ${this.#connectTimeoutMs} ms`);
      opening.timer = setTimeout(() => this.#fails(late), this.#connectTimeoutMs);
    }
    if (this.#isWanted) return opening.promise; // attempts go on since an earlier call was rejected
    this.#isWanted = true;
    globalThis.addEventListener?.("online", this.#online);
    try {
      this.#open();
    } catch (error) {
      this.#end(error); // not a WebSocket URL: another attempt would not help
    }
    return opening.promise;
  }

  /** Disconnects for good: rejects pending calls, forgets rooms. `connect()` starts anew. */
  close() {
    const wasWelcomed = this.id !== undefined;
    this.#release();
    this.#end(disconnected("the client was closed"));
    if (wasWelcomed) this.#fire("disconnected", { code: 1000, reason: "", willReconnect: false });
  }

  /** Connects anew at once, as who the cookies say by now, and rejoins the rooms. */
  reconnect() {
    if (!this.#isWanted) throw unsent("not connected");
    const wasWelcomed = this.id !== undefined;
    this.#release();
    this.#attempt = 0;
    this.#fail(disconnected("the client connects anew"), ({ isSent }) => isSent);
    if (wasWelcomed) this.#fire("disconnected", { code: 1000, reason: "", willReconnect: true });
    if (this.#isWanted && !this.#socket) this.#open(); // a listener of the event may have called `close()`
  }

  /** Calls an action. */
  action(name, params = {}, { version, ...options } = {}) {
    const asked = { ...params, action: name };
    if (version !== undefined) asked.apiVersion = version;
    return this.#ask({ event: "action", params: asked }, options);
  }

  /** Joins a room, and rejoins it after a reconnect. */
  async roomAdd(room, options) {
    await this.#ask({ event: "roomAdd", room }, options);
    this.#rooms.add(room);
  }

  /** Leaves a room. Without a connection it only cancels the rejoin and the queued joins of the room. */
  async roomLeave(room, options) {
    this.#rooms.delete(room);
    if (this.id !== undefined) {
      await this.#ask({ event: "roomLeave", room }, options);
      this.#rooms.delete(room); // a `roomAdd` may have succeeded in between
      return;
    }
    for (const { joins, reject } of this.#pending.values()) {
      if (joins === room) reject(unsent("the room was left again"));
    }
  }

  /** Returns a page of the members of a room: the first, or the one after the page with `after` as its `next`. */
  async roomView(room, { after, ...options } = {}) {
    return (await this.#ask({ event: "roomView", room, after }, options)).data;
  }

  /** Publishes a message to a room; resolves once it is published. */
  async say(room, message, options) {
    await this.#ask({ event: "say", room, message }, options);
  }

  /** Returns the details of this connection. */
  async detailsView(options) {
    return (await this.#ask({ event: "detailsView" }, options)).data;
  }

  /** Reads a file under the public roots; `fileBytes()` decodes it. */
  file(path, options) {
    return this.#ask({ event: "file", file: path }, options);
  }

  /** Sends a call, or queues it until the connection is ready. */
  #ask(frame, { timeoutMs = this.#timeoutMs, signal } = {}, place = "in turn") {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (!this.#isWanted) throw unsent("not connected");
      const isOwn = place === "before the queue";
      const goesNow = this.#isReady || isOwn;
      if (!isOwn && this.#pending.size >= (goesNow ? MOST_PENDING : MOST_QUEUED)) {
        throw new PhalanxError({ code: "too_many_pending", message: "too many calls wait: nothing was sent" });
      }
      const messageId = ++this.#counter;
      const settle = (how) => (value) => {
        this.#pending.delete(messageId);
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        how(value);
      };
      const call = { text: JSON.stringify({ ...frame, messageId }), isSent: false };
      if (frame.event === "roomAdd") call.joins = frame.room;
      call.resolve = settle(resolve);
      call.reject = settle(reject);
      const abort = () => call.reject(signal.reason);
      const late = () => {
        const message = `no answer within ${timeoutMs} ms; whether it happened is unknown`;
        call.reject(call.isSent ? new PhalanxError({ code: "timeout", message }) : unsent("not connected in time"));
      };
      const timer = setTimeout(late, Math.min(timeoutMs, LONGEST_TIMER_MS));
      signal?.addEventListener("abort", abort);
      this.#pending.set(messageId, call);
      if (goesNow) this.#send(call);
    });
  }

  #send(call) {
    const { text } = call;
    // The node would close the connection (1009) after a frame that is too large.
    if (text.length * 3 > this.#maxFrameBytes && new TextEncoder().encode(text).length > this.#maxFrameBytes) {
      const message = `a frame has at most ${this.#maxFrameBytes} bytes: nothing was sent`;
      call.reject(new PhalanxError({ code: "payload_too_large", message }));
      return;
    }
    call.isSent = true;
    this.#socket.send(text);
  }

  #open() {
    const socket = new this.#WebSocket(this.#url, "phalanx.1");
    this.#socket = socket;
    this.#isOpen = false;
    socket.onopen = () => (this.#isOpen = this.#socket === socket);
    this.#timer = setTimeout(() => this.#lost({ code: 1006, reason: "no welcome" }), WELCOME_WITHIN_MS);
    socket.onmessage = ({ data }) => this.#hear(data);
    socket.onclose = (event) => this.#lost(event);
    socket.onerror = () => {}; // carries no information, and `close` follows
  }

  #hear(data) {
    this.#heardAt = Date.now();
    const frame = objectOf(data);
    if (!frame) {
      const message = "the node sent a frame that is no JSON object";
      this.#fire("error", new PhalanxError({ code: "malformed", message }));
    } else if (this.id === undefined && frame.welcome !== undefined) {
      this.#enter(frame, this.#socket);
    } else {
      this.#take(frame);
    }
  }

  #take(frame) {
    if (frame.context === "presence" && Array.isArray(frame.members)) {
      const { members, ...rest } = frame; // of a node that died or came back, with many members
      for (const member of members) this.#fire("presence", { ...rest, member });
    } else if (frame.context !== "response") {
      const ofNode = frame.context === "api" && ["gap", "away"].includes(frame.event);
      this.#fire(ofNode ? frame.event : (EVENTS.get(frame.context) ?? "other"), frame);
    } else if (frame.messageId === undefined) {
      if (frame.error) this.#fire("error", new PhalanxError(frame.error));
      else this.#fire("other", frame);
    } else {
      const call = this.#pending.get(frame.messageId); // none after a timeout: its caller got an error
      if (frame.error) call?.reject(new PhalanxError(frame.error));
      else call?.resolve(frame);
    }
  }

  /** Makes a welcomed connection ready: rejoins the rooms, then sends the queued calls. */
  async #enter(welcome, socket) {
    clearTimeout(this.#timer);
    this.id = welcome.id;
    this.#welcomedAt = Date.now();
    this.#maxFrameBytes = welcome.maxFrameBytes ?? Infinity;
    this.#heartbeatMs = Math.min(welcome.heartbeatMs || HEARTBEAT_MS, LONGEST_TIMER_MS);
    this.#opening ??= deferred();
    clearTimeout(this.#opening.timer);
    this.#opening.resolve(welcome);
    this.#wasWelcomed = true;
    if (this.#rooms.size > 0) await this.#rejoin(socket);
    if (this.#socket !== socket) return;
    this.#isReady = true;
    for (const call of this.#pending.values()) this.#send(call);
    this.#listen();
    this.#fire("connected", welcome);
  }

  /** Waits until the node has been silent for a heartbeat. */
  #listen() {
    clearTimeout(this.#timer);
    const leftMs = this.#heardAt + this.#heartbeatMs - Date.now();
    if (leftMs > 0) this.#timer = setTimeout(() => this.#listen(), leftMs);
    else this.#probe();
  }

  /** Probes the node with a small call. Any frame that arrives shows that it is alive. */
  async #probe() {
    const [socket, askedAt] = [this.#socket, Date.now()];
    await this.#ask({ event: "detailsView" }, { timeoutMs: PROBE_WITHIN_MS }, "before the queue").catch(() => {});
    if (this.#socket !== socket) return;
    if (this.#heardAt >= askedAt) this.#listen();
    else this.#lost({ code: 1006, reason: "silent" });
  }

  async #rejoin(socket) {
    let rooms = [...this.#rooms];
    for (let round = 1; rooms.length > 0; round += 1) {
      const answers = await Promise.all(rooms.map((room) => this.#joinAgain(room)));
      const inConflict = answers.some((refusal) => refusal?.error.code === "conflict");
      const joined = inConflict ? await this.#ownRooms() : []; // the node itself may have joined us already
      if (this.#socket !== socket) return;
      const [again, refused] = [[], []];
      for (const refusal of answers.filter((refusal) => refusal && !joined.includes(refusal.room))) {
        const isPassing = PASSING.includes(refusal.error.code) && round < REJOIN_ROUNDS;
        (isPassing ? again : refused).push(refusal);
      }
      for (const refusal of refused) {
        if (this.#rooms.delete(refusal.room)) this.#fire("refused", refusal);
      }
      rooms = again.map(({ room }) => room);
      if (rooms.length === 0) return;
      await new Promise((resolve) => (this.#timer = setTimeout(resolve, REJOIN_PAUSE_MS * round)));
    }
  }

  /** Resolves with the room and the error if the rejoin fails, else with nothing. */
  async #joinAgain(room) {
    try {
      await this.#ask({ event: "roomAdd", room }, {}, "before the queue");
    } catch (error) {
      return { room, error };
    }
  }

  /** Returns the rooms of this connection by the node's account; none if that call fails. */
  async #ownRooms() {
    const asked = this.#ask({ event: "detailsView" }, {}, "before the queue");
    return asked.then(({ data }) => data.rooms, () => []);
  }

  /** Handles the loss of a connection, or a failed attempt. */
  #lost({ code, reason }) {
    const wasWelcomed = this.id !== undefined;
    if (wasWelcomed && Date.now() - this.#welcomedAt >= HEALTHY_AFTER_MS) this.#attempt = 0;
    this.#release();
    // With 4500 to 4999 the application forbids this client to reconnect.
    const willReconnect = !(code >= 4500 && code <= 4999);
    const error = disconnected(`the connection is gone (${code})`);
    if (willReconnect) this.#fail(error, ({ isSent }) => isSent);
    else this.#end(error);
    if (wasWelcomed || !willReconnect) this.#fire("disconnected", { code, reason, willReconnect });
    if (!this.#isWanted || this.#socket) return; // a listener of the event may have called `close()`
    this.#again();
    if (!this.#wasWelcomed && !this.#isOpen && this.#opening) this.#checkRefusal(this.#opening);
  }

  /**
   * Rejects `connect()` if a server answers at the address: then it has refused the handshake. Browsers show scripts no
   * difference between that and a server that cannot be reached, but a request without an upgrade does.
   */
  async #checkRefusal(opening) {
    if (!(await doesAnswer(this.#url)) || this.#opening !== opening || this.id !== undefined) return;
    this.#fails(new PhalanxError({ code: "refused", message: "the node refused the connection: nothing was sent" }));
  }

  /** Rejects `connect()`, and makes no further attempts unless asked to. */
  #fails(error) {
    if (this.#keepTrying) {
      clearTimeout(this.#opening.timer);
      this.#opening.reject(error);
      this.#opening = undefined;
    } else {
      this.#release();
      this.#end(error);
    }
  }

  #again() {
    const isOffline = globalThis.navigator?.onLine === false; // then the `online` event starts the next attempt
    const delayMs = isOffline ? null : Math.random() * Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    if (!isOffline) this.#timer = setTimeout(() => this.#open(), delayMs);
    this.#fire("reconnecting", { attempt: this.#attempt, delayMs });
  }

  #online = () => {
    if (this.#isReady) this.#probe(); // the network may have changed under the connection
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.#attempt = 0;
    this.#again();
  };

  /** Detaches the socket and closes it; its further events are ignored. */
  #release() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = this.id = undefined;
    this.#isReady = false;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** Reverts the client to its state before `connect()`. */
  #end(error) {
    this.#isWanted = false;
    this.#attempt = 0;
    this.#rooms.clear();
    globalThis.removeEventListener?.("online", this.#online);
    clearTimeout(this.#opening?.timer);
    this.#opening?.reject(error);
    this.#opening = undefined;
    this.#wasWelcomed = false;
    this.#fail(error, () => true);
  }

  #fail(error, isMeant) {
    for (const call of [...this.#pending.values()].filter(isMeant)) {
      call.reject(call.isSent ? error : unsent("not connected"));
    }
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function objectOf(data) {
  try {
    const value = JSON.parse(data);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

/** Whether a server answers at the address, whatever the answer. */
async function doesAnswer(url) {
  try {
    const signal = AbortSignal.timeout(PROBE_WITHIN_MS);
    await fetch(String(url).replace(/^ws/i, "http"), { mode: "no-cors", cache: "no-store", credentials: "omit", signal });
    return true;
  } catch {
    return false;
  }
}

function disconnected(why) {
  return new PhalanxError({ code: "disconnected", message: `${why}; whether what was asked happened is unknown` });
}

function unsent(why) {
  return new PhalanxError({ code: "not_connected", message: `${why}: nothing was sent` });
}
