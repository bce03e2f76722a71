import type { ClientMessage, Position, ServerMessage, Welcome } from "../generated/wire.js";
import type { TidingsError } from "../errors.js";

export type TransportKind = "websocket" | "sse";

/** Why a transport ended, and what that means for the next attempt. */
export interface End {
  reason: string;
  reconnect: boolean;
  code?: number | undefined;
  retryAfterMs?: number | undefined;
  /** Set where credentials or the request were refused. */
  error?: TidingsError;
}

/** What a transport reports. Nothing comes after `ended`, nor after `close` was called. */
export interface TransportEvents {
  message(message: ServerMessage): void;
  /** Anything arrived: the other side lives. */
  heard(): void;
  /** A stream said where the user's inbox stands. */
  inboxAt(position: Position): void;
  ended(end: End): void;
}

/** One connection to a server, from its opening to its end. It begins to open when it is made. */
export interface Transport {
  readonly kind: TransportKind;
  /** Whether `heartbeat` can be sent to see if the other side lives. */
  readonly probes: boolean;
  /** Sends, or throws a TidingsError for what the server would not take. */
  send(message: ClientMessage): void;
  /** Resolves when what was sent is answered, as far as it matters before another transport takes over. */
  settled(): Promise<unknown>;
  /** Ends it. With `left` the user is gone; otherwise they may be back in a moment. */
  close(left: boolean): void;
}

/** What a client is in and follows now: a stream has to ask for it when it opens. */
export interface Interest {
  rooms: ReadonlyMap<string, Position | undefined>;
  channels: readonly string[];
  inbox: Position | undefined;
}

export type { ClientMessage, ServerMessage, Welcome };
