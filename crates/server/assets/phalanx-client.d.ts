/** The error that a node replied with, or the reason why there is no reply. */
export class PhalanxError extends Error {
  constructor(error: { code?: string; message?: string; details?: ErrorDetail[] });
  readonly name: "PhalanxError";
  /**
   * The node's code (`not_found`, `invalid_input`, one of the application, …) or one of the client:
   *
   * - `not_connected`: nothing was sent; safe to retry.
   * - `refused`: only of `connect()`: a server answers at the URL, and refused the connection.
   * - `payload_too_large`: the frame is over the node's `maxFrameBytes`; nothing was sent.
   * - `too_many_pending`: more than 100 calls wait for a connection, or more than 1000 for replies; nothing was sent.
   *   (The node uses this code too, for more than 5 concurrent actions on one connection.)
   * - `disconnected`: the connection was lost before the reply; whether the call took effect is unknown.
   * - `timeout`: no reply in time; whether the call took effect is unknown.
   * - `malformed`: only in the `error` event: the node sent a frame that is not a JSON object.
   */
  readonly code: string;
  /** The invalid inputs; empty for all other errors. */
  readonly details: readonly ErrorDetail[];
}

/** The error of one input, or of one limit. */
export interface ErrorDetail {
  path: string;
  code: string;
  message: string;
  /** Of a limit that refuses the call: when there may be another one. */
  retryAfterMs?: number;
}

/** The first frame of a connection. */
export interface Welcome {
  welcome: string;
  context: "api";
  /** The connection's id, which others see as `from` of messages and as a member of rooms. */
  id: string;
  protocol: number;
  /** The interval of the node's pings; browsers reply to pings themselves and do not expose them to scripts. */
  heartbeatMs: number;
  maxFrameBytes: number;
}

/** A page of the members of a room. */
export interface RoomView {
  room: string;
  members: Record<string, { id: string; joinedAt: number }>;
  /** The number of all members. */
  membersCount: number;
  /** The start of the next page, if there may be more members. */
  next?: string;
}

/** The details of this connection. */
export interface Details {
  id: string;
  fingerprint: string;
  remoteIP: string;
  remotePort: number;
  params: Record<string, unknown>;
  /** Milliseconds since 1970. */
  connectedAt: number;
  rooms: string[];
  totalActions: number;
  pendingActions: number;
}

/** A file under the public roots. */
export interface FileReply {
  /** Text, or base64 if `encoding` says so; `fileBytes()` decodes either. */
  content: string;
  encoding?: "base64";
  mime: string;
  length: number;
  lastModified: string;
}

/** A message that was published to a room. */
export interface RoomMessage<M = unknown> {
  context: "user";
  room: string;
  message: M;
  /** The publisher's connection id, or `"0"` if the server published it. */
  from: string;
  /** Milliseconds since 1970. */
  sentAt: number;
}

/** A join or leave, in rooms that announce presence. A frame that names several members is an event for each. */
export interface Presence {
  context: "presence";
  event: "join" | "leave";
  room: string;
  /** The id of the connection that joined or left. */
  member: string;
}

/** The detail of each event. */
export interface PhalanxEvents {
  /** Connected, for the first time or again: rooms are rejoined, and queued calls are sent. */
  connected: Welcome;
  /** The connection is lost; without `willReconnect` for good, by `close()` or by a close code from 4500 to 4999. */
  disconnected: { code: number; reason: string; willReconnect: boolean };
  /** The next attempt follows after `delayMs`; `null` means once the browser is online again. */
  reconnecting: { attempt: number; delayMs: number | null };
  /** A room could not be rejoined, and is forgotten. */
  refused: { room: string; error: PhalanxError };
  /** A message was published to a room. */
  message: RoomMessage;
  presence: Presence;
  /** The node is cut off: messages of rooms do not arrive. `gap` of each room follows when they arrive again. */
  away: { context: "api"; event: "away" };
  /**
   * The node may have missed messages of the room: reload the state that depends on them. All members of all rooms get it
   * at once, so wait a random time before, such as `Math.random() * 2000` ms. Without a room: messages that the
   * application sent to this client, by a tag or its user.
   */
  gap: { context: "api"; event: "gap"; room?: string };
  /** Other frames of the node itself. */
  api: Record<string, unknown>;
  /** Frames of the application with the context `alert`. */
  alert: Record<string, unknown>;
  /** Frames of the application with any other context. */
  other: Record<string, unknown>;
  /** A frame that cannot be decoded, or an error that belongs to no call; the connection remains open. */
  error: PhalanxError;
}

/** The options of a call. */
export interface CallOptions {
  /** The time limit for the reply, time in the queue included; `Infinity` for none. */
  timeoutMs?: number;
  /** Aborts the call, which rejects with the signal's reason. If it was sent, it may still take effect. */
  signal?: AbortSignal;
}

