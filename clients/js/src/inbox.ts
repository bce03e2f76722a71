import { Emitter } from "./emitter.js";
import { TidingsError } from "./errors.js";
import type { ClientMessage, DirectMessage, Position, ServerMessage, Welcome } from "./generated/wire.js";

export interface InboxEvents {
  message: DirectMessage;
  /** Messages may be missing: what came while we were away could not be recovered. */
  gap: { position: Position | undefined };
}

/** Direct messages to this user, resumed across connections. */
export class Inbox extends Emitter<InboxEvents> {
  #position: Position | undefined;
  #userId = "";
  /** Where the inbox stood when this connection began. */
  #welcomed: Position | undefined;
  /** What came live before it was known what was missed. */
  #held: DirectMessage[] | undefined;

  /** @internal */
  constructor(private readonly ask: (message: ClientMessage) => Promise<ServerMessage>) {
    super();
  }

  /** After which message the next one comes. */
  get position(): Position | undefined {
    return this.#position;
  }

  /** @internal */
  onUp(welcome: Welcome): void {
    // Another user's positions mean nothing in this one's inbox.
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
      if (fault instanceof TidingsError && fault.code === "connection_lost") return; // the next one resumes
      this.onResumed({ recovered: false }, welcome.inbox);
    });
    this.#welcomed = welcome.inbox;
  }

  /** @internal The stream says where the inbox stands, which `welcome` of a WebSocket does. */
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
      if (message.seq <= this.#position.seq) return; // known
      this.#position = { epoch: this.#position.epoch, seq: message.seq };
    }
    this.emit("message", message);
  }
}
