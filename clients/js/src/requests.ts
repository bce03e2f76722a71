/** Requests and their answers: time limits, retries with the same id, and a queue while there is no connection. */
import type { Clock } from "./clock.js";
import { localError, TidingsError } from "./errors.js";
import type { ClientMessage, ServerMessage } from "./generated/wire.js";
import { Shared } from "./shared.js";

export interface RequestOptions {
  /** Stops waiting when it aborts. The message may have been sent already. */
  signal?: AbortSignal | undefined;
}

export interface Sending {
  /** May wait while there is no connection. */
  queued: boolean;
  /** Whether it may be sent again although it may have arrived. */
  repeatable: () => boolean;
  /** Whether it may be sent now: a room's message waits for the join. */
  ready: () => boolean;
  /** The room it belongs to. */
  topic?: string;
  /** Sent once at most, also if the answer says that it may succeed later. */
  once?: boolean;
  /** Time limit of the answer, if it has its own. */
  answerMs?: number | undefined;
}

export interface RequestSetup {
  clock: Clock;
  ackMs: number;
  tries: number;
  queueLimit: number;
  /** The server's duplicate window, less a margin. */
  duplicateMs: number;
  send(message: ClientMessage): void;
  /** Called when an answer did not arrive in time. */
  onSilence(): void;
}

type WithId = ClientMessage & { id: string };

interface Entry extends Sending {
  message: WithId;
  resolve: (answer: ServerMessage) => void;
  reject: (fault: unknown) => void;
  promise: Promise<ServerMessage>;
  shared: Shared<ServerMessage>;
  tries: number;
  firstSentAt: number | undefined;
  /** Sent on this connection, and not answered yet. */
  waiting: boolean;
  timer: unknown;
}

const RETRY_MS = 500;
const AT_ONCE: Sending = { queued: false, repeatable: () => false, ready: () => true };

export class Requests {
  /** By id, oldest first. */
  readonly #entries = new Map<string, Entry>();
  readonly #prefix = newPrefix();
  #count = 0;
  #up = false;
  #over: TidingsError | undefined;

  constructor(private readonly setup: RequestSetup) {}

  /** Returns an id that no other client has. */
  newId(): string {
    return `${this.#prefix}-${(++this.#count).toString(36)}`;
  }

