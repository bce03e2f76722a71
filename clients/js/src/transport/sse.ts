/**
 * The fallback: messages come by Server-Sent Events and go by HTTP. A stream says what it wants when it opens, so
 * joining and following open a new one that resumes where the old one stood.
 *
 * Read with fetch, not EventSource: that one hides why it was refused, cannot show a token, and is not in Node.
 */
import type { Clock } from "../clock.js";
import { localError, TidingsError } from "../errors.js";
import type { Ack, ClientMessage, Disconnect, PublishRequest, ServerMessage } from "../generated/wire.js";
import { encodeEventId, INBOX_TOPIC, positionIn } from "./eventid.js";
import { EventStreamParser, type StreamEvent } from "./eventstream.js";
import { endOf } from "./ending.js";
import type { End, Interest, Transport, TransportEvents } from "./transport.js";

export interface StreamSetup {
  clock: Clock;
  /** Opens `/events` as this user; rejects with a TidingsError where that is refused. */
  open(query: Record<string, string>, headers: Record<string, string>, signal: AbortSignal): Promise<Response>;
  /** Publishes over HTTP. */
  publish(message: PublishRequest, signal: AbortSignal): Promise<Ack>;
  interest(): Interest;
}

const INBOX = "inbox";
const REOPEN_MS = 20; // a page joins several rooms at once
const HEARTBEAT_MS = 5000;

export class EventStreamTransport implements Transport {
  readonly kind = "sse";
  readonly probes = false;

  readonly #gone = new AbortController();
  #request = new AbortController();
  #reopening: unknown;
  #greeted = false;
  #asked: Interest = { rooms: new Map(), channels: [], inbox: undefined };
  readonly #joined = new Set<string>();
  /** Requests that the stream answers: ids by room, and for `inbox`. */
  readonly #joins = new Map<string, string | undefined>();
  #follows: ClientMessage[] = [];

  constructor(
    private readonly setup: StreamSetup,
    private readonly events: TransportEvents,
  ) {
    void this.#stream(setup.interest());
  }

  send(message: ClientMessage): void {
    switch (message.type) {
      case "join_room":
        return this.#join(message.room, message.id);
      case "leave_room":
        this.#joined.delete(message.room);
        this.#later();
        return this.#reply({ type: "left_room", room: message.room, id: message.id });
      case "subscribe":
        return this.#follow(message);
      case "unsubscribe":
        this.#later();
        return this.#reply({ type: "unsubscribed", channels: namesIn(message), id: message.id });
      case "room_message":
        return this.#publish({ room: message.room, content: message.content, id: message.id });
      case "direct_message":
        return this.#publish({ userId: message.targetUserId, content: message.content, id: message.id });
      case "broadcast":
        return this.#publish({ broadcast: true, content: message.content, id: message.id });
      default:
        return this.#refuse(message.id, localError("unsupported", `${message.type} needs a WebSocket`));
    }
  }

