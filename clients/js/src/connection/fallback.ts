import type { TransportKind } from "../transport/transport.js";

/** How many attempts over WebSocket may fail in a row before a stream is tried. */
const DOUBTS = 2;
/** The same where WebSockets have worked before: then the server is away, not the way to it blocked. */
const DOUBTS_IF_PROVEN = 4;
/** How long to stay on the second best before the best is tried again; doubled each time that fails. */
const PAUSE_MS = 120_000;
const LONGEST_PAUSE_MS = 3_600_000;

/** Chooses the transport of each attempt: what worked last, and after some failures the other one every other time. Pure. */
export class Fallback {
  #failures = 0;
  #probes = 0;
  #proven = false;

  /** `last`: what worked when this client, or one before it, was last connected. */
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

  /** Returns what to try beside a transport that takes its time: proxies swallow upgrades without a word. */
  rival(kind: TransportKind): TransportKind | undefined {
    return this.isFallback(kind) || this.#proven ? undefined : this.kinds[1];
  }

  /** Whether a transport is second best. */
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

  /** The best transport was tried beside the second best, and failed. */
  probed(): void {
    this.#probes++;
  }

  /** How long to wait before the best transport is tried again. */
  get pauseMs(): number {
    return Math.min(LONGEST_PAUSE_MS, PAUSE_MS * 2 ** this.#probes);
  }
}
