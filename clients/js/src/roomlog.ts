/** A client's position in the log of one room. Pure; it decides which messages are delivered, each once. */
import type { Ack, JoinedRoom, Position, RoomMessage } from "./generated/wire.js";

/**
 * Time after which nothing before an own, acknowledged message can still be on its way to this client: the position
 * may then move past it.
 */
const SETTLED_MS = 10_000;
const MOST_OWN = 1000;

export class RoomLog {
  #position: Position | undefined;
  /** When each own message after the position was stored. The server does not send those to this connection. */
  readonly #own = new Map<number, number>();

  get position(): Position | undefined {
    return this.#position;
  }

  /** Returns whether to deliver a message: false for a repeat, and for an own message. */
  accept(message: RoomMessage): boolean {
    const { seq } = message;
    if (seq === undefined || !this.#position) return true;
    if (seq <= this.#position.seq) return false;
    return !this.#moveTo(seq);
  }

  /** One of this client's messages was stored. */
  stored({ epoch, seq }: Ack, now: number): void {
    if (!this.#position || seq === undefined || epoch !== this.#position.epoch || seq <= this.#position.seq) return;
    this.#own.set(seq, now);
    const [oldest] = this.#own.keys();
    if (this.#own.size > MOST_OWN && oldest !== undefined) this.#own.delete(oldest);
  }

  /** Returns the position to resume from. `heardAt`: when the last connection was last known to be alive. */
  since(heardAt: number): Position | undefined {
    for (const [seq, storedAt] of [...this.#own].sort(([one], [other]) => one - other)) {
      if (this.#position && storedAt <= heardAt - SETTLED_MS && seq > this.#position.seq) this.#moveTo(seq);
    }
    return this.#position;
  }

  /** Returns the stored messages of an answer to a join that were not delivered before, after the missed ones. */
  past({ epoch, history = [] }: JoinedRoom): readonly RoomMessage[] {
    const { epoch: known, seq: before = 0 } = this.#position ?? {};
    return epoch === known ? history.filter(({ seq = 0 }) => seq > before) : history;
  }

  /** Handles the answer to a join, after the missed messages. Returns whether messages may be missing. */
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

  /** Moves the position. Returns whether the message there is this client's own. */
  #moveTo(seq: number): boolean {
    const own = this.#own.has(seq);
    for (const each of [...this.#own.keys()]) if (each <= seq) this.#own.delete(each);
    if (this.#position) this.#position = { epoch: this.#position.epoch, seq };
    return own;
  }
}
