import type { WebSocketConstructor } from "@tidings/client";

/** A WebSocket that the page can cut, to show how the client reconnects. */
export class Interruptible {
  #socket: WebSocket | undefined;
  readonly WebSocket: WebSocketConstructor;

  constructor() {
    const open = (url: string, protocols: string): WebSocket => (this.#socket = new WebSocket(url, protocols));
    this.WebSocket = function (url: string, protocols: string) {
      return open(url, protocols);
    } as unknown as WebSocketConstructor;
  }

  /** Cuts the connection without a close frame. The client reconnects after `ms` at the earliest. */
  cut(ms: number): boolean {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN) return false;
    const farewell = { type: "disconnect", code: 4000, reason: "cut by hand", reconnect: true, retryAfterMs: ms };
    socket.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(farewell) }));
    socket.close();
    return true;
  }
}
