/** What a node answered instead of a result, or why there is none. */
export class PhalanxError extends Error {
  readonly code: string;
  readonly details: { path: string; code: string; message: string }[];
}

export interface Welcome {
  welcome: string;
  id: string;
  protocol: number;
  heartbeatMs: number;
  maxFrameBytes: number;
}

export interface RoomView {
  room: string;
  members: Record<string, { id: string; joinedAt: number }>;
  membersCount: number;
}

/** A connection to a node. Fires `connected`, `disconnected`, `reconnecting`, `refused`, `message`, `presence`, `gap`. */
export class Phalanx extends EventTarget {
  constructor(options?: { url?: string; webSocket?: typeof WebSocket });
  readonly id?: string;
  connect(): Promise<Welcome>;
  close(): void;
  action<T = Record<string, unknown>>(name: string, params?: object, options?: { version?: number }): Promise<T>;
  roomAdd(room: string): Promise<void>;
  roomLeave(room: string): Promise<void>;
  roomView(room: string): Promise<RoomView>;
  say(room: string, message: unknown): Promise<void>;
  detailsView(): Promise<Record<string, unknown>>;
  file(path: string): Promise<{ content: string; encoding?: "base64"; mime: string; length: number; lastModified: string }>;
}
