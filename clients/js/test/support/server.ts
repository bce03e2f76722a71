/** A server without a network: rooms with a log, inboxes, and faults. Its sockets are what the client is given. */
import type { Ack, ClientMessage, Position, RoomMessage, ServerMessage } from "../../src/generated/wire.js";
import type { WebSocketLike } from "../../src/transport/websocket.js";

export const EPOCH = "e1";

export class FakeServer {
  /** All connections there ever were. */
  readonly connections: FakeConnection[] = [];
  readonly rooms = new Map<string, RoomMessage[]>();
  readonly stored = new Map<string, Ack>();
  seq = 0;
  inboxSeq = 0;
  /** New connections are not answered at all while false. */
  accepting = true;
  /** New connections end before the upgrade. */
  refusing = false;
  /** Messages are not answered while true. */
  silent = false;
  /** Publishes are answered `unavailable` while true. */
  busDown = false;
  /** Types of messages that are not answered. */
  ignores: string[] = [];
  refusesChannels: string[] = [];
  /** How many more tokens are told `unauthorized`. */
  refuseCredentials = 0;
  /** What is answered to a type of message, instead of what would be. */
  answers: Record<string, ServerMessage> = {};
  userId = "u-me";
  epoch = EPOCH;
  inbox: (ServerMessage & { type: "direct_message"; seq: number })[] = [];

  readonly WebSocket: new (url: string, protocol: string) => WebSocketLike;

  constructor() {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the class below has a `this` of its own
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string, protocol: string) {
        super(server, url, protocol);
      }
    };
  }

  get last(): FakeConnection {
    const last = this.connections.at(-1);
    if (!last) throw new Error("nobody ever connected");
    return last;
  }

  get open(): FakeConnection[] {
    return this.connections.filter((connection) => connection.isOpen);
  }

  /** Somebody else says something in a room. */
  say(room: string, content: unknown, from = "u-other"): RoomMessage {
    const message = this.store(room, content, from);
    for (const connection of this.open) if (connection.rooms.has(room)) connection.send(message);
    return message;
  }

  store(room: string, content: unknown, userId: string): RoomMessage {
    const log = this.rooms.get(room) ?? [];
    const seq = room.startsWith("live:") ? undefined : ++this.seq;
    const message: RoomMessage = { type: "room_message", userId, username: userId, room, content, timestamp: 1, seq };
    if (seq !== undefined) this.rooms.set(room, [...log, message]);
    return message;
  }

  direct(content: unknown): void {
    const message = {
      type: "direct_message",
      fromUserId: "u-other",
      username: "o",
      content,
      timestamp: 1,
      seq: ++this.inboxSeq,
    } as const;
    this.inbox.push(message);
    for (const connection of this.open) connection.send(message);
  }

  answer(connection: FakeConnection, message: ClientMessage): void {
    const { id } = message;
    const instead = this.answers[message.type];
    if (instead) return connection.send({ ...instead, id } as ServerMessage);
    switch (message.type) {
      case "join_room":
        connection.rooms.add(message.room);
        return connection.send(this.#joined(message.room, message.since, id));
      case "leave_room":
        connection.rooms.delete(message.room);
        return connection.send({ type: "left_room", room: message.room, id });
      case "room_message":
        return this.#publish(connection, message);
      case "subscribe":
        return this.#subscribe(connection, message);
      case "unsubscribe":
        return connection.send({ type: "unsubscribed", channels: message.channels ?? [], id });
      case "heartbeat":
        return connection.send({ type: "heartbeat_ack", id });
      default:
        return connection.send({ type: "ack", id });
    }
  }

  #joined(room: string, since: Position | undefined, id: string | undefined): ServerMessage {
    if (room.startsWith("live:")) return { type: "joined_room", room, id, ...(since && { recovered: false, missed: [] }) };
    const head = { type: "joined_room", room, epoch: this.epoch, seq: this.seq, id } as const;
    if (!since) return head;
    if (since.epoch !== this.epoch) return { ...head, recovered: false, missed: [] };
    const missed = (this.rooms.get(room) ?? []).filter((message) => (message.seq ?? 0) > since.seq);
    return { ...head, recovered: true, missed };
  }

  #publish(connection: FakeConnection, message: ClientMessage & { type: "room_message" }): void {
    const { id = "", room } = message;
    if (!connection.rooms.has(room)) {
      return connection.send({ type: "error", id, code: "not_in_room", message: "join first", retryable: false });
    }
    if (this.busDown) {
      return connection.send({ type: "error", id, code: "unavailable", message: "no bus", retryable: true });
    }
    const known = this.stored.get(`${room}/${id}`);
    if (known) return connection.send(known);
    const { stored, ack } = this.keep(message);
    for (const other of this.open) {
      if (other.rooms.has(room) && (other !== connection || message.echo)) other.send(stored);
    }
    connection.send(ack);
  }

  /** Stores a publish, as if its answer had been lost. */
  keep({ id = "", room, content }: ClientMessage & { type: "room_message" }): { stored: RoomMessage; ack: Ack } {
    const stored = this.store(room, content, this.userId);
    const epoch = stored.seq === undefined ? undefined : this.epoch;
    const ack: Ack = { type: "ack", id, epoch, seq: stored.seq, timestamp: 1 };
    this.stored.set(`${room}/${id}`, ack);
    return { stored, ack };
  }

  #subscribe(connection: FakeConnection, message: ClientMessage & { type: "subscribe" }): void {
    const { id, since, channel, channels = channel === undefined ? [] : [channel] } = message;
    if (channels.some((name) => this.refusesChannels.includes(name))) {
      return connection.send({ type: "error", id, code: "unknown_channel", message: "no", retryable: false });
    }
    const missed = since && this.inbox.filter(({ seq }) => seq > since.seq);
    connection.send({ type: "subscribed", channels, id, ...(missed && { recovered: true, missed }) });
  }
}

