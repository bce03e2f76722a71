import { TidingsError } from "../errors.js";
import type { End } from "./transport.js";

/** Returns what a fault while opening means: refused credentials end everything, anything else may pass. */
export function endOf(fault: unknown): End {
  const reason = fault instanceof Error ? fault.message : String(fault);
  if (fault instanceof TidingsError) {
    return { reason, reconnect: fault.retryable, retryAfterMs: fault.retryAfterMs, error: fault };
  }
  return { reason, reconnect: true };
}
