/** What a node answered instead of a result, or why there is no answer. */
export class PhalanxError extends Error {
  constructor(error: { code?: string; message?: string; details?: ErrorDetail[] });
  readonly name: "PhalanxError";
  /**
   * The node's code (`not_found`, `invalid_input`, one of the application's own, …) or one of the client's:
   *
   * - `not_connected`: nothing was sent; safe to ask again.
   * - `payload_too_large`: the frame is over the node's `maxFrameBytes`; nothing was sent.
   * - `too_many_pending`: more than 100 calls wait for a connection, or more than 1000 for answers; nothing was sent.
   *   (The node itself says so too, of more than 5 actions that run at once on one connection.)
   * - `disconnected`: the connection went before the answer came; whether it happened is unknown.
   * - `timeout`: no answer in time; whether it happened is unknown.
   * - `malformed`: of the `error` event alone: the node sent what is no JSON object.
   */
  readonly code: string;
  /** Which inputs were wrong; empty for errors of any other kind. */
  readonly details: readonly ErrorDetail[];
}

/** What is wrong with one input. */
export interface ErrorDetail {
  path: string;
  code: string;
  message: string;
}

/** The first frame of a connection. */
export interface Welcome {
  welcome: string;
  context: "api";
  /** The connection's id: what others see as `from` and as a member of rooms. */
  id: string;
  protocol: number;
  /** How often the node pings; browsers answer pings by themselves and show them to no script. */
  heartbeatMs: number;
  maxFrameBytes: number;
}

/** Who is in a room. */
export interface RoomView {
  room: string;
  members: Record<string, { id: string; joinedAt: number }>;
  membersCount: number;
}

/** What a node knows of this connection. */
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

/** What somebody said in a room. */
export interface RoomMessage<M = unknown> {
  context: "user";
  room: string;
  message: M;
  /** A connection's id, or `"0"` if the server spoke. */
  from: string;
  /** Milliseconds since 1970. */
  sentAt: number;
}

/** Who came or went, in rooms that tell it. */
export interface Presence {
  context: "presence";
  event: "join" | "leave";
  room: string;
  /** A connection's id. */
  member: string;
}

/** The detail of each event. */
export interface PhalanxEvents {
  /** Connected, for the first time or again: rooms are joined again, and what was queued is sent. */
  connected: Welcome;
  /** The connection is gone. Without `willReconnect` for good: by `close()` or by a code from 4500 to 4999. */
  disconnected: { code: number; reason: string; willReconnect: boolean };
  /** The next try comes after `delayMs`; `null`: once the browser is online again. */
  reconnecting: { attempt: number; delayMs: number | null };
  /** A room could not be joined again, and is forgotten. */
  refused: { room: string; error: PhalanxError };
  /** Somebody said something in a room. */
  message: RoomMessage;
  presence: Presence;
  /** The node may have missed messages of the room: read again what depends on them. */
  gap: { context: "api"; event: "gap"; room: string };
  /** Other frames of the node itself. */
  api: Record<string, unknown>;
  /** Frames of the application with the context `alert`. */
  alert: Record<string, unknown>;
  /** Frames of the application with any other context. */
  other: Record<string, unknown>;
  /** A frame that cannot be read, or an error that answers no call; the connection stays. */
  error: PhalanxError;
}

/** Of every call. */
export interface CallOptions {
  /** How long to wait for the answer, time in the queue included; `Infinity` for as long as it takes. */
  timeoutMs?: number;
  /** Gives the call up: it rejects with the signal's reason. What was sent may still happen. */
  signal?: AbortSignal;
}

/** Of the client. */
export interface PhalanxOptions {
  /** Where the node is; default is `/ws` at the page's own origin. */
  url?: string;
  /** What to connect with; default is the global `WebSocket`. */
  webSocket?: new (url: string, protocols?: string | string[]) => unknown;
  /** How long calls wait for their answers; default is 30 seconds. */
  timeoutMs?: number;
}

/** Listens to one kind of event. */
export type PhalanxListener<K extends keyof PhalanxEvents> =
  | ((event: CustomEvent<PhalanxEvents[K]>) => void)
  | { handleEvent(event: CustomEvent<PhalanxEvents[K]>): void };

/** The bytes of a file that `file()` answered. */
export function fileBytes(file: Pick<FileReply, "content" | "encoding">): Uint8Array;

/**
 * A connection to a node that comes back by itself.
 *
 * After `connect()` it tries for as long as it takes, with exponential backoff and full jitter (up to 30 seconds), at
 * once when the browser comes online. It ends by `close()` or by a close code from 4500 to 4999, with which the
 * application says that it does not want this client back. Rooms are joined again after a reconnect.
 *
 * Calls made meanwhile wait, up to 100 of them, until the rooms are joined again. Calls that were sent when the
 * connection went are rejected with `disconnected`, never sent twice.
 *
 * Browsers show protocol pings to no script: a node that was silent for `heartbeatMs` is asked whether it is there, and
 * the connection counts as gone (1006) if nothing comes within 10 seconds. So it does when the browser comes online.
 */
export class Phalanx extends EventTarget {
  constructor(options?: PhalanxOptions);

  /** The connection's id while it is welcomed; each reconnect brings a new one. */
  readonly id?: string;

  /**
   * Connects; resolves with the first welcome, however many tries it takes. Asked again, it answers the same promise.
   *
   * Rejects if the node closes with a code from 4500 to 4999, by `close()`, or if the address is none. (A node that
   * refuses with an HTTP status looks to a browser like one that cannot be reached, and is tried again.)
   */
  connect(): Promise<Welcome>;

  /** Leaves for good: rejects what waits and forgets the rooms. `connect()` begins anew. */
  close(): void;

  /** Runs an action; resolves with its fields. A result that is no object is in `result`. */
  action<T = Record<string, unknown>>(
    name: string,
    params?: object,
    options?: CallOptions & { version?: number },
  ): Promise<T>;

  /** Joins a room, and joins it again after a reconnect. */
  roomAdd(room: string, options?: CallOptions): Promise<void>;

  /** Leaves a room. It is not joined again, whatever the node answers; without a connection that is all. */
  roomLeave(room: string, options?: CallOptions): Promise<void>;

  /** Who is in a room that this connection is in. */
  roomView(room: string, options?: CallOptions): Promise<RoomView>;

  /** Says something in a room; resolves once it is published. The speaker hears it too, as a `message`. */
  say(room: string, message: unknown, options?: CallOptions): Promise<void>;

  /** What the node knows of this connection. */
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
