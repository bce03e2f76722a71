import type { Channels } from "./channels.js";
import { Emitter } from "./emitter.js";
import type { ServerMessage, User } from "./generated/wire.js";
import { Store } from "./store.js";

export interface PresenceEvents {
  /** Somebody came, also between two connections of ours. */
  enter: User;
  /** Somebody went: as they were last seen. */
  leave: User;
  /** Somebody's name, status or data changed. */
  update: User;
}

export type Users = ReadonlyMap<string, User>;

/** Who is online, or in one room: a map that follows the server while somebody watches it. */
export class Presence extends Emitter<PresenceEvents> {
  /** By user id. Each change makes a new map, so that two can be compared. */
  readonly users = new Store<Users>(new Map());
  /** How many there are, where the server says so: of long lists, and of those too long to be told at all. */
  readonly count = new Store<number | undefined>(undefined);
  /** Whether `users` is what the server has now, as far as we know. */
  readonly synced = new Store(false);

  /** @internal */
  constructor(
    private readonly channels: Channels,
    /** The room, or undefined for everyone. */
    readonly room: string | undefined,
  ) {
    super();
  }

  /** Follows the server until the returned function is called, or `signal` aborts. Watchers are counted. */
  watch(options: { signal?: AbortSignal } = {}): () => void {
    const channel = this.room === undefined ? "presence" : `presence:${this.room}`;
    return this.channels.hold(channel, options.signal);
  }

  /** @internal */
  onDown(): void {
    this.synced.set(false);
  }

  /** @internal Takes any message; those of other scopes change nothing. */
  take(message: ServerMessage): void {
    switch (message.type) {
      case "presence_list":
        // A long list comes in parts, each of which adds to those before it.
        if (message.room === this.room) {
          this.count.set(message.count);
          this.#replace(message.part ? [...this.users.get().values(), ...message.users] : message.users);
        }
        return;
      case "user_online":
        if (message.room === this.room) this.#put(message.user);
        return;
      case "user_offline":
        if (message.room === this.room) this.#remove(message.userId);
        return;
      case "status_changed":
        return this.#change(message.userId, { status: message.status });
      case "presence_updated":
        return this.#change(message.userId, { customData: message.customData });
    }
  }

  #replace(users: readonly User[]): void {
    const before = this.users.get();
    const after = new Map(users.map((user) => [user.userId, user]));
    this.users.set(after);
    this.synced.set(true);
    for (const user of before.values()) if (!after.has(user.userId)) this.emit("leave", user);
    for (const user of users) this.#announce(before.get(user.userId), user);
  }

  #put(user: User): void {
    const before = this.users.get();
    this.users.set(new Map(before).set(user.userId, user));
    this.#announce(before.get(user.userId), user);
  }

  #remove(userId: string): void {
    const gone = this.users.get().get(userId);
    if (!gone) return;
    const after = new Map(this.users.get());
    after.delete(userId);
    this.users.set(after);
    this.emit("leave", gone);
  }

  /** Changes of users who are not here are of another scope. */
  #change(userId: string, change: Partial<User>): void {
    const known = this.users.get().get(userId);
    if (known) this.#put({ ...known, ...change });
  }

  #announce(before: User | undefined, after: User): void {
    if (!before) this.emit("enter", after);
    else if (JSON.stringify(before) !== JSON.stringify(after)) this.emit("update", after);
  }
}
