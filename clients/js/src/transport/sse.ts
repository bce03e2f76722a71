/**
 * The fallback: messages come by Server-Sent Events and go by HTTP. A stream says what it wants when it opens, so
 * joining and following open a new one that resumes where the old one stood. A server that refuses one of several things
 * refuses the stream: then they are asked for one by one, see `trial.ts`.
 *
 * Read with fetch, not EventSource: that one hides why it was refused, cannot show a token, and is not in Node.
 */
import type { Clock } from "../clock.js";
import { localError, TidingsError } from "../errors.js";
import type { Ack, ClientMessage, Disconnect, PublishRequest, ServerMessage } from "../generated/wire.js";
import { encodeEventId, INBOX_TOPIC, positionIn } from "./eventid.js";
import { EventStreamParser, type StreamEvent } from "./eventstream.js";
import { endOf } from "./ending.js";
import { Trial } from "./trial.js";
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
const PUBLISH_MS = 10_000;

export class EventStreamTransport implements Transport {
  readonly kind = "sse";
  readonly probes = false;

  readonly #gone = new AbortController();
  #request = new AbortController();
  #reopening: unknown;
  #greeted = false;
  #asked: Interest = { rooms: new Map(), channels: [], inbox: undefined };
  /** Channels of the stream that is open. */
  #carried: readonly string[] = [];
  readonly #trial = new Trial();
  readonly #joined = new Set<string>();
  /** Requests that the stream answers: ids by room, and for `inbox`. */
  readonly #joins = new Map<string, string | undefined>();
  #publishing = Promise.resolve();
  #follows: (ClientMessage & { type: "subscribe" })[] = [];

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
    this.#trial.pardon(room);
    if (!this.#asked.rooms.has(room) || this.#joined.has(room)) this.#later();
  }

  #follow(message: ClientMessage & { type: "subscribe" }): void {
    this.#follows.push(message);
    const isAsked = (name: string): boolean => this.#asked.channels.includes(name) || this.#trial.channelFault(name) !== undefined;
    if (channelsIn(message).every(isAsked)) queueMicrotask(() => this.#answerFollows());
    else this.#later();
  }

  /** Answers what needs no message of the stream: what it carries, and what it was refused. */
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

  #publish(body: PublishRequest): void {
    // One at a time: requests side by side would arrive in any order.
    this.#publishing = this.#publishing.then(async () => {
      if (this.#gone.signal.aborted) return;
      try {
        this.#reply({ ...(await this.setup.publish(body, AbortSignal.timeout(PUBLISH_MS))), type: "ack", id: body.id });
      } catch (fault) {
        this.#refuse(body.id, fault);
      }
    });
  }

  #later(): void {
    this.setup.clock.clearTimeout(this.#reopening);
    this.#reopening = this.setup.clock.setTimeout(() => {
      this.#request.abort();
      void this.#stream(this.setup.interest());
    }, REOPEN_MS);
  }

  async #stream(wanted: Interest): Promise<void> {
    const request = (this.#request = new AbortController());
    const parser = new EventStreamParser();
    const last: { farewell?: Disconnect } = {};
    const asked = (this.#asked = this.#trial.choose(wanted));
    this.#joined.clear();
    this.#carried = [];
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
    if (request.signal.aborted || this.#gone.signal.aborted) return; // replaced, or not wanted any more
    this.close();
    this.events.ended(end);
  }

  /** One room or channel that is not for us must not cost the others. */
  #survives(fault: unknown): boolean {
    if (!(fault instanceof TidingsError) || fault.retryable || fault.code === "unauthorized") return false;
    if (!this.#trial.onRefused(this.#asked, fault)) return false;
    for (const [room, id] of this.#joins) {
      if (this.#trial.roomFault(room) === undefined) continue;
      this.#joins.delete(room);
      this.#refuse(id, fault);
    }
    this.#answerFollows();
    this.#later();
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
      const asked = this.#follows.find((request) => namesIn(request).includes(INBOX));
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
    this.#carried = this.#asked.channels;
    if (this.#trial.onAdmitted(this.#asked, this.setup.interest())) this.#later();
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

const channelsIn = (message: ClientMessage & { channel?: string; channels?: string[] }): string[] =>
  namesIn(message).filter((name) => name !== INBOX);

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
