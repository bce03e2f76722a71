import type { Channels } from "./channels.js";
import { Emitter } from "./emitter.js";
import type { PresenceList, ServerMessage, User } from "./generated/wire.js";
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

  /** While a list comes in parts: who is in it so far. Nobody has left before its last part says so. */
  #listed: Set<string> | undefined;

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
    this.#listed = undefined;
    this.synced.set(false);
  }

  /** @internal Takes any message; those of other scopes change nothing. */
  take(message: ServerMessage): void {
    switch (message.type) {
      case "presence_list":
        if (message.room === this.room) this.#takeList(message);
        return;
      case "user_online":
        if (message.room !== this.room) return;
        this.#listed?.add(message.user.userId);
        this.#put(message.user);
        return;
      case "user_offline":
        if (message.room !== this.room) return;
        this.#listed?.delete(message.userId);
        this.#remove(message.userId);
        return;
      case "status_changed":
        return this.#change(message.userId, { status: message.status });
      case "presence_updated":
        return this.#change(message.userId, { customData: message.customData });
    }
  }

  #takeList({ users, count, part, more }: PresenceList): void {
    this.count.set(count);
    const before = this.users.get();
    if (count !== undefined && !part && !more) {
      // Too many to be told: who is here is not known any more, which is not that they have left.
      this.#listed = undefined;
      this.users.set(new Map());
      this.synced.set(true);
      return;
    }
    const listed = (part ? this.#listed : undefined) ?? new Set<string>();
    for (const user of users) listed.add(user.userId);
    const after = new Map(before);
    for (const user of users) after.set(user.userId, user);
    const gone = more ? [] : [...before.values()].filter((user) => !listed.has(user.userId));
    for (const user of gone) after.delete(user.userId);
    this.#listed = more ? listed : undefined;
    this.users.set(after);
    if (!more) this.synced.set(true);
    for (const user of gone) this.emit("leave", user);
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
