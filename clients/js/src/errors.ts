import type { ErrorCode } from "./generated/codes.js";

/** What can go wrong on this side of the connection. */
export type LocalErrorCode =
  | "timeout" // no answer, and no more tries
  | "closed" // the client was closed
  | "queue_full" // offline, and the queue holds as much as it may
  | "connection_lost" // sent, not answered, and not safe to send again: it may have arrived
  | "blocked" // something on the way answered instead of the server
  | "unsupported"; // this transport cannot carry it

interface Fault {
  code: string;
  message: string;
  retryable?: boolean;
  retryAfterMs?: number;
}

/** Why something was not done. `code` is from the table of the protocol, or one of this side's own. */
export class TidingsError extends Error {
  readonly code: ErrorCode | LocalErrorCode | (string & {});
  /** Whether the same may succeed later; if so `retryAfterMs` may say when. */
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(fault: Fault) {
    super(fault.message);
    this.name = "TidingsError";
    this.code = fault.code;
    this.retryable = fault.retryable ?? false;
    this.retryAfterMs = fault.retryAfterMs;
  }
}

export function localError(code: LocalErrorCode, message: string): TidingsError {
  return new TidingsError({ code, message, retryable: code === "timeout" || code === "queue_full" });
}
