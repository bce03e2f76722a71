import type { Channels } from "./channels.js";
import { Emitter } from "./emitter.js";
import type { PresenceList, ServerMessage, User } from "./generated/wire.js";
import { Store } from "./store.js";

export interface PresenceEvents {
  /** A user came online, or joined the room; also while this client had no connection. */
  enter: User;
  /** A user went offline, or left the room. The value is the last one known. */
  leave: User;
  /** A user's name, status or custom data changed. */
  update: User;
}

export type Users = ReadonlyMap<string, User>;

/** The users who are online, or who are in one room. Updated while it is watched. */
export class Presence extends Emitter<PresenceEvents> {
  /** Users by id. Each change makes a new map, so that two can be compared. */
  readonly users = new Store<Users>(new Map());
  /** The number of users, where the server sends it: for long lists, and for those too long to be sent. */
  readonly count = new Store<number | undefined>(undefined);
  /** Whether `users` is current: false before the first list, and while there is no connection. */
  readonly synced = new Store(false);

  /** User ids in the parts of a list so far. A user is only known to be gone after the last part. */
  #listed: Set<string> | undefined;

  /** @internal */
  constructor(
    private readonly channels: Channels,
    /** The room, or undefined for all users. */
    readonly room: string | undefined,
  ) {
    super();
  }

  /** Subscribes until the returned function is called, or `signal` aborts. Watchers are counted. */
  watch(options: { signal?: AbortSignal } = {}): () => void {
    const channel = this.room === undefined ? "presence" : `presence:${this.room}`;
    return this.channels.hold(channel, options.signal);
  }

  /** @internal */
  onDown(): void {
    this.#listed = undefined;
    this.synced.set(false);
  }

  /** @internal Accepts any message and ignores those of other scopes. */
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
      // The list is too long to be sent: the users are unknown from now on, but they have not left.
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

  /** A change of a user who is not in this list is of another scope. */
  #change(userId: string, change: Partial<User>): void {
    const known = this.users.get().get(userId);
    if (known) this.#put({ ...known, ...change });
  }

  #announce(before: User | undefined, after: User): void {
    if (!before) this.emit("enter", after);
    else if (JSON.stringify(before) !== JSON.stringify(after)) this.emit("update", after);
  }
}
