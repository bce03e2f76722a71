import type { Clock } from "./clock.js";
import { Emitter } from "./emitter.js";
import { localError, TidingsError, type LocalErrorCode } from "./errors.js";
import type {
  Ack,
  ClientMessage,
  JoinedRoom,
  Position,
  RoomMessage,
  RoomPast,
  UserJoined,
  UserLeft,
} from "./generated/wire.js";
import { Joining, type JoinOptions, type JoinRequest } from "./joining.js";
import { RoomLog } from "./roomlog.js";
import type { Presence } from "./presence.js";
import type { RequestOptions, Sending } from "./requests.js";
import { Store } from "./store.js";

export type RoomState =
  | "left"
  | "joining" // not a member yet, or not connected
  | "joined"
  | "refused" // the server refused; only another `join` tries again
  | "removed"; // the server ended the membership; only another `join` tries again

export interface RoomEvents {
  message: RoomMessage;
  /** This client is a member now. `recovered`: no message was missed since the last connection. */
  joined: { recovered: boolean | undefined };
  /** Messages may be missing. `history()` reads those that are still stored. */
  gap: { position: Position | undefined };
  /** The first connection of a user joined. */
  userJoined: UserJoined;
  /** The last connection of a user left. */
  userLeft: UserLeft;
  refused: TidingsError;
  /** The server ended the membership: `removed` by an administrator, or `expired` with the room's token. */
  removed: { reason: string };
}

export interface PublishOptions extends RequestOptions {
  /** Receive the message like every other member. */
  echo?: boolean;
  /** Message id, unique per user and room: a repeated one is not stored again within two minutes. */
  id?: string;
}

export interface HistoryOptions extends RequestOptions {
  /** Number of messages at most. */
  limit?: number;
  /** Only messages with a lower sequence. */
  before?: number;
  /** Only messages with a higher sequence. */
  since?: number;
}

/** @internal What a room needs from its client. */
export interface RoomSetup {
  clock: Clock;
  isUp(): boolean;
  heardAt(): number;
  submit(message: ClientMessage, options?: RequestOptions, sending?: Sending): Promise<unknown>;
  drop(topic: string, fault: TidingsError): void;
  /** Why there will be no connection, if so. */
  over(): TidingsError | undefined;
  flush(): void;
  unsettled(topic: string): Promise<unknown> | undefined;
  history(room: string, options: HistoryOptions): Promise<RoomPast>;
  presence(room: string): Presence;
}

const RETRY_MS = 1000;
/** Delay of a leave: a component that is unmounted and mounted again should not leave and join. */
const LINGER_MS = 100;

/** Longest wait for the answers to repeated messages, before the missed ones are delivered. */
const HELD_MS = 5000;

interface Waiter {
  resolve: (history: RoomMessage[]) => void;
  reject: (fault: unknown) => void;
}

/** One room. Joined on every connection, from `join` or `hold` on. */
export class Room extends Emitter<RoomEvents> {
  readonly state = new Store<RoomState>("left");
  #log = new RoomLog();
  #holders = 0;
  /** The server joined the room for this user: until the connection ends. */
  #invited = false;
  #durable = false;
  #joining = new Joining();
  /** Number of the current attempt to join: a token that comes later is of no use. */
  #attempt = 0;
  #gone = new AbortController();
  #refusal: TidingsError | undefined;
  readonly #waiters = new Set<Waiter>();
  /** Live messages that wait until it is known which of the missed messages are our own. */
  #held: RoomMessage[] | undefined;
  #timer: unknown;

  /** @internal */
  constructor(
    readonly name: string,
    private readonly setup: RoomSetup,
  ) {
    super();
  }

  /** Everything up to here was received. Undefined in an ephemeral room and before the first join. */
  get position(): Position | undefined {
    return this.#log.position;
  }

  /** The users in the room; call `watch()` to follow them. */
  get presence(): Presence {
    return this.setup.presence(this.name);
  }

  /** Why the server refused the room, or ended the membership, if it did. */
  get refusal(): TidingsError | undefined {
    return this.#refusal;
  }

