/** Encodes messages to frames. JSON is built in; MessagePack is in `@tidings/client/msgpack`. */
export interface Codec {
  /** Name of the WebSocket subprotocol. */
  readonly subprotocol: string;
  encode(message: unknown): string | Uint8Array<ArrayBuffer>;
  decode(frame: string | ArrayBuffer): unknown;
}

export const json: Codec = {
  subprotocol: "tidings.v1.json",
  encode: (message) => JSON.stringify(message),
  decode(frame) {
    if (typeof frame !== "string") throw new TypeError("a binary frame under the JSON subprotocol");
    return JSON.parse(frame) as unknown;
  },
};

/** Returns the size of a frame in bytes, as the server counts it. */
export function frameBytes(frame: string | Uint8Array): number {
  return typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
}
