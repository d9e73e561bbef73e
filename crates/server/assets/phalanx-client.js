// The browser client of Phalanx: a promise for every verb, events for what rooms say, reconnect, rooms joined again.
//
// Browsers answer the protocol pings of a node by themselves and show them to no script, so a page cannot tell a dead node
// from a quiet one. A node that was silent for `heartbeatMs` is therefore asked for something small, and counts as gone if
// it says nothing then either. The node finds dead clients by its pings (close code 4002).

const CALL_TIMEOUT_MS = 30_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const WELCOME_WITHIN_MS = 15_000;
/** How long a node may be silent that does not say how often it pings. */
const HEARTBEAT_MS = 30_000;
/** How long a node may take to answer whether it is there. */
const PROBE_WITHIN_MS = 10_000;
/** Calls without an answer, sent or not. */
const MOST_PENDING = 1000;
/** Calls made while not connected: as many as a node takes in one burst, unless it is set to take fewer. */
const MOST_QUEUED = 100;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
/** How long a connection stays up before the next loss counts as the first. */
const HEALTHY_AFTER_MS = 5_000;
const REJOIN_ROUNDS = 4;
const REJOIN_PAUSE_MS = 1_000;
/** Refusals of a rejoin that may be about the moment, not about the room; `conflict` if rooms are destroyed meanwhile. */
const PASSING = ["conflict", "rate_limited", "timeout", "unavailable"];
const EVENTS = new Map([["user", "message"], ["presence", "presence"], ["api", "api"], ["alert", "alert"]]);

/** What a node answered instead of a result, or why there is no answer. */
export class PhalanxError extends Error {
  constructor({ code = "internal", message = "no reason was given", details = [] }) {
    super(message);
    this.name = "PhalanxError";
    this.code = code;
    this.details = details;
  }
}

/** The bytes of a file that `file()` answered. */
export function fileBytes({ content, encoding }) {
  if (encoding !== "base64") return new TextEncoder().encode(content);
  return Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
}

/** A connection to a node that comes back by itself. The events are listed in `phalanx-client.d.ts`. */
export class Phalanx extends EventTarget {
  #url;
  #WebSocket;
  #timeoutMs;
  #socket;
  /** Whether the application wants to be connected: from `connect()` to `close()` or a code that forbids to return. */
  #isWanted = false;
  /** Whether calls go out at once: after the welcome and the rejoin. */
  #isReady = false;
  /** The promise of `connect()` and its two ends. */
  #opening;
  #welcomedAt;
  #heardAt;
  #heartbeatMs;
  #maxFrameBytes = Infinity;
  /** Calls without an answer, by messageId, in the order of asking. */
  #pending = new Map();
  #counter = 0;
  #rooms = new Set();
  /** How many tries to connect failed in a row. */
  #attempt = 0;
  /** One timer, of what the connection waits for: the welcome, the next rejoin, a silence, or the next try to connect. */
  #timer;

  /** The connection's id while it is welcomed; each reconnect brings a new one. */
  id;

  constructor({ url, webSocket, timeoutMs = CALL_TIMEOUT_MS } = {}) {
    super();
    this.#url = url ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
    this.#WebSocket = webSocket ?? globalThis.WebSocket;
    this.#timeoutMs = timeoutMs;
  }

