import type { TransportKind } from "../transport/transport.js";

/** How many attempts over WebSocket may fail in a row before a stream is tried. */
const DOUBTS = 2;
/** The same where WebSockets have worked before: then the server is away, not the way to it blocked. */
const DOUBTS_IF_PROVEN = 4;

/** Chooses the transport of each attempt: WebSocket, and after some failures a stream every other time. Pure. */
export class Fallback {
  #failures = 0;
  #proven = false;

  constructor(private readonly kinds: readonly TransportKind[]) {}

  choose(): TransportKind {
    const [first = "websocket", second] = this.kinds;
    if (second === undefined) return first;
    const beyond = this.#failures - this.#doubts;
    return beyond >= 0 && beyond % 2 === 0 ? second : first;
  }

  /** Whether a transport is second best. */
  isFallback(kind: TransportKind): boolean {
    return kind !== (this.kinds[0] ?? "websocket");
  }

  failed(): void {
    this.#failures++;
  }

  /** After a stream WebSocket gets one more try, not several. */
  worked(kind: TransportKind): void {
    this.#proven = !this.isFallback(kind);
    this.#failures = this.#proven ? 0 : this.#doubts - 1;
  }

  get #doubts(): number {
    return this.#proven ? DOUBTS_IF_PROVEN : DOUBTS;
  }
}
