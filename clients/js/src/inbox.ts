import { Emitter } from "./emitter.js";
import { TidingsError } from "./errors.js";
import type { ClientMessage, DirectMessage, Position, ServerMessage, Welcome } from "./generated/wire.js";

export interface InboxEvents {
  message: DirectMessage;
  /** Messages may be missing: those sent while there was no connection could not be recovered. */
  gap: { position: Position | undefined };
}

/** Direct messages to this user, resumed across connections. */
export class Inbox extends Emitter<InboxEvents> {
  #position: Position | undefined;
  #userId = "";
  /** The inbox's position when this connection opened. */
  #welcomed: Position | undefined;
  /** Live messages that arrived before the answer with the missed ones. */
  #held: DirectMessage[] | undefined;

  /** @internal */
  constructor(private readonly ask: (message: ClientMessage) => Promise<ServerMessage>) {
    super();
  }

  /** Everything up to here was received. */
  get position(): Position | undefined {
    return this.#position;
  }

  /** @internal */
  onUp(welcome: Welcome): void {
    // A position is only valid in the inbox of its own user.
    const same = !this.#userId || welcome.userId === this.#userId;
    this.#userId = welcome.userId;
    const since = same ? this.#position : undefined;
    if (!since) {
      this.#position = welcome.inbox;
      this.#held = undefined;
      return;
    }
    this.#held = [];
    this.ask({ type: "subscribe", channel: "inbox", since }).catch((fault: unknown) => {
      if (fault instanceof TidingsError && fault.code === "connection_lost") return; // the next connection resumes
      this.onResumed({ recovered: false }, welcome.inbox);
    });
    this.#welcomed = welcome.inbox;
  }

  /** @internal The inbox's position, from an SSE stream; over WebSocket `welcome` has it. */
  onPosition(position: Position): void {
    this.#welcomed = position;
    this.#position ??= position;
  }

  /** @internal */
  onResumed(answer: { recovered?: boolean; missed?: DirectMessage[] }, inbox = this.#welcomed): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    if (answer.recovered === false) {
      this.#position = inbox;
      this.emit("gap", { position: inbox });
    }
    for (const message of [...(answer.missed ?? []), ...held]) this.take(message);
  }

  /** @internal */
  take(message: DirectMessage): void {
    if (this.#held) return void this.#held.push(message);
    if (message.seq !== undefined && this.#position) {
      if (message.seq <= this.#position.seq) return; // a repeat
      this.#position = { epoch: this.#position.epoch, seq: message.seq };
    }
    this.emit("message", message);
  }
}
