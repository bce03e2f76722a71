import type { RoomMessage } from "../generated/wire.js";
import type { Room } from "../room.js";
import { Store } from "../store.js";

/** The newest messages of a room, in order, each once. */
export class Messages {
  readonly shown = new Store<readonly RoomMessage[]>([]);
  /** Epoch of the messages: in another one sequences start again. */
  #epoch: string | undefined;

  constructor(
    private readonly room: Room,
    private readonly limit: number,
    private readonly past: boolean,
  ) {}

  /** Collects until the returned function is called. */
  follow(): () => void {
    const gone = new AbortController();
    const { signal } = gone;
    this.#turn();
    this.room.on("gap", () => this.#turn(), { signal });
    this.room.on("joined", () => this.#turn(), { signal });
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
      ({ messages, epoch }) => {
        if (epoch === undefined || epoch === this.#epoch) this.#add(messages); // else the room has a new epoch, which is loaded as well
      },
      () => undefined, // without history, live messages are still shown
    );
  }

  /** Empties the list when the room has a new epoch. */
  #turn(): void {
    const epoch = this.room.position?.epoch;
    if (this.#epoch !== undefined && epoch !== undefined && epoch !== this.#epoch) this.shown.set([]);
    this.#epoch = epoch ?? this.#epoch;
  }

  #add(messages: readonly RoomMessage[]): void {
    const all = [...this.shown.get(), ...messages];
    const [newest] = messages;
    const before = this.shown.get().at(-1);
    // Live messages arrive in order; only history has to be sorted in.
    const inPlace = messages.length === 1 && (newest?.seq ?? Infinity) > (before?.seq ?? 0);
    this.shown.set((inPlace ? all : ordered(all)).slice(-this.limit));
  }
}

/** Sorts by sequence and drops repeats. Messages of ephemeral rooms have no sequence and keep their order. */
function ordered(messages: readonly RoomMessage[]): RoomMessage[] {
  if (messages.some(({ seq }) => seq === undefined)) return [...messages];
  const bySeq = new Map(messages.map((message) => [message.seq ?? 0, message]));
  return [...bySeq.values()].sort((one, other) => (one.seq ?? 0) - (other.seq ?? 0));
}
