import type { Clock } from "./clock.js";
import { Emitter } from "./emitter.js";
import { localError, TidingsError } from "./errors.js";
import type { Ack, ClientMessage, JoinedRoom, Position, RoomMessage, RoomPast, UserJoined, UserLeft } from "./generated/wire.js";
import { RoomLog } from "./roomlog.js";
import type { Presence } from "./presence.js";
import type { RequestOptions, Sending } from "./requests.js";
import { Store } from "./store.js";

export type RoomState =
  | "left"
  | "joining" // not a member yet, or not connected
  | "joined"
  | "refused"; // the server refused; only another `join` tries again

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
  resolve: () => void;
  reject: (fault: unknown) => void;
}

/** One room. Joined on every connection, from `join` or `hold` on. */
export class Room extends Emitter<RoomEvents> {
  readonly state = new Store<RoomState>("left");
  #log = new RoomLog();
  #holders = 0;
  #durable = false;
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

  /** @internal */
  get wanted(): boolean {
    return this.#holders > 0;
  }

  /** @internal Whether this client is a member, or is about to be. */
  get expected(): boolean {
    return this.wanted && this.state.get() !== "refused";
  }

  /** Joins the room on this and every later connection, until `leave`. Resolves when joined; rejects if refused. */
  join({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason as Error);
    this.#holders ||= 1;
    this.#want();
    const over = this.setup.over();
    if (over) return Promise.reject(over);
    return new Promise((resolve, reject) => {
      if (this.state.get() === "joined") return resolve();
      const abort = (): void => {
        if (this.#waiters.delete(waiter)) reject(signal?.reason as Error);
      };
      const unlisten = (): void => signal?.removeEventListener("abort", abort); // a signal may live much longer
      const waiter = {
        resolve: () => (unlisten(), resolve()),
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

  /** Stays a member until the returned function is called. Holders are counted. */
  hold(): () => void {
    this.#holders++;
    this.#want();
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
    if (!this.wanted) throw new TidingsError({ code: "not_in_room", message: "join the room first" });
    if (this.#refusal) throw this.#refusal;
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
    if (this.state.get() === "joined") this.state.set("joining");
  }

  /** @internal There will be no connection. */
  onEnd(fault: TidingsError): void {
    for (const { reject } of this.#drainWaiters()) reject(fault);
  }

  /** @internal Handles the answer to a join, or the server's report of lost messages. */
  onJoined(message: JoinedRoom): void {
    if (!this.wanted) return;
    this.#durable = message.epoch !== undefined;
    this.setup.clock.clearTimeout(this.#timer);
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
    const entered = this.state.get() !== "joined";
    this.state.set("joined");
    for (const { resolve } of this.#drainWaiters()) resolve();
    if (entered) this.emit("joined", { recovered: message.recovered });
    this.setup.flush();
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
    this.#held = undefined;
    for (const missed of message.missed ?? []) this.onMessage(missed);
    if (this.wanted && this.#log.joined(message)) this.emit("gap", { position: this.position });
    for (const live of held) this.onMessage(live);
  }

  #want(): void {
    if (this.state.get() === "joined" || this.state.get() === "joining") return;
    this.#refusal = undefined;
    this.state.set("joining");
    if (this.setup.isUp()) this.#enter();
  }

  #enter(): void {
    this.#refusal = undefined;
    this.state.set("joining");
    this.#held = undefined;
    const since = this.#log.since(this.setup.heardAt());
    this.setup.submit({ type: "join_room", room: this.name, since }).catch((fault: unknown) => this.#failed(fault));
  }

  #failed(fault: unknown): void {
    if (!(fault instanceof TidingsError) || fault.code === "connection_lost" || !this.wanted) return;
    if (fault.retryable) {
      this.#timer = this.setup.clock.setTimeout(() => this.#again(), fault.retryAfterMs ?? RETRY_MS);
      return;
    }
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
    this.setup.clock.clearTimeout(this.#timer);
    this.state.set("left");
    this.#log = new RoomLog();
    this.#held = undefined;
    this.#refusal = undefined;
    this.#giveUp(localError("closed", "the room was left"));
    if (wasThere !== "refused" && this.setup.isUp()) {
      // It may be lost with its connection, which ends the membership as well.
      this.setup.submit({ type: "leave_room", room: this.name }).catch(() => undefined);
    }
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