  /** @internal */
  get wanted(): boolean {
    return (this.#holders > 0 || this.#invited) && this.state.get() !== "removed";
  }

  /** @internal The request to join, if this client is a member or is about to be. */
  get request(): JoinRequest | undefined {
    if (!this.wanted || this.state.get() === "refused" || this.#joining.lacksToken) return undefined;
    return this.#joining.request(this.position);
  }

  /**
   * Joins the room on this and every later connection, with the same options, until `leave`. Resolves when joined, with
   * the `history` requested; rejects if refused. In a room that is already joined, new `data` replaces the old.
   */
  join({ signal, ...options }: JoinOptions & RequestOptions = {}): Promise<RoomMessage[]> {
    if (signal?.aborted) return Promise.reject(signal.reason as Error);
    try {
      const renewed = this.#want(1, options, signal);
      if (renewed) return renewed;
    } catch (fault) {
      return Promise.reject(fault); // `data` is no JSON
    }
    const over = this.setup.over();
    if (over) return Promise.reject(over);
    if (this.state.get() === "joined") return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        if (this.#waiters.delete(waiter)) reject(signal?.reason as Error);
      };
      const unlisten = (): void => signal?.removeEventListener("abort", abort); // a signal may live much longer
      const waiter = {
        resolve: (history: RoomMessage[]) => (unlisten(), resolve(history)),
        reject: (fault: unknown) => (unlisten(), reject(fault)),
      };
      this.#waiters.add(waiter);
      signal?.addEventListener("abort", abort);
    });
  }

  /** Leaves the room, also if it is held elsewhere. Waiting messages are rejected with `closed`. */
  leave(): void {
    this.#holders = 0;
    this.#exit();
  }

  /** Stays a member until the returned function is called. Holders are counted, and share the options. */
  hold(options: JoinOptions = {}): () => void {
    this.#want(this.#holders + 1, options)?.catch(() => undefined); // the data before stays
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.setup.clock.setTimeout(() => {
        this.#holders = Math.max(0, this.#holders - 1);
        if (this.#holders === 0) this.#exit();
      }, LINGER_MS);
    };
  }

