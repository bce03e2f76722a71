/**
 * Notices that a connection is dead though nobody said so. Pure: times are passed in.
 *
 * The server pings, but no page sees pings; so after a silence as long as its interval we ask for a sign of life.
 * Browsers run timers of hidden tabs late, and a sleeping laptop runs none: a turn that comes late says nothing about
 * the other side, so the question is asked afresh, once, before silence is believed.
 */
export type Verdict = "fine" | "probe" | "dead";

export const TURN_MS = 5000;
const LATE_MS = 2 * TURN_MS;

export class Watchdog {
  #heardAt: number;
  #turnAt: number;
  #probedAt: number | undefined;
  #patience = 1;

  /** `probes`: whether the transport can be asked; if not, three silent intervals are the end. */
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

  /** Asks for a sign of life now, because there is reason to doubt. */
  probe(now: number): Verdict {
    if (!this.probes) return "fine";
    this.#probedAt = now;
    return "probe";
  }
}
