import type { RoomMessage } from "../generated/wire.js";
import type { Room } from "../room.js";
import { Store } from "../store.js";

/** The newest messages of a room, in order, each once. */
export class Messages {
  readonly shown = new Store<readonly RoomMessage[]>([]);

  constructor(
    private readonly room: Room,
    private readonly limit: number,
    private readonly past: boolean,
  ) {}

  /** Collects until the returned function is called. */
  follow(): () => void {
    const gone = new AbortController();
    const { signal } = gone;
    this.room.on("message", (message) => this.#add([message]), { signal });
    if (this.past) {
      const load = (): void => this.#load(signal);
      this.room.on("joined", ({ recovered }) => !recovered && load(), { signal });
      this.room.on("gap", load, { signal });
      if (this.room.state.get() === "joined") load();
    }
    return () => gone.abort();
  }

  #load(signal: AbortSignal): void {
    this.room.history({ limit: this.limit, signal }).then(
      ({ messages }) => this.#add(messages),
      () => undefined, // what cannot be read is not shown; live messages come all the same
    );
  }

  #add(messages: readonly RoomMessage[]): void {
    const all = [...this.shown.get(), ...messages];
    const [newest] = messages;
    const before = this.shown.get().at(-1);
    // Live messages come in order; only history has to be put in its place.
    const inPlace = messages.length === 1 && (newest?.seq ?? Infinity) > (before?.seq ?? 0);
    this.shown.set((inPlace ? all : ordered(all)).slice(-this.limit));
  }
}

/** Sorts by sequence and drops repeats; messages of ephemeral rooms have none and stay where they are. */
function ordered(messages: readonly RoomMessage[]): RoomMessage[] {
  if (messages.some(({ seq }) => seq === undefined)) return [...messages];
  const bySeq = new Map(messages.map((message) => [message.seq ?? 0, message]));
  return [...bySeq.values()].sort((one, other) => (one.seq ?? 0) - (other.seq ?? 0));
}
