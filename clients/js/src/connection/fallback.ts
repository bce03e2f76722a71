import type { TransportKind } from "../transport/transport.js";

/** Failed WebSocket attempts in a row after which SSE is tried. */
const DOUBTS = 2;
/** The same where a WebSocket has worked before: then the server is more likely down than the path blocked. */
const DOUBTS_IF_PROVEN = 4;
/** Time on the fallback before the preferred transport is tried again; doubled after each failure. */
const PAUSE_MS = 120_000;
const LONGEST_PAUSE_MS = 3_600_000;

/** Chooses the transport of each attempt: the one that worked last; after some failures both in turn. Pure. */
export class Fallback {
  #failures = 0;
  #probes = 0;
  #proven = false;

  /** `last`: the transport of the last connection, of this client or an earlier one. */
  constructor(
    private readonly kinds: readonly TransportKind[],
    private last?: TransportKind,
  ) {}

  choose(): TransportKind {
    const [first = "websocket", second] = this.kinds;
    if (second === undefined) return first;
    const beyond = this.#failures - (this.last === second ? 0 : this.#proven ? DOUBTS_IF_PROVEN : DOUBTS);
    return beyond >= 0 && beyond % 2 === 0 ? second : first;
  }

  /** Returns the transport to try beside a slow one: some proxies drop upgrades without an answer. */
  rival(kind: TransportKind): TransportKind | undefined {
    return this.isFallback(kind) || this.#proven ? undefined : this.kinds[1];
  }

  /** Whether a transport is not the preferred one. */
  isFallback(kind: TransportKind): boolean {
    return kind !== (this.kinds[0] ?? "websocket");
  }

  failed(): void {
    this.#failures++;
  }

  worked(kind: TransportKind): void {
    this.last = kind;
    this.#failures = 0;
    this.#proven = !this.isFallback(kind);
    if (this.#proven) this.#probes = 0;
  }

  /** The preferred transport was tried beside the fallback, and failed. */
  probed(): void {
    this.#probes++;
  }

  /** Time before the preferred transport is tried again, in milliseconds. */
  get pauseMs(): number {
    return Math.min(LONGEST_PAUSE_MS, PAUSE_MS * 2 ** this.#probes);
  }
}
