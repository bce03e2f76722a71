import { RECONNECTS } from "../generated/codes.js";

/** Close code of an expired token: the client gets a new one before the next attempt. */
export const TOKEN_EXPIRED = 4002;

/** Whether to reconnect after a close code. Unknown codes (1006: no close frame) count as accidents. */
export function mayReconnect(code: number): boolean {
  return code >= 4000 ? code < 4500 : (RECONNECTS[code] ?? true);
}
