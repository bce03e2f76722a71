/**
 * The fallback: receives by Server-Sent Events, sends by HTTP. A stream names its rooms and channels when it opens, so
 * each join or subscription opens a new stream, which resumes from the old one's position. A server that refuses one
 * of them refuses the stream: then they are requested one by one, see `trial.ts`.
 *
 * Uses fetch, not EventSource, which hides the reason of a refusal, cannot send a token, and is missing in Node.js.
 */
import type { Clock } from "../clock.js";
import { localError, TidingsError } from "../errors.js";
import type { JoinRequest } from "../joining.js";
import type { Operations } from "../generated/http.js";
import type { Ack, ClientJoinRoom, ClientMessage, Disconnect, Position, RoomMessage, RpcResult, ServerMessage, Welcome } from "../generated/wire.js";
import { encodeEventId, INBOX_TOPIC, positionIn } from "./eventid.js";
import { EventStreamParser, type StreamEvent } from "./eventstream.js";
import { endOf } from "./ending.js";
import { Trial } from "./trial.js";
import type { End, Interest, Transport, TransportEvents } from "./transport.js";

export interface StreamSetup {
  clock: Clock;
  /** Opens `/events` as this user; rejects with a TidingsError if that is refused. */
  open(query: Record<string, string>, headers: Record<string, string>, signal: AbortSignal): Promise<Response>;
  /** Sends as this user; the stream `connectionId` gets no copy. */
  post(request: Post, connectionId: string, signal: AbortSignal): Promise<object>;
  interest(): Interest;
}

type Sent = Extract<
  ClientMessage,
  { type: "room_message" | "direct_message" | "broadcast" | "status_change" | "presence_update" | "rpc" }
>;

/** One message as a request: the operation and its arguments. */
export type Post = {
  [Name in keyof Operations]: [name: Name, given: Pick<Operations[Name], "body"> & { path?: Operations[Name]["path"] }];
}[Extract<keyof Operations, `POST /api/${"rooms/{room}" | "users/{userId}"}/messages` | `POST /api/${"broadcast" | "rpc"}` | `PUT /api/me/${string}`>];

const INBOX = "inbox";
const REOPEN_MS = 20; // a page joins several rooms at once
const HEARTBEAT_MS = 5000;
const SEND_MS = 10_000;
const CALL_MS = 60_000; // the application's time limit ends most calls before

export class EventStreamTransport implements Transport {
  readonly kind = "sse";
  readonly probes = false;

  readonly #gone = new AbortController();
  #request = new AbortController();
  #reopening: unknown;
  #greeted = false;
  #asked: Interest = { rooms: new Map(), channels: [], inbox: undefined };
  /** Channels of the open stream. */
  #carried: readonly string[] = [];
  readonly #trial = new Trial();
  readonly #joined = new Set<string>();
  /** Requests that the stream answers: ids by room, and for `inbox`. */
  readonly #joins = new Map<string, string | undefined>();
  /** Connection id of the open stream. */
  #connectionId = "";
  /** Messages of rooms before the answer to their join: these are the missed ones. */
  readonly #missed = new Map<string, RoomMessage[]>();
  /** Status and custom data of this user, sent again on every new stream. */
  readonly #said = new Map<string, Sent>();
  #waiting: Sent[] = [];
  #due = false;
  #working: Promise<void> | undefined;
  /** Calls under way. They are sent in order, but the messages behind them do not wait for their answers. */
  readonly #calls = new Set<Promise<void>>();
  #opened = (): void => undefined;
  #follows: (ClientMessage & { type: "subscribe" })[] = [];

  constructor(
    private readonly setup: StreamSetup,
    private readonly events: TransportEvents,
  ) {
    this.#reopen();
  }