/** The options of the client. */
export interface PhalanxOptions {
  /** The URL of the node; default is `/ws` at the page's own origin. */
  url?: string;
  /** The WebSocket class to use; default is the global `WebSocket`. */
  webSocket?: new (url: string, protocols?: string | string[]) => unknown;
  /** The time limit of calls for their replies; default is 30 seconds. */
  timeoutMs?: number;
  /** The time limit of `connect()`; default is 30 seconds, `Infinity` for none. */
  connectTimeoutMs?: number;
  /** Whether attempts go on after `connect()` has rejected; `connected` follows once one succeeds. Default is `false`. */
  keepTrying?: boolean;
}

/** A listener for one type of event. */
export type PhalanxListener<K extends keyof PhalanxEvents> =
  | ((event: CustomEvent<PhalanxEvents[K]>) => void)
  | { handleEvent(event: CustomEvent<PhalanxEvents[K]>): void };

/** Returns the bytes of a file that `file()` resolved with. */
export function fileBytes(file: Pick<FileReply, "content" | "encoding">): Uint8Array;

/**
 * A connection to a node that reconnects automatically.
 *
 * Until `connect()` rejects, and after every loss of a connection, it makes attempts with exponential backoff and full
 * jitter (up to 30 seconds), and at once when the browser comes online. It ends by `close()`, or by a close code from 4500 to 4999, with which the
 * application forbids this client to reconnect. Rooms are rejoined after a reconnect.
 *
 * Calls made meanwhile are queued, up to 100 of them, until the rooms are rejoined. Calls that were sent before the
 * connection was lost are rejected with `disconnected`, and never sent twice.
 *
 * Browsers do not expose protocol pings to scripts. After `heartbeatMs` without a frame, and when the browser comes
 * online, the client sends a small call to the node; the connection counts as lost (1006) if no frame arrives within
 * 10 seconds.
 */
export class Phalanx extends EventTarget {
  constructor(options?: PhalanxOptions);

  /** The connection's id from its welcome until it is lost; each reconnect brings a new one. */
  readonly id?: string;

  /**
   * Connects; resolves with the first welcome. While no server can be reached it makes one attempt after the other. A
   * second call returns the same promise.
   *
   * Rejects with `refused` after the first attempt that a server refuses, with `not_connected` after `connectTimeoutMs`,
   * if the node closes with a code from 4500 to 4999, by `close()`, or if the URL is not valid. The client then makes no
   * further attempts, unless `keepTrying` asks for them in the first two cases; another `connect()` starts anew. (Browsers
   * do not show scripts that a server refuses a WebSocket. After a failed attempt the client requests the same URL by
   * `fetch`: if any response comes, it was a refusal. A page's `connect-src` must permit that, too.)
   */
  connect(): Promise<Welcome>;

  /** Disconnects for good: rejects pending calls and forgets the rooms. `connect()` starts anew. */
  close(): void;

  /**
   * Connects anew at once, and rejoins the rooms: for a page whose user has signed in by HTTP, since a socket keeps the
   * session of its upgrade. `disconnected` with `willReconnect` is fired, then `connected`. Calls that were sent are rejected
   * with `disconnected`, queued ones wait.
   *
   * Throws `not_connected` before `connect()` and after `close()`.
   */
  reconnect(): void;

  /** Calls an action; resolves with the fields of its result. A result that is not an object is in `result`. */
  action<T = Record<string, unknown>>(
    name: string,
    params?: object,
    options?: CallOptions & { version?: number },
  ): Promise<T>;

  /** Joins a room, and rejoins it after a reconnect. */
  roomAdd(room: string, options?: CallOptions): Promise<void>;

  /** Leaves a room. It is not rejoined, whatever the node replies; without a connection nothing else happens. */
  roomLeave(room: string, options?: CallOptions): Promise<void>;

  /**
   * Returns members of a room that this connection is in, at most 100 of them; `after` takes the `next` of the page
   * before. While others join and leave, members that stay are on one page at least.
   */
  roomView(room: string, options?: CallOptions & { after?: string }): Promise<RoomView>;

  /** Publishes a message to a room; resolves once it is published. The publisher receives it too, as a `message`. */
  say(room: string, message: unknown, options?: CallOptions): Promise<void>;

  /** Returns the details of this connection. */
  detailsView(options?: CallOptions): Promise<Details>;

  /** Reads a file under the public roots. */
  file(path: string, options?: CallOptions): Promise<FileReply>;

  addEventListener<K extends keyof PhalanxEvents>(
    type: K,
    listener: PhalanxListener<K> | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof PhalanxEvents>(
    type: K,
    listener: PhalanxListener<K> | null,
    options?: boolean | EventListenerOptions,
  ): void;
}
