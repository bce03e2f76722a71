import type { Clock } from "./clock.js";
import type { Codec } from "./codec.js";
import type { CredentialCallback } from "./credentials.js";
import type { TransportKind } from "./transport/transport.js";
import type { WebSocketConstructor } from "./transport/websocket.js";

export interface TidingsOptions {
  /** Display name, where the server lets anyone in. It proves nothing. */
  username?: string;
  /** Returns a token (JWT). It is shown to the HTTP surface only, which gives a ticket for each connection. */
  getToken?: CredentialCallback;
  /** Returns a one-time ticket, for pages whose own server keeps the token. Called for every connection. */
  getTicket?: CredentialCallback;
  /** In which order to try; `["websocket", "sse"]`. */
  transports?: readonly TransportKind[];
  /** How messages become frames; JSON. See `@tidings/client/msgpack`. */
  codec?: Codec;
  /** The WebSocket to use where there is none built in (Node.js 20: the package `ws`). */
  WebSocket?: WebSocketConstructor;
  fetch?: typeof globalThis.fetch;
  /**
   * Where the session is kept that makes a reload the same user, and which transport worked; `sessionStorage`, if there
   * is one. Null: nowhere.
   */
  storage?: Pick<Storage, "getItem" | "setItem"> | null;
  /** How long an answer may take before the message is sent again, or given up; 10 s. */
  ackTimeoutMs?: number;
  /** How often a message is sent at most; 5. */
  tries?: number;
  /** How many messages may wait for a connection; 100. */
  queueLimit?: number;
  /** How long a connection may take to be made; 10 s. */
  connectTimeoutMs?: number;
  /** Limits of the wait before the first attempt to reconnect (500 ms), and before any (30 s). */
  backoff?: { firstMs?: number; longestMs?: number };
  /** How many metrics records are kept; 300. */
  historyLimit?: number;
  /** Closes the client when it aborts. */
  signal?: AbortSignal;
  /** Time and chance, for tests. */
  clock?: Clock;
}

export const DEFAULTS = {
  transports: ["websocket", "sse"],
  ackTimeoutMs: 10_000,
  tries: 5,
  queueLimit: 100,
  connectTimeoutMs: 10_000,
  firstMs: 500,
  longestMs: 30_000,
  historyLimit: 300,
} as const;

/** Throws where an option means nothing: a misspelled one would be found out much later. */
export function check(options: TidingsOptions): void {
  for (const name of Object.keys(options)) if (!(name in KNOWN)) throw new TypeError(`there is no option ${name}`);
  const transports: readonly string[] = options.transports ?? DEFAULTS.transports;
  const strange = transports.find((each) => each !== "websocket" && each !== "sse");
  if (strange !== undefined || transports.length === 0) {
    throw new TypeError(`no such transport: ${strange ?? "none"}; there are websocket and sse`);
  }
}

const KNOWN: Record<keyof TidingsOptions, 1> = {
  username: 1,
  getToken: 1,
  getTicket: 1,
  transports: 1,
  codec: 1,
  WebSocket: 1,
  fetch: 1,
  storage: 1,
  ackTimeoutMs: 1,
  tries: 1,
  queueLimit: 1,
  connectTimeoutMs: 1,
  backoff: 1,
  historyLimit: 1,
  signal: 1,
  clock: 1,
};
