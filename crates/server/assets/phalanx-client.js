// The browser client of Phalanx: promises for every verb, events, reconnect, rooms joined again.

const MOST_PENDING = 1000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;

/** What a node answered instead of a result, or why there is none. */
export class PhalanxError extends Error {
  constructor({ code, message, details = [] }) {
    super(message);
    this.name = "PhalanxError";
    this.code = code;
    this.details = details;
  }
}

/** A connection to a node. Fires `connected`, `disconnected`, `reconnecting`, `message`, `presence`, `gap`, `api`. */
export class Phalanx extends EventTarget {
  #url;
  #WebSocket;
  #socket;
  #pending = new Map();
  #rooms = new Set();
  #counter = 0;
  #attempt = 0;
  #wanted = false;
  #timer;

  /** The connection's id, once it is welcomed. */
  id;

  constructor({ url, webSocket } = {}) {
    super();
    this.#url = url ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
    this.#WebSocket = webSocket ?? globalThis.WebSocket;
  }

  /** Connects; resolves with the welcome. */
  connect() {
    this.#wanted = true;
    return this.#open();
  }

  /** Leaves for good. */
  close() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  /** Runs an action. */
  action(name, params = {}, { version } = {}) {
    const asked = { ...params, action: name };
    if (version !== undefined) asked.apiVersion = version;
    return this.#ask({ event: "action", params: asked });
  }

  /** Joins a room, and joins it again after a reconnect. */
  async roomAdd(room) {
    await this.#ask({ event: "roomAdd", room });
    this.#rooms.add(room);
  }

  /** Leaves a room. */
  async roomLeave(room) {
    this.#rooms.delete(room);
    await this.#ask({ event: "roomLeave", room });
  }

  /** Who is in a room. */
  async roomView(room) {
    return (await this.#ask({ event: "roomView", room })).data;
  }

  /** Says something in a room; resolves once it is published. */
  async say(room, message) {
    await this.#ask({ event: "say", room, message });
  }

  /** Who am I. */
  async detailsView() {
    return (await this.#ask({ event: "detailsView" })).data;
  }

  /** A file under the public roots. */
  file(path) {
    return this.#ask({ event: "file", file: path });
  }

  #open() {
    return new Promise((resolve, reject) => {
      const socket = new this.#WebSocket(this.#url, "phalanx.1");
      let welcomed = false;
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (!welcomed && frame.welcome !== undefined) {
          welcomed = true;
          this.id = frame.id;
          this.#socket = socket;
          this.#attempt = 0;
          this.#rejoin().then(() => this.#fire("connected", frame));
          resolve(frame);
        } else {
          this.#take(frame);
        }
      };
      socket.onclose = ({ code }) => {
        if (this.#socket === socket) this.#socket = undefined;
        this.#fail("the connection is gone; whether what was asked happened is unknown");
        if (welcomed) this.#fire("disconnected", { code });
        else reject(new PhalanxError({ code: "disconnected", message: "the node cannot be reached" }));
        // 4500 to 4999: the application does not want this client back.
        if (this.#wanted && (welcomed || this.#attempt > 0) && !(code >= 4500 && code <= 4999)) this.#again();
      };
    });
  }

  #again() {
    const most = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#fire("reconnecting", { attempt: this.#attempt });
    this.#timer = setTimeout(() => this.#open().catch(() => {}), Math.random() * most);
  }

  async #rejoin() {
    for (const room of this.#rooms) {
      try {
        await this.#ask({ event: "roomAdd", room });
      } catch (error) {
        this.#rooms.delete(room);
        this.#fire("refused", { room, error });
      }
    }
  }

  #ask(frame) {
    if (!this.#socket) {
      return Promise.reject(new PhalanxError({ code: "disconnected", message: "not connected: nothing was sent" }));
    }
    if (this.#pending.size >= MOST_PENDING) {
      return Promise.reject(new PhalanxError({ code: "too_many_pending", message: "too many calls wait for an answer" }));
    }
    const messageId = ++this.#counter;
    return new Promise((resolve, reject) => {
      this.#pending.set(messageId, { resolve, reject });
      this.#socket.send(JSON.stringify({ ...frame, messageId }));
    });
  }

  #take(frame) {
    const pending = frame.context === "response" && this.#pending.get(frame.messageId);
    if (pending) {
      this.#pending.delete(frame.messageId);
      if (frame.error) pending.reject(new PhalanxError(frame.error));
      else pending.resolve(frame);
      return;
    }
    const name = frame.context === "user" ? "message" : frame.event === "gap" ? "gap" : frame.context;
    this.#fire(name, frame);
  }

  #fail(message) {
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of waiting) reject(new PhalanxError({ code: "disconnected", message }));
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