  send(message: ClientMessage): void {
    switch (message.type) {
      case "join_room":
        return this.#join(message);
      case "leave_room":
        this.#joined.delete(message.room);
        this.#later();
        return this.#reply({ type: "left_room", room: message.room, id: message.id });
      case "subscribe":
        return this.#follow(message);
      case "unsubscribe":
        this.#later();
        return this.#reply({ type: "unsubscribed", channels: namesIn(message), id: message.id });
      case "refresh": // a stream shows its credentials when it opens
        this.#later();
        return this.#reply({ type: "ack", id: message.id });
      case "status_change":
      case "presence_update":
        this.#said.set(message.type, message);
        return this.#send(message);
      case "room_message":
      case "direct_message":
      case "broadcast":
      case "rpc":
        return this.#send(message);
    }
  }

  settled(): Promise<unknown> {
    return Promise.all([this.#working, ...this.#calls]);
  }

  close(): void {
    this.#gone.abort();
    this.#request.abort();
    this.setup.clock.clearTimeout(this.#reopening);
    this.#opened();
  }

  get #wanted(): Interest {
    return carriedBy(this.setup.interest());
  }

  #join({ room, id, memberData, token }: ClientJoinRoom): void {
    if (room.includes(",")) {
      return this.#refuse(id, localError("unsupported", "a room with a comma in its name needs a WebSocket"));
    }
    if (token !== undefined) return this.#refuse(id, localError("unsupported", "a room's token needs a WebSocket"));
    const asked = this.#asked.rooms.get(room);
    this.#joins.set(room, id);
    this.#trial.pardon(room);
    if (asked?.memberData !== memberData || !asked || this.#joined.has(room)) this.#later();
  }

  #follow(message: ClientMessage & { type: "subscribe" }): void {
    this.#follows.push(message);
    const isAsked = (name: string): boolean => this.#asked.channels.includes(name) || this.#trial.channelFault(name) !== undefined;
    if (channelsIn(message).every(isAsked)) queueMicrotask(() => this.#answerFollows());
    else this.#later();
  }

  /** Answers subscriptions that the stream does not: channels that it carries, and refused ones. */
  #answerFollows(): void {
    const follows = this.#follows;
    this.#follows = [];
    for (const message of follows) {
      const names = channelsIn(message);
      const fault = names.map((name) => this.#trial.channelFault(name)).find((each) => each !== undefined);
      if (fault !== undefined) this.#refuse(message.id, fault);
      else if (names.length > 0 && names.every((name) => this.#carried.includes(name))) {
        this.#reply({ type: "subscribed", channels: namesIn(message), id: message.id });
      } else this.#follows.push(message);
    }
  }

  #send(message: Sent): void {
    this.#waiting.push(message);
    this.#work();
  }

  #later(): void {
    this.setup.clock.clearTimeout(this.#reopening);
    this.#reopening = this.setup.clock.setTimeout(() => this.#reopen(), REOPEN_MS);
  }

  #reopen(): void {
    this.#due = true;
    this.#work();
  }

  /** Sends one request at a time: parallel ones arrive in any order, and each names the stream that gets no copy. */
  #work(): void {
    this.#working ??= (async () => {
      while (!this.#gone.signal.aborted) {
        const message = this.#due ? undefined : this.#waiting.shift();
        if (message?.type === "rpc") await this.#start(message);
        else if (message) await this.#post(message);
        else if (!this.#due) break;
        else {
          this.#due = false;
          this.#request.abort();
          await new Promise<void>((resolve) => {
            this.#opened = resolve;
            void this.#stream(this.#wanted);
          });
        }
      }
      this.#working = undefined;
    })();
  }

  /** Sends a call. Resolves at once, and not with its answer. */
  #start(message: Sent): Promise<void> {
    const call = this.#post(message, CALL_MS).finally(() => this.#calls.delete(call));
    this.#calls.add(call);
    return Promise.resolve();
  }

  async #post(message: Sent, limitMs = SEND_MS): Promise<void> {
    const connectionId = "echo" in message && message.echo && message.type === "broadcast" ? "" : this.#connectionId;
    try {
      const answer = await this.setup.post(postOf(message), connectionId, AbortSignal.timeout(limitMs));
      this.#reply({ ...answer, type: message.type === "rpc" ? "rpc_result" : "ack", id: message.id } as Ack | RpcResult);
    } catch (fault) {
      const lost = message.type === "rpc" && !(fault instanceof TidingsError);
      this.#refuse(message.id, lost ? localError("connection_lost", "the call was lost; it may have been carried out") : fault);
    }
  }

  async #stream(wanted: Interest): Promise<void> {
    const request = (this.#request = new AbortController());
    const parser = new EventStreamParser();
    const last: { farewell?: Disconnect } = {};
    const asked = (this.#asked = this.#trial.choose(wanted));
    this.#joined.clear();
    this.#missed.clear();
    this.#carried = [];
    this.#connectionId = "";
    let end: End;
    try {
      const response = await this.setup.open(...questionOf(asked), request.signal);
      const reader = (response.body as ReadableStream<Uint8Array>).getReader();
      const text = new TextDecoder();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.events.heard();
        for (const event of parser.push(text.decode(value, { stream: true }))) {
          if (event.type === "disconnect") last.farewell = JSON.parse(event.data) as Disconnect;
          this.#take(event, request);
        }
      }
      const { code, reason = "the stream ended", reconnect = true, retryAfterMs = parser.retryMs } = last.farewell ?? {};
      end = { reason, reconnect, retryAfterMs, code };
    } catch (fault) {
      if (!request.signal.aborted && this.#survives(fault)) return;
      end = endOf(fault);
    }
    if (request.signal.aborted || this.#gone.signal.aborted) return; // replaced or closed
    this.close();
    this.events.ended(end);
  }

  /** Returns whether the stream can open without the refused room or channel. */
  #survives(fault: unknown): boolean {
    if (!(fault instanceof TidingsError) || fault.retryable || fault.code === "unauthorized") return false;
    if (!this.#trial.onRefused(this.#asked, fault)) return false;
    for (const [room, id] of this.#joins) {
      if (this.#trial.roomFault(room) === undefined) continue;
      this.#joins.delete(room);
      this.#refuse(id, fault);
    }
    this.#answerFollows();
    this.#opened();
    this.#later();
    return true;
  }

  #take({ type, data, id }: StreamEvent, from: AbortController): void {
    if (from.signal.aborted) return; // replaced, or closed by the listener of an earlier event
    if (type === "connected") return this.#greet(JSON.parse(data) as Partial<Welcome>);
    if (type === "heartbeat" || type === "reset") return; // the rooms that were reset follow, as not recovered
    const inbox = id === undefined ? undefined : positionIn(id, INBOX_TOPIC);
    if (inbox) this.events.inboxAt(inbox);
    const message = JSON.parse(data) as ServerMessage;
    if (message.type === "room_message" && !this.#joined.has(message.room)) {
      this.#missed.set(message.room, [...(this.#missed.get(message.room) ?? []), message]);
      return;
    }
    if (message.type === "joined_room") {
      const asked = this.#asked.rooms.get(message.room);
      const stored = this.#missed.get(message.room) ?? [];
      this.#joined.add(message.room);
      this.#missed.delete(message.room);
      if (message.recovered !== undefined) message.missed ??= stored;
      else message.history ??= historyOf(stored, asked, this.#asked);
      message.id = this.#joins.get(message.room) ?? (asked && ""); // without an id, the server joined by itself
      this.#joins.delete(message.room);
    } else if (message.type === "left_room") {
      this.#joined.delete(message.room);
      this.#asked.rooms.delete(message.room);
    } else if (message.type === "subscribed") {
      const asked = this.#follows.find((request) => namesIn(request).includes(INBOX));
      this.#follows = this.#follows.filter((request) => request !== asked);
      message.id = asked?.id;
    }
    this.events.message(message);
  }

  #greet(who: Partial<Welcome>): void {
    this.#connectionId = who.connectionId ?? "";
    if (this.#greeted) this.#waiting.unshift(...this.#said.values());
    else {
      this.#greeted = true;
      this.events.message({
        protocol: 1,
        userId: "",
        username: "",
        connectionId: "",
        gateway: "",
        heartbeatInterval: HEARTBEAT_MS,
        maxMessageBytes: Infinity,
        ...who,
        type: "welcome",
      });
    }
    this.#opened();
    this.#carried = this.#asked.channels;
    if (this.#trial.onAdmitted(this.#asked, this.#wanted)) this.#later();
    this.#answerFollows();
  }

  #refuse(id: string | undefined, fault: unknown): void {
    const end = endOf(fault);
    const code = end.error?.code ?? "unavailable";
    this.#reply({
      type: "error",
      id,
      code,
      message: end.reason,
      retryable: end.reconnect,
      retryAfterMs: end.retryAfterMs,
    });
  }

  /** Answers in a microtask: the sender does not expect an answer within its own call. */
  #reply(message: ServerMessage): void {
    queueMicrotask(() => {
      if (!this.#gone.signal.aborted) this.events.message(message);
    });
  }
}

