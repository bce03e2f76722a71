import type { Clock } from "./clock.js";
import type { Codec } from "./codec.js";
import type { CredentialCallback } from "./credentials.js";
import type { TransportKind } from "./transport/transport.js";
import type { WebSocketConstructor } from "./transport/websocket.js";

export interface TidingsOptions {
  /** Display name, under `TIDINGS_AUTH=open`. It proves nothing. */
  username?: string;
  /** Returns a token (JWT). It is sent to the HTTP API only, which gives a ticket for each WebSocket. */
  getToken?: CredentialCallback;
  /** Returns a one-time ticket, for pages whose own server keeps the token. Called for each connection. */
  getTicket?: CredentialCallback;
  /** Transports in order of preference. Default `["websocket", "sse"]`. */
  transports?: readonly TransportKind[];
  /** Encoding of WebSocket frames. Default JSON; `@tidings/client/msgpack` has the other one. */
  codec?: Codec;
  /** The WebSocket constructor where none is built in (Node.js 20: the package `ws`). */
  WebSocket?: WebSocketConstructor;
  fetch?: typeof globalThis.fetch;
  /**
   * Keeps the session, which makes a reload the same user, and the transport that worked. Default `sessionStorage`, if
   * there is one. Null: nothing is kept.
   */
  storage?: Pick<Storage, "getItem" | "setItem"> | null;
  /** Time limit of an answer, after which the message is sent again or rejected with `timeout`. Default 10 s. */
  ackTimeoutMs?: number;
  /** Number of times a message is sent at most. Default 5. */
  tries?: number;
  /** Number of messages that may wait for a connection. Default 100. */
  queueLimit?: number;
  /** Time limit for opening a connection. Default 10 s. */
  connectTimeoutMs?: number;
  /** Longest wait before the first reconnect (default 500 ms; doubled each time) and before any (default 30 s). */
  backoff?: { firstMs?: number; longestMs?: number };
  /** Number of metrics records that are kept. Default 300. */
  historyLimit?: number;
  /** Closes the client when it aborts. */
  signal?: AbortSignal;
  /** Time and random numbers, for tests. */
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

/** Throws TypeError for an unknown option or transport: a misspelled one would be found much later. */
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
