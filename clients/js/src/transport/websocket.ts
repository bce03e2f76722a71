import { frameBytes, type Codec } from "../codec.js";
import { mayReconnect } from "../connection/codes.js";
import type { Endpoint } from "../endpoint.js";
import { TidingsError } from "../errors.js";
import type { ClientMessage, Disconnect, ServerMessage } from "../generated/wire.js";
import { endOf } from "./ending.js";
import type { Transport, TransportEvents } from "./transport.js";

/** The part of the standard WebSocket that the client uses: of browsers, Node.js, or the package `ws`. */
export interface WebSocketLike {
  binaryType: string;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols: string) => WebSocketLike;

export interface WebSocketSetup {
  endpoint: Endpoint;
  WebSocket: WebSocketConstructor;
  codec: Codec;
  /** Returns the query parameters of the user's identity. May reject. */
  identity(signal: AbortSignal): Promise<Record<string, string | undefined>>;
}

const NO_CLOSE_FRAME = 1006;
const LEFT = 1000;

export function openWebSocket(setup: WebSocketSetup, events: TransportEvents): Transport {
  const gone = new AbortController();
  let socket: WebSocketLike | undefined;
  let farewell: Disconnect | undefined;
  let maxMessageBytes = Infinity;

  const opening = async (): Promise<void> => {
    const query = await setup.identity(gone.signal);
    if (gone.signal.aborted) return;
    socket = new setup.WebSocket(setup.endpoint.ws(query), setup.codec.subprotocol);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (!gone.signal.aborted) take(data as string | ArrayBuffer);
    };
    socket.onclose = ({ code, reason }) => finish(code, reason);
    socket.onerror = () => undefined; // `onclose` follows, with the code
  };
  opening().catch((fault: unknown) => {
    if (!gone.signal.aborted) end(() => events.ended(endOf(fault)));
  });

  const end = (report: () => void): void => {
    gone.abort();
    report();
  };

  const take = (frame: string | ArrayBuffer): void => {
    events.heard();
    let message: ServerMessage;
    try {
      message = setup.codec.decode(frame) as ServerMessage;
      if (typeof message.type !== "string") throw new TypeError("no message");
    } catch {
      socket?.close();
      return finish(NO_CLOSE_FRAME, "a frame could not be read");
    }
    if (message.type === "disconnect") farewell = message;
    if (message.type === "welcome") maxMessageBytes = message.maxMessageBytes;
    events.message(message);
  };

  const finish = (code: number, reason: string): void => {
    if (gone.signal.aborted) return;
    end(() =>
      events.ended({
        code: farewell?.code ?? code,
        reason: farewell?.reason ?? (reason || (code === NO_CLOSE_FRAME ? "connection lost" : `closed with ${code}`)),
        reconnect: farewell?.reconnect ?? mayReconnect(code),
        retryAfterMs: farewell?.retryAfterMs,
      }),
    );
  };

  return {
    kind: "websocket",
    probes: true,
    send(message: ClientMessage) {
      const frame = setup.codec.encode(message);
      if (frameBytes(frame) > maxMessageBytes) {
        // The server would close the connection, and the message would be sent again on the next one.
        throw new TidingsError({ code: "too_large", message: `the message is larger than ${maxMessageBytes} bytes` });
      }
      socket?.send(frame);
    },
    settled: () => Promise.resolve(),
    close(left: boolean) {
      gone.abort();
      socket?.close(...(left ? ([LEFT] as const) : []));
    },
  };
}