  close(): void {
    this.#gone.abort();
    this.#request.abort();
    this.setup.clock.clearTimeout(this.#reopening);
  }

  #join(room: string, id: string | undefined): void {
    if (room.includes(",")) {
      return this.#refuse(id, localError("unsupported", "a room with a comma in its name needs a WebSocket"));
    }
    this.#joins.set(room, id);
    if (!this.#asked.rooms.has(room) || this.#joined.has(room)) this.#later();
  }

  #follow(message: ClientMessage & { type: "subscribe" }): void {
    this.#follows.push(message);
    const names = namesIn(message).filter((name) => name !== INBOX);
    if (!names.every((name) => this.#asked.channels.includes(name))) this.#later();
    else if (names.length > 0) queueMicrotask(() => this.#answerFollows());
  }

  #answerFollows(): void {
    const open = this.#follows.filter((message) => namesIn(message).some((name) => name === INBOX));
    const answered = this.#follows.filter((message) => !open.includes(message));
    this.#follows = open;
    for (const message of answered) {
      this.#reply({ type: "subscribed", channels: namesIn(message), id: message.id });
    }
  }

  #publish(body: PublishRequest): void {
    this.setup.publish(body, this.#gone.signal).then(
      (ack) => this.#reply({ ...ack, type: "ack", id: body.id }),
      (fault: unknown) => this.#refuse(body.id, fault),
    );
  }

  #later(): void {
    this.setup.clock.clearTimeout(this.#reopening);
    this.#reopening = this.setup.clock.setTimeout(() => {
      this.#request.abort();
      void this.#stream(this.setup.interest());
    }, REOPEN_MS);
  }

  async #stream(interest: Interest): Promise<void> {
    const request = (this.#request = new AbortController());
    const parser = new EventStreamParser();
    const last: { farewell?: Disconnect } = {};
    this.#asked = interest;
    this.#joined.clear();
    let end: End;
    try {
      const response = await this.setup.open(...questionOf(interest), request.signal);
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
      if (!request.signal.aborted && this.#survives(fault, interest)) return;
      end = endOf(fault);
    }
    if (request.signal.aborted || this.#gone.signal.aborted) return; // replaced, or not wanted any more
    this.close();
    this.events.ended(end);
  }

  /** One room or channel that is not for us must not cost the others: refuse what was asked last, and go on. */
  #survives(fault: unknown, interest: Interest): boolean {
    const isEmpty = interest.rooms.size === 0 && interest.channels.length === 0;
    if (!(fault instanceof TidingsError) || fault.retryable || fault.code === "unauthorized" || isEmpty) return false;
    const ids = [...this.#joins.values(), ...this.#follows.map((message) => message.id)];
    if (this.#greeted && ids.length === 0) return false;
    this.#joins.clear();
    this.#follows = [];
    for (const id of ids) this.#refuse(id, fault);
    if (this.#greeted) this.#later();
    else void this.#stream({ rooms: new Map(), channels: [], inbox: interest.inbox });
    return true;
  }

  #take({ type, data, id }: StreamEvent, from: AbortController): void {
    if (from.signal.aborted) return; // replaced, or closed by who heard the event before
    if (type === "connected") return this.#greet();
    if (type === "heartbeat" || type === "reset") return; // what was reset says so itself, as not recovered
    const inbox = id === undefined ? undefined : positionIn(id, INBOX_TOPIC);
    if (inbox) this.events.inboxAt(inbox);
    const message = JSON.parse(data) as ServerMessage;
    if (message.type === "joined_room") {
      this.#joined.add(message.room);
      message.id = this.#joins.get(message.room);
      this.#joins.delete(message.room);
    } else if (message.type === "subscribed") {
      const asked = this.#follows.find((request) => namesIn(request as never).includes(INBOX));
      this.#follows = this.#follows.filter((request) => request !== asked);
      message.id = asked?.id;
    }
    this.events.message(message);
  }

  #greet(): void {
    if (!this.#greeted) {
      this.#greeted = true;
      this.events.message({
        type: "welcome",
        protocol: 1,
        userId: "", // a stream does not say who we are
        username: "",
        connectionId: "",
        gateway: "",
        heartbeatInterval: HEARTBEAT_MS,
        maxMessageBytes: Infinity,
      });
    }
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

  /** Answers later, as a server would: who sends does not expect the answer within the call. */
  #reply(message: ServerMessage): void {
    queueMicrotask(() => {
      if (!this.#gone.signal.aborted) this.events.message(message);
    });
  }
}

function namesIn(message: ClientMessage & { channel?: string; channels?: string[] }): string[] {
  return [...(message.channels ?? []), ...(message.channel === undefined ? [] : [message.channel])];
}

function questionOf(interest: Interest): [query: Record<string, string>, headers: Record<string, string>] {
  const rooms = [...interest.rooms].filter(([room]) => !room.includes(","));
  const positions = [...rooms, [INBOX_TOPIC, interest.inbox] as const].filter(
    (entry): entry is [string, NonNullable<(typeof entry)[1]>] => entry[1] !== undefined,
  );
  const query = {
    rooms: rooms.map(([room]) => room).join(","),
    channels: [...interest.channels, INBOX].join(","),
  };
  return [query, positions.length > 0 ? { "Last-Event-ID": encodeEventId(positions) } : {}];
}
