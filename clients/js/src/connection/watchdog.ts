/**
 * Detects a dead connection that no close has reported. Pure: times are passed in.
 *
 * Pages cannot see the server's pings, so after one heartbeat interval of silence the client sends a `heartbeat` that
 * the server answers. Browsers run timers of hidden tabs late, and a sleeping laptop runs none: a late turn proves
 * nothing about the server, so the probe is repeated once before the connection counts as dead.
 */
export type Verdict = "fine" | "probe" | "dead";

export const TURN_MS = 5000;
const LATE_MS = 2 * TURN_MS;

export class Watchdog {
  #heardAt: number;
  #turnAt: number;
  #probedAt: number | undefined;
  #patience = 1;

  /** `probes`: whether the transport can probe; if not, it is dead after three silent intervals. */
  constructor(
    now: number,
    private readonly intervalMs: number,
    private readonly answerMs: number,
    private readonly probes: boolean,
  ) {
    this.#heardAt = this.#turnAt = now;
  }

  get heardAt(): number {
    return this.#heardAt;
  }

  heard(now: number): void {
    this.#heardAt = now;
    this.#probedAt = undefined;
    this.#patience = 1;
  }

  /** Call every `TURN_MS`. */
  turn(now: number): Verdict {
    const late = now - this.#turnAt > LATE_MS;
    this.#turnAt = now;
    if (!this.probes) {
      if (late) this.#heardAt = Math.max(this.#heardAt, now - 2 * this.intervalMs);
      return now - this.#heardAt > 3 * this.intervalMs ? "dead" : "fine";
    }
    if (this.#probedAt === undefined) return now - this.#heardAt >= this.intervalMs ? this.probe(now) : "fine";
    if (now - this.#probedAt < this.answerMs) return "fine";
    if (late && this.#patience > 0) {
      this.#patience--;
      return this.probe(now);
    }
    return "dead";
  }

  /** Probes now, because a request was not answered or the page woke. */
  probe(now: number): Verdict {
    if (!this.probes) return "fine";
    this.#probedAt = now;
    return "probe";
  }
}
