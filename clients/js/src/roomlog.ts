/** Where a client stands in the log of one room. Pure; it decides what is shown, and once. */
import type { Ack, JoinedRoom, Position, RoomMessage } from "./generated/wire.js";

/**
 * After so long an own message, stored and acknowledged, is surely preceded by nothing that is still on its way to us:
 * the position may move past it. Before, the message in front of it may yet come.
 */
const SETTLED_MS = 10_000;
const MOST_OWN = 1000;

export class RoomLog {
  #position: Position | undefined;
  /** Own messages after the position, which the server does not send to this connection: when each was stored. */
  readonly #own = new Map<number, number>();

  get position(): Position | undefined {
    return this.#position;
  }

  /** Takes a message; false if it was shown before, or is our own. */
  accept(message: RoomMessage): boolean {
    const { seq } = message;
    if (seq === undefined || !this.#position) return true;
    if (seq <= this.#position.seq) return false;
    return !this.#moveTo(seq);
  }

  /** An own message was stored. */
  stored({ epoch, seq }: Ack, now: number): void {
    if (!this.#position || seq === undefined || epoch !== this.#position.epoch || seq <= this.#position.seq) return;
    this.#own.set(seq, now);
    const [oldest] = this.#own.keys();
    if (this.#own.size > MOST_OWN && oldest !== undefined) this.#own.delete(oldest);
  }

  /** Returns from where to resume; `heardAt` is when the last connection was last known to live. */
  since(heardAt: number): Position | undefined {
    for (const [seq, storedAt] of [...this.#own].sort(([one], [other]) => one - other)) {
      if (this.#position && storedAt <= heardAt - SETTLED_MS && seq > this.#position.seq) this.#moveTo(seq);
    }
    return this.#position;
  }

  /** Takes the answer to a join, after what was missed; true if messages may be missing. */
  joined({ epoch, seq, recovered }: JoinedRoom): boolean {
    const before = this.#position;
    if (epoch === undefined || seq === undefined) {
      this.#position = undefined;
      return false;
    }
    const whole = recovered === true && epoch === before?.epoch;
    if (whole) {
      if (seq > before.seq) this.#moveTo(seq);
      return false;
    }
    this.#own.clear();
    this.#position = { epoch, seq };
    return before !== undefined && !(epoch === before.epoch && seq === before.seq);
  }

  /** Returns whether the message there is our own. */
  #moveTo(seq: number): boolean {
    const own = this.#own.has(seq);
    for (const each of [...this.#own.keys()]) if (each <= seq) this.#own.delete(each);
    if (this.#position) this.#position = { epoch: this.#position.epoch, seq };
    return own;
  }
}
