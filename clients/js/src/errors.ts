import type { ErrorCode } from "./generated/codes.js";

/** Error codes of the client itself. */
export type LocalErrorCode =
  | "timeout" // no answer after the last try
  | "closed" // the client was closed
  | "queue_full" // not connected, and the queue is full
  | "connection_lost" // sent but not answered; it may have arrived, and repeating it is not safe
  | "blocked" // a proxy or firewall answered instead of the server
  | "unsupported" // this transport cannot carry it
  | "removed" // the server ended the membership of a room
  | "expired"; // so did the end of the room's token

interface Fault {
  code: string;
  message: string;
  retryable?: boolean;
  retryAfterMs?: number;
}

/** Why a request failed. `code` is from the protocol's table of error codes, or a `LocalErrorCode`. */
export class TidingsError extends Error {
  readonly code: ErrorCode | LocalErrorCode | (string & {});
  /** Whether the same request may succeed later. `retryAfterMs` says when, if the server did. */
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