/** The server's side of one connection. */
export class FakeConnection {
  readonly received: ClientMessage[] = [];
  readonly rooms = new Set<string>();
  closedWith: number | undefined;

  constructor(
    private readonly server: FakeServer,
    private readonly socket: FakeSocket,
    readonly url: URL,
    readonly protocol: string,
  ) {}

  get isOpen(): boolean {
    return this.closedWith === undefined;
  }

  types(): string[] {
    return this.received.map(({ type }) => type);
  }

  of<Type extends ClientMessage["type"]>(type: Type): (ClientMessage & { type: Type })[] {
    return this.received.filter((message): message is ClientMessage & { type: Type } => message.type === type);
  }

  send(message: ServerMessage): void {
    this.sendFrame(JSON.stringify(message));
  }

  sendFrame(frame: string): void {
    if (this.isOpen) this.socket.onmessage?.({ data: frame });
  }

  /** Ends it as a server does that says why. */
  disconnect(code: number, reconnect: boolean, retryAfterMs?: number): void {
    this.send({ type: "disconnect", code, reason: `reason ${code}`, reconnect, retryAfterMs });
    this.drop(code);
  }

  /** Ends it without a word. */
  drop(code = 1006): void {
    if (!this.isOpen) return;
    this.closedWith = code;
    this.socket.onclose?.({ code, reason: "" });
  }

  receive(frame: string): void {
    const message = JSON.parse(frame) as ClientMessage;
    this.received.push(message);
    if (!this.server.silent && !this.server.ignores.includes(message.type)) queueMicrotask(() => this.server.answer(this, message));
  }
}

class FakeSocket implements WebSocketLike {
  binaryType = "";
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror = null;
  readonly #connection: FakeConnection;

  constructor(server: FakeServer, url: string, protocol: string) {
    this.#connection = new FakeConnection(server, this, new URL(url), protocol);
    server.connections.push(this.#connection);
    queueMicrotask(() => {
      if (server.refusing) return this.#connection.drop();
      if (!server.accepting) return;
      this.#connection.send({
        type: "welcome",
        protocol: 1,
        userId: server.userId,
        username: "me",
        connectionId: `c${server.connections.length}`,
        gateway: "g",
        session: "signed",
        inbox: { epoch: "i1", seq: server.inboxSeq },
        heartbeatInterval: 25_000,
        maxMessageBytes: 1000,
      });
    });
  }

  send(data: string | Uint8Array): void {
    if (this.#connection.isOpen) this.#connection.receive(String(data));
  }

  close(code = 1005): void {
    this.#connection.closedWith ??= code;
  }
}