  /** Sends a message and resolves with its answer; rejects with a TidingsError, or the signal's reason. */
  submit(message: ClientMessage, { signal }: RequestOptions = {}, sending: Sending = AT_ONCE): Promise<ServerMessage> {
    if (signal?.aborted) return Promise.reject(signal.reason as Error);
    if (this.#over) return Promise.reject(this.#over);
    const known = message.id === undefined ? undefined : this.#entries.get(message.id);
    if (known) {
      if (isSame(known.message, message)) return known.shared.wait(signal);
      return Promise.reject(new TidingsError({ code: "conflict", message: `another message has the id ${message.id}` }));
    }
    if (!this.#up && !sending.queued) return Promise.reject(lost("there is no connection"));
    if (!this.#up && this.unsent >= this.setup.queueLimit) {
      return Promise.reject(localError("queue_full", `${this.setup.queueLimit} messages wait for a connection`));
    }
    const entry = this.#enter({ ...message, id: message.id ?? this.newId() }, sending);
    const answer = entry.shared.wait(signal);
    this.#send(entry);
    return answer;
  }

  /** Why there will be no connection, if so: then nothing may wait. */
  get over(): TidingsError | undefined {
    return this.#over;
  }

  /** Number of messages that were never sent. */
  get unsent(): number {
    return [...this.#entries.values()].filter((entry) => entry.firstSentAt === undefined).length;
  }

  /** Resolves when all messages of a topic that may have arrived are settled; undefined if there are none. */
  unsettled(topic: string): Promise<unknown> | undefined {
    const open = [...this.#entries.values()].filter(
      (entry) => entry.topic === topic && entry.firstSentAt !== undefined && !entry.waiting,
    );
    return open.length > 0 ? Promise.allSettled(open.map((entry) => entry.promise)) : undefined;
  }

  /** Sends nothing more of a topic. A message already sent on this connection may still be answered. */
  drop(topic: string, fault: TidingsError): void {
    for (const entry of [...this.#entries.values()]) {
      if (entry.topic !== topic) continue;
      entry.queued = false;
      entry.repeatable = () => false;
      const gone = entry.firstSentAt === undefined ? fault : lost("not answered, and it may not be repeated any more");
      if (!entry.waiting) this.#settle(entry, () => entry.reject(gone));
    }
  }

  /** A connection opened: messages may be sent. */
  up(): void {
    this.#up = true;
    this.#over = undefined;
  }

  /** Sends the messages that are ready, oldest first. */
  flush(): void {
    for (const entry of [...this.#entries.values()]) this.#send(entry);
  }

  /** The connection ended: what may be repeated waits for the next one. */
  down(): void {
    this.#up = false;
    for (const entry of [...this.#entries.values()]) {
      this.setup.clock.clearTimeout(entry.timer);
      const sent = entry.waiting;
      entry.waiting = false;
      if (!entry.queued || (sent && !entry.repeatable())) {
        this.#settle(entry, () => entry.reject(lost("the connection was lost before the answer came; the message may have arrived")));
      }
    }
  }

  /** There will be no connection: rejects all messages, and later ones, until `begin` or `up`. */
  end(fault: TidingsError): void {
    this.down();
    this.#over = fault;
    for (const entry of [...this.#entries.values()]) this.#settle(entry, () => entry.reject(fault));
  }

  /** Messages may wait again. */
  begin(): void {
    this.#over = undefined;
  }

  /** Handles a message with an id. Returns the request that it answers, if there is one. */
  onAnswer(answer: ServerMessage & { id?: string }): WithId | undefined {
    const entry = answer.id === undefined ? undefined : this.#entries.get(answer.id);
    if (!entry) return undefined;
    if (answer.type !== "error") this.#settle(entry, () => entry.resolve(answer));
    else if (answer.retryable && entry.queued && !entry.once && entry.tries < this.setup.tries) {
      this.#later(entry, answer.retryAfterMs ?? RETRY_MS);
    } else this.#settle(entry, () => entry.reject(new TidingsError(answer)));
    return entry.message;
  }

  #enter(message: WithId, sending: Sending): Entry {
    const settlers: Partial<Pick<Entry, "resolve" | "reject">> = {};
    const promise = new Promise<ServerMessage>((resolve, reject) => Object.assign(settlers, { resolve, reject }));
    const entry: Entry = {
      ...sending,
      ...(settlers as Pick<Entry, "resolve" | "reject">),
      message,
      promise,
      shared: new Shared(promise, () => this.#settle(entry, () => undefined)),
      tries: 0,
      firstSentAt: undefined,
      waiting: false,
      timer: undefined,
    };
    this.#entries.set(message.id, entry);
    return entry;
  }

  #send(entry: Entry): void {
    const { clock, duplicateMs, ackMs } = this.setup;
    if (!this.#up || entry.waiting || !entry.ready() || this.#entries.get(entry.message.id) !== entry) return;
    const now = clock.now();
    if (entry.firstSentAt !== undefined && now - entry.firstSentAt > duplicateMs) {
      // The duplicate window is over: a repeat would be a second message.
      return this.#settle(entry, () => entry.reject(lost("not answered for so long that it must not be repeated")));
    }
    entry.firstSentAt ??= now;
    entry.waiting = true;
    entry.tries++;
    clock.clearTimeout(entry.timer);
    entry.timer = clock.setTimeout(() => this.#unanswered(entry), entry.answerMs ?? ackMs);
    try {
      this.setup.send(entry.message);
    } catch (fault) {
      this.#settle(entry, () => entry.reject(fault));
    }
  }

  #unanswered(entry: Entry): void {
    this.setup.onSilence();
    if (!entry.repeatable() || entry.tries >= this.setup.tries) {
      this.#settle(entry, () => entry.reject(localError("timeout", "no answer came in time")));
    } else this.#later(entry, 0);
  }

  #later(entry: Entry, ms: number): void {
    const { clock } = this.setup;
    clock.clearTimeout(entry.timer);
    entry.waiting = false;
    entry.timer = clock.setTimeout(() => this.#send(entry), ms + clock.random() * RETRY_MS);
  }

  #settle(entry: Entry, report: () => void): void {
    this.setup.clock.clearTimeout(entry.timer);
    if (this.#entries.get(entry.message.id) === entry) this.#entries.delete(entry.message.id);
    report();
  }
}

/** Whether two messages with one id have the same destination, in which ids are unique. */
function isSame(one: ClientMessage, other: ClientMessage): boolean {
  const placeOf = (message: ClientMessage): unknown[] => {
    const { type, room, targetUserId } = message as { type: string; room?: string; targetUserId?: string };
    return [type, room, targetUserId];
  };
  return String(placeOf(one)) === String(placeOf(other));
}

function lost(message: string): TidingsError {
  return localError("connection_lost", message);
}

function newPrefix(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(36).padStart(2, "0")).join("");
}
