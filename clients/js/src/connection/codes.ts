import { RECONNECTS } from "../generated/codes.js";

/** Close code of a token that ran out: a new one is asked for before the next attempt. */
export const TOKEN_EXPIRED = 4002;

/** Whether to come back after a close code. What the table does not know (1006: no close frame) is an accident. */
export function mayReconnect(code: number): boolean {
  return code >= 4000 ? code < 4500 : (RECONNECTS[code] ?? true);
}