  /**
   * Publishes to the members. Waits for the connection and the join. Resolves when the server has accepted the message,
   * which for durable rooms means stored. Repeated with the same id in durable rooms, never in ephemeral ones.
   */
  async publish(content: unknown, { echo, id, signal }: PublishOptions = {}): Promise<Ack> {
    if (this.#refusal) throw this.#refusal;
    if (!this.wanted) throw new TidingsError({ code: "not_in_room", message: "join the room first" });
    const sending: Sending = {
      queued: true,
      repeatable: () => this.#durable, // an ephemeral room would receive it twice
      ready: () => this.state.get() === "joined",
      topic: this.name,
    };
    const message = { type: "room_message", room: this.name, content, echo, id } as const;
    return (await this.setup.submit(message, { signal }, sending)) as Ack;
  }

  /** Reads stored messages, oldest first. */
  history(options: HistoryOptions = {}): Promise<RoomPast> {
    return this.setup.history(this.name, options);
  }

  /** @internal A connection opened: joins on it. */
  onUp(): void {
    if (this.wanted) this.#enter();
  }

  /** @internal */
  onDown(): void {
    this.setup.clock.clearTimeout(this.#timer);
    this.#attempt++;
    this.#invited = false;
    if (this.state.get() === "joined") this.state.set(this.wanted ? "joining" : "left");
  }

  /** @internal There will be no connection. */
  onEnd(fault: TidingsError): void {
    for (const { reject } of this.#drainWaiters()) reject(fault);
  }

  /** @internal Handles the answer to a join, or the server's report of lost messages. */
  onJoined(message: JoinedRoom): void {
    if (!this.wanted) {
      // Without an id and a recovery the server joined by itself; else it is late, and the room was left meanwhile.
      if (message.id !== undefined || message.recovered !== undefined) return;
      this.#invited = true;
    }
    this.#joining.succeeded();
    this.#refusal = undefined;
    this.#durable = message.epoch !== undefined;
    this.setup.clock.clearTimeout(this.#timer);
    const log = this.#log;
    const missed = message.missed ?? [];
    // Own messages without an answer are sent again now. They may be among the missed ones, and are not delivered to
    // their sender; their acks tell them apart.
    const unsettled = missed.length > 0 ? this.setup.unsettled(this.name) : undefined;
    if (unsettled) {
      const held = (this.#held = []);
      const release = (): void => {
        if (this.#held === held) this.#deliver(message);
      };
      this.#timer = this.setup.clock.setTimeout(release, HELD_MS);
      void unsettled.then(release);
    } else this.#deliver(message);
    if (this.#log !== log) return; // a listener left the room
    const entered = this.state.get() !== "joined";
    this.state.set("joined");
    for (const { resolve } of this.#drainWaiters()) resolve(message.history ?? []);
    if (entered) this.emit("joined", { recovered: message.recovered });
    this.setup.flush();
  }

  /** @internal The server ended the membership. With an expired token, it is joined again with a new one. */
  onRemoved(reason: string): void {
    if (!this.wanted) return;
    if (reason === "expired" && this.#holders > 0 && this.#joining.expire()) return this.#enter();
    this.#reset("removed", localError(reason as LocalErrorCode, `the server ended the membership: ${reason}`));
    this.emit("removed", { reason });
  }

  /** @internal */
  onMessage(message: RoomMessage): void {
    if (this.#held) this.#held.push(message);
    else if (this.wanted && this.#log.accept(message)) this.emit("message", message);
  }

  /** @internal One of this client's messages was stored. */
  onStored(ack: Ack, echo: boolean | undefined): void {
    if (!echo) this.#log.stored(ack, this.setup.clock.now());
  }

  #deliver(message: JoinedRoom): void {
    const held = this.#held ?? [];
    const log = this.#log;
    this.#held = undefined;
    for (const missed of message.missed ?? []) this.onMessage(missed);
    if (this.#log !== log) return; // a listener left the room
    const past = log.past(message);
    if (log.joined(message)) this.emit("gap", { position: this.position });
    for (const each of past) if (this.#log === log) this.emit("message", each);
    for (const live of held) if (this.#log === log) this.onMessage(live);
  }

  /** Requests the membership. Returns a promise if the room is joined already, and the options change it. */
  #want(holders: number, options: JoinOptions, signal?: AbortSignal): Promise<RoomMessage[]> | undefined {
    const before = this.#joining;
    const state = this.state.get();
    this.#joining = before.with(options);
    this.#holders = Math.max(holders, this.#holders);
    if (state === "joined") return this.#joining.isForMember(before) ? undefined : this.#renew(before, signal);
    if (state === "joining" && this.#joining === before) return undefined;
    this.#joining.succeeded();
    this.#refusal = undefined;
    this.state.set("joining");
    if (this.setup.isUp()) this.#enter();
    return undefined;
  }

  /** Joins again as a member, with other data or another token. */
  async #renew(before: Joining, signal?: AbortSignal): Promise<RoomMessage[]> {
    const given = this.#joining;
    try {
      await this.#ask(signal);
    } catch (fault) {
      // What was refused is not asked for on the next connection; what was lost is.
      const refused = fault instanceof TidingsError && !fault.retryable && fault.code !== "connection_lost";
      if (refused && this.#joining === given) {
        this.#joining = before;
        if (this.state.get() === "joined") this.#enter(); // a stream that was refused has lost the room
      }
      throw fault;
    }
    return [];
  }

  #enter(): void {
    this.#refusal = undefined;
    this.state.set("joining");
    this.#held = undefined;
    const attempt = ++this.#attempt;
    this.#ask().catch((fault: unknown) => this.#attempt === attempt && this.#failed(fault));
  }

  /** Sends a join, when there is a token if the room needs one. */
  async #ask(signal?: AbortSignal): Promise<void> {
    const attempt = this.#attempt;
    if (this.#joining.lacksToken) await this.#joining.getToken(this.#gone.signal);
    if (this.#attempt !== attempt) throw localError("connection_lost", "the connection was lost meanwhile");
    const request = this.#joining.request(this.#log.since(this.setup.heardAt()));
    await this.setup.submit({ type: "join_room", room: this.name, ...request }, { signal });
  }

  #failed(fault: unknown): void {
    if (!this.wanted) return;
    if (!(fault instanceof TidingsError) || fault.retryable) {
      const after = fault instanceof TidingsError ? fault.retryAfterMs : undefined;
      this.#timer = this.setup.clock.setTimeout(() => this.#again(), after ?? RETRY_MS);
      return;
    }
    if (fault.code === "connection_lost") return;
    if (this.#joining.mayRefresh(fault)) return this.#enter();
    this.#refusal = fault;
    this.state.set("refused");
    this.#giveUp(fault);
    this.emit("refused", fault);
  }

  #again(): void {
    if (this.wanted && this.setup.isUp() && this.state.get() === "joining") this.#enter();
  }

  #exit(): void {
    const wasThere = this.state.get();
    if (wasThere === "left") return;
    this.#reset("left", localError("closed", "the room was left"));
    this.#refusal = undefined;
    this.#joining = new Joining();
    if (wasThere !== "refused" && wasThere !== "removed" && this.setup.isUp()) {
      // It may be lost with its connection, which ends the membership as well.
      this.setup.submit({ type: "leave_room", room: this.name }).catch(() => undefined);
    }
  }

  /** The membership is over. */
  #reset(state: RoomState, fault: TidingsError): void {
    this.setup.clock.clearTimeout(this.#timer);
    this.#attempt++;
    this.#gone.abort(fault);
    this.#gone = new AbortController();
    this.#invited = false;
    this.#refusal = fault;
    this.#log = new RoomLog();
    this.#held = undefined;
    this.state.set(state);
    this.#giveUp(fault);
  }

  /** Rejects everything that waits for the join. */
  #giveUp(fault: TidingsError): void {
    for (const { reject } of this.#drainWaiters()) reject(fault);
    this.setup.drop(this.name, fault);
  }

  #drainWaiters(): Waiter[] {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    return waiters;
  }
}