  /** Connects, trying again until it works; resolves with the first welcome. */
  connect() {
    if (this.#opening) return this.#opening.promise;
    const opening = (this.#opening = {});
    opening.promise = new Promise((resolve, reject) => Object.assign(opening, { resolve, reject }));
    this.#isWanted = true;
    globalThis.addEventListener?.("online", this.#online);
    try {
      this.#open();
    } catch (error) {
      this.#end(error); // no address of a WebSocket: trying again would not help
    }
    return opening.promise;
  }

  /** Leaves for good: rejects what waits, forgets rooms. `connect()` begins anew. */
  close() {
    const wasWelcomed = this.id !== undefined;
    this.#release();
    this.#end(disconnected("the client was closed"));
    if (wasWelcomed) this.#fire("disconnected", { code: 1000, reason: "", willReconnect: false });
  }

  /** Runs an action. */
  action(name, params = {}, { version, ...options } = {}) {
    const asked = { ...params, action: name };
    if (version !== undefined) asked.apiVersion = version;
    return this.#ask({ event: "action", params: asked }, options);
  }

  /** Joins a room, and joins it again after a reconnect. */
  async roomAdd(room, options) {
    await this.#ask({ event: "roomAdd", room }, options);
    this.#rooms.add(room);
  }

  /** Leaves a room; without a connection there is nothing to leave but the wish to be in it. */
  async roomLeave(room, options) {
    this.#rooms.delete(room);
    if (this.id !== undefined) {
      await this.#ask({ event: "roomLeave", room }, options);
      this.#rooms.delete(room); // a `roomAdd` may have been answered in between
      return;
    }
    for (const { joins, reject } of this.#pending.values()) {
      if (joins === room) reject(unsent("the room was left again"));
    }
  }

  /** Who is in a room. */
  async roomView(room, options) {
    return (await this.#ask({ event: "roomView", room }, options)).data;
  }

  /** Says something in a room; resolves once it is published. */
  async say(room, message, options) {
    await this.#ask({ event: "say", room, message }, options);
  }

  /** Who am I. */
  async detailsView(options) {
    return (await this.#ask({ event: "detailsView" }, options)).data;
  }

  /** A file under the public roots; `fileBytes()` has its bytes. */
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
    // A frame that is too big would cost the connection (1009).
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
    this.#timer = setTimeout(() => this.#lost({ code: 1006, reason: "no welcome" }), WELCOME_WITHIN_MS);
    socket.onmessage = ({ data }) => this.#hear(data);
    socket.onclose = (event) => this.#lost(event);
    socket.onerror = () => {}; // tells nothing, and `close` follows
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
    if (frame.context !== "response") {
      this.#fire(frame.event === "gap" ? "gap" : (EVENTS.get(frame.context) ?? "other"), frame);
    } else if (frame.messageId === undefined) {
      if (frame.error) this.#fire("error", new PhalanxError(frame.error));
      else this.#fire("other", frame);
    } else {
      const call = this.#pending.get(frame.messageId); // none: too late, its caller knows
      if (frame.error) call?.reject(new PhalanxError(frame.error));
      else call?.resolve(frame);
    }
  }

  /** Makes a welcomed connection ready: first the rooms, then what was asked meanwhile. */
  async #enter(welcome, socket) {
    clearTimeout(this.#timer);
    this.id = welcome.id;
    this.#welcomedAt = Date.now();
    this.#maxFrameBytes = welcome.maxFrameBytes ?? Infinity;
    this.#heartbeatMs = Math.min(welcome.heartbeatMs || HEARTBEAT_MS, LONGEST_TIMER_MS);
    this.#opening.resolve(welcome);
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

  /** Asks the node whether it is there. Any frame will do for an answer. */
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
      const joined = inConflict ? await this.#ownRooms() : []; // the node may have put us in already
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

  /** Resolves with the refusal, if there is one. */
  async #joinAgain(room) {
    try {
      await this.#ask({ event: "roomAdd", room }, {}, "before the queue");
    } catch (error) {
      return { room, error };
    }
  }

  /** The rooms that the node knows us to be in; none if it does not say. */
  async #ownRooms() {
    const asked = this.#ask({ event: "detailsView" }, {}, "before the queue");
    return asked.then(({ data }) => data.rooms, () => []);
  }

  /** A connection, or a try at one, is gone. */
  #lost({ code, reason }) {
    const wasWelcomed = this.id !== undefined;
    if (wasWelcomed && Date.now() - this.#welcomedAt >= HEALTHY_AFTER_MS) this.#attempt = 0;
    this.#release();
    // 4500 to 4999: the application does not want this client back.
    const willReconnect = !(code >= 4500 && code <= 4999);
    const error = disconnected(`the connection is gone (${code})`);
    if (willReconnect) this.#fail(error, ({ isSent }) => isSent);
    else this.#end(error);
    if (wasWelcomed || !willReconnect) this.#fire("disconnected", { code, reason, willReconnect });
    if (this.#isWanted && !this.#socket) this.#again(); // a listener may have closed it
  }

  #again() {
    const isOffline = globalThis.navigator?.onLine === false; // then `online` wakes us
    const delayMs = isOffline ? null : Math.random() * Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    if (!isOffline) this.#timer = setTimeout(() => this.#open(), delayMs);
    this.#fire("reconnecting", { attempt: this.#attempt, delayMs });
  }

  #online = () => {
    if (this.#isReady) this.#probe(); // it may be another network than the one it was connected over
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.#attempt = 0;
    this.#again();
  };

  /** Lets go of the socket: what it still tells is nobody's. */
  #release() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = this.id = undefined;
    this.#isReady = false;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** Ends what `connect()` began. */
  #end(error) {
    this.#isWanted = false;
    this.#attempt = 0;
    this.#rooms.clear();
    globalThis.removeEventListener?.("online", this.#online);
    this.#opening?.reject(error);
    this.#opening = undefined;
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

function disconnected(why) {
  return new PhalanxError({ code: "disconnected", message: `${why}; whether what was asked happened is unknown` });
}

function unsent(why) {
  return new PhalanxError({ code: "not_connected", message: `${why}: nothing was sent` });
}
