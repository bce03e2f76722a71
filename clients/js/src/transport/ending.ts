import { TidingsError } from "../errors.js";
import type { End } from "./transport.js";

/** Returns the End for an error while opening: a refusal is final, any other error is retried. */
export function endOf(fault: unknown): End {
  const reason = fault instanceof Error ? fault.message : String(fault);
  if (fault instanceof TidingsError) {
    return { reason, reconnect: fault.retryable, retryAfterMs: fault.retryAfterMs, error: fault };
  }
  return { reason, reconnect: true };
}