function postOf(message: Sent): Post {
  switch (message.type) {
    case "room_message": {
      const { room, content, id, echo } = message;
      return ["POST /api/rooms/{room}/messages", { path: { room }, body: { content, id, echo } }];
    }
    case "direct_message": {
      const { targetUserId: userId, content, id } = message;
      return ["POST /api/users/{userId}/messages", { path: { userId }, body: { content, id } }];
    }
    case "broadcast":
      return ["POST /api/broadcast", { body: { content: message.content } }];
    case "rpc":
      return ["POST /api/rpc", { body: { method: message.method, data: message.data } }];
    case "status_change":
      return ["PUT /api/me/status", { body: { status: message.status } }];
    case "presence_update":
      return ["PUT /api/me/data", { body: { customData: message.customData } }];
  }
}

function namesIn(message: ClientMessage & { channel?: string; channels?: string[] }): string[] {
  return [...(message.channels ?? []), ...(message.channel === undefined ? [] : [message.channel])];
}

const channelsIn = (message: ClientMessage & { channel?: string; channels?: string[] }): string[] =>
  namesIn(message).filter((name) => name !== INBOX);

/** Returns what a stream can carry: its URL separates rooms by commas, and no token may stand in a URL. */
function carriedBy(interest: Interest): Interest {
  const rooms = [...interest.rooms].filter(([room, { token }]) => !room.includes(",") && token === undefined);
  return { ...interest, rooms: new Map(rooms) };
}

/** Returns the number of stored messages that a stream asks for: one number, for all rooms without a position. */
function mostHistory({ rooms }: Interest): number {
  return Math.max(0, ...[...rooms.values()].map(({ since, history = 0 }) => (since ? 0 : history)));
}

/** Returns those that this room asked for. There are more than any room did where the application's hook says so. */
function historyOf(stored: RoomMessage[], { history = 0 }: JoinRequest = {}, asked: Interest): RoomMessage[] {
  return stored.length > mostHistory(asked) ? stored : stored.slice(stored.length - Math.min(history, stored.length));
}

function questionOf(interest: Interest): [query: Record<string, string>, headers: Record<string, string>] {
  const rooms = [...interest.rooms];
  const positions = [...rooms.map(([room, { since }]) => [room, since] as const), [INBOX_TOPIC, interest.inbox] as const].filter(
    (entry): entry is [string, Position] => entry[1] !== undefined,
  );
  const history = mostHistory(interest);
  const query = {
    rooms: rooms.map(([room]) => room).join(","),
    channels: [...interest.channels, INBOX].join(","),
    ...(history > 0 && { history: String(history) }),
  };
  return [query, positions.length > 0 ? { "Last-Event-ID": encodeEventId(positions) } : {}];
}
