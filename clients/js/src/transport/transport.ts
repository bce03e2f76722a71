import type { ClientMessage, Position, ServerMessage, Welcome } from "../generated/wire.js";
import type { TidingsError } from "../errors.js";
import type { JoinRequest } from "../joining.js";

export type TransportKind = "websocket" | "sse";

/** Why a transport ended, and whether to reconnect. */
export interface End {
  reason: string;
  reconnect: boolean;
  code?: number | undefined;
  retryAfterMs?: number | undefined;
  /** Set where credentials or the request were refused. */
  error?: TidingsError;
}

/** Callbacks of a transport. None is called after `ended` or `close`. */
export interface TransportEvents {
  message(message: ServerMessage): void;
  /** Something arrived: the server is alive. */
  heard(): void;
  /** The inbox's position, from an SSE stream. */
  inboxAt(position: Position): void;
  ended(end: End): void;
}

/** One connection to a server, from its opening to its end. The constructor starts opening it. */
export interface Transport {
  readonly kind: TransportKind;
  /** Whether `heartbeat` can be sent as a probe. */
  readonly probes: boolean;
  /** Sends, or throws a TidingsError for what the server would not accept. */
  send(message: ClientMessage): void;
  /** Resolves when all that was sent is answered, so that another transport may take over. */
  settled(): Promise<unknown>;
  /** Closes it. `left`: the user is gone; otherwise the user may reconnect within the grace. */
  close(left: boolean): void;
}

/** The client's rooms, channels and inbox position: an SSE stream requests them when it opens. */
export interface Interest {
  rooms: Map<string, JoinRequest>;
  channels: readonly string[];
  inbox: Position | undefined;
}

export type { ClientMessage, ServerMessage, Welcome };
