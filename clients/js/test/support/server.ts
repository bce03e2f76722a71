/** A server without a network: rooms with a log, inboxes, and faults. Its sockets are what the client is given. */
import type { Ack, ClientJoinRoom, ClientMessage, JoinedRoom, RoomMessage, ServerMessage } from "../../src/generated/wire.js";
import { encodeEventId, INBOX_TOPIC, positionIn } from "../../src/transport/eventid.js";
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
  /** What becomes of upgrades on the way: `passed`, `refused` or `unanswered`. Streams and requests pass. */
  upgrades = "passed";
  /** A proxy answers every request with this status and a page of its own, where it is not 0. */
  proxyStatus = 0;
  /** How often a room had no connection of this user any more, though it was not left. */
  departures = 0;
  /** Messages are not answered while true. */
  silent = false;
  /** Publishes are answered `unavailable` while true. */
  busDown = false;
  /** Types of messages that are not answered. */
  ignores: string[] = [];
  refusesChannels: string[] = [];
  /** Number of further tokens that get `unauthorized`. */
  refuseCredentials = 0;
  /** Number of further joins that get `unauthorized`. */
  refuseJoins = 0;
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

  /** Streams, and what is sent over HTTP. */
  readonly fetch = async (input: unknown, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(String(input));
    if (this.proxyStatus) return new Response("<html>", { status: this.proxyStatus });
    if (url.pathname === "/events") return this.#openStream(url, init);
    const named = new Headers(init.headers).get("Tidings-Connection");
    const connection = this.connections.find(({ id }) => id === named);
    const message = messageOf(url.pathname, JSON.parse(init.body as string) as object);
    if (!message || !connection) return Response.json({ code: "not_found", message: "no", retryable: false }, { status: 404 });
    connection.received.push(message);
    if (this.silent || this.ignores.includes(message.type)) return new Promise<Response>(() => undefined);
    return new Promise((resolve) => {
      connection.rooms.add(message.type === "room_message" ? message.room : "");
      this.answer(connection, message, (answer) => resolve(Response.json(answer, { status: answer.type === "error" ? 400 : 200 })));
    });
  };

  #openStream(url: URL, init: RequestInit): Promise<Response> {
    if (this.refusing) return Promise.reject(new TypeError("failed to fetch"));
    const list = (name: string): string[] => (url.searchParams.get(name) ?? "").split(",").filter(Boolean);
    const last = new Headers(init.headers).get("Last-Event-ID") ?? "";
    return new Promise((resolve, reject) => {
      let stream!: ReadableStreamDefaultController<Uint8Array>;
      const body = new ReadableStream<Uint8Array>({ start: (controller) => void (stream = controller) });
      const write = (type: string, data: unknown, id = ""): void =>
        stream.enqueue(new TextEncoder().encode(`event: ${type}\n${id && `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`));
      const socket = {
        onmessage: ({ data }: { data: unknown }) => {
          const message = JSON.parse(String(data)) as ServerMessage;
          write(message.type, message);
        },
        onclose: () => stream.close(),
      };
      const connection = new FakeConnection(this, socket, url, "sse", `c${this.connections.length + 1}`);
      this.connections.push(connection);
      init.signal?.addEventListener("abort", () => {
        if (connection.isOpen) stream.error(init.signal?.reason);
        connection.end(1005);
        reject(init.signal?.reason as Error);
      });
      if (!this.accepting) return;
      resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
      write("connected", { status: "connected", connectionId: connection.id, userId: this.userId, username: "me", session: "signed" });
      write("subscribed", { type: "subscribed", channels: ["inbox"] }, encodeEventId([[INBOX_TOPIC, { epoch: "i1", seq: this.inboxSeq }]]));
      for (const room of list("rooms")) {
        connection.rooms.add(room);
        const since = positionIn(last, room);
        const { missed = [], history = [], ...joined } = this.#joined({ room, since, history: Number(url.searchParams.get("history") ?? 0) });
        for (const message of [...missed, ...history]) write(message.type, message);
        write("joined_room", joined);
      }
    });
  }

  get last(): FakeConnection {
    const last = this.connections.at(-1);
    if (!last) throw new Error("nobody ever connected");
    return last;
  }

  get open(): FakeConnection[] {
    return this.connections.filter((connection) => connection.isOpen);
  }

  /** The streams that are open show that they live. */
  beat(): void {
    for (const connection of this.open) {
      if (connection.protocol === "sse") connection.send({ type: "heartbeat", timestamp: 1 } as unknown as ServerMessage);
    }
  }

  /** Another user publishes to a room. */
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

  answer(connection: FakeConnection, message: ClientMessage, reply = (answer: ServerMessage): void => connection.send(answer)): void {
    const { id } = message;
    const instead = this.answers[message.type];
    if (instead) return reply({ ...instead, id } as ServerMessage);
    switch (message.type) {
      case "join_room":
        if (this.refuseJoins-- > 0) return reply({ type: "error", id, code: "unauthorized", message: "no", retryable: false });
        connection.rooms.add(message.room);
        return reply(this.#joined(message));
      case "rpc":
        return reply({ type: "rpc_result", id, data: [message.method, message.data] });
      case "leave_room":
        connection.rooms.delete(message.room);
        return reply({ type: "left_room", room: message.room, id });
      case "room_message":
        return this.#publish(connection, message, reply);
      case "subscribe":
        return this.#subscribe(connection, message);
      case "unsubscribe":
        return reply({ type: "unsubscribed", channels: message.channels ?? [], id });
      case "heartbeat":
        return reply({ type: "heartbeat_ack", id });
      default:
        return reply({ type: "ack", id });
    }
  }

  #joined({ room, since, history, id }: Pick<ClientJoinRoom, "room" | "since" | "history" | "id">): JoinedRoom {
    const log = this.rooms.get(room) ?? [];
    const past = !since && history !== undefined && { history: history ? log.slice(-history) : [] };
    if (room.startsWith("live:")) {
      return { type: "joined_room", room, id, ...(since && { recovered: false, missed: [] }), ...past };
    }
    const head = { type: "joined_room", room, epoch: this.epoch, seq: this.seq, id } as const;
    if (!since) return { ...head, ...past };
    if (since.epoch !== this.epoch) return { ...head, recovered: false, missed: [] };
    return { ...head, recovered: true, missed: log.filter((message) => (message.seq ?? 0) > since.seq) };
  }

  #publish(connection: FakeConnection, message: ClientMessage & { type: "room_message" }, reply: (answer: ServerMessage) => void): void {
    const { id = "", room } = message;
    if (!connection.rooms.has(room)) {
      return reply({ type: "error", id, code: "not_in_room", message: "join first", retryable: false });
    }
    if (this.busDown) {
      return reply({ type: "error", id, code: "unavailable", message: "no bus", retryable: true });
    }
    const known = this.stored.get(`${room}/${id}`);
    if (known) return reply(known);
    const { stored, ack } = this.keep(message);
    for (const other of this.open) {
      if (other.rooms.has(room) && (other !== connection || message.echo)) other.send(stored);
    }
    reply(ack);
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
    private readonly socket: Pick<FakeSocket, "onmessage" | "onclose">,
    readonly url: URL,
    readonly protocol: string,
    readonly id: string,
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

  greet(): void {
    this.send({
      type: "welcome",
      protocol: 1,
      userId: this.server.userId,
      username: "me",
      connectionId: this.id,
      gateway: "g",
      session: "signed",
      inbox: { epoch: "i1", seq: this.server.inboxSeq },
      heartbeatInterval: 25_000,
      maxMessageBytes: 1000,
    });
  }

  /** Ends it like a server, with `disconnect`. */
  disconnect(code: number, reconnect: boolean, retryAfterMs?: number): void {
    this.send({ type: "disconnect", code, reason: `reason ${code}`, reconnect, retryAfterMs });
    this.drop(code);
  }

  /** Ends it without a word. */
  drop(code = 1006): void {
    if (!this.isOpen) return;
    this.end(code);
    this.socket.onclose?.({ code, reason: "" });
  }

  /** The connection has ended, at either side. */
  end(code: number): void {
    if (!this.isOpen) return;
    this.closedWith = code;
    const alone = (room: string): boolean => !this.server.open.some(({ rooms }) => rooms.has(room));
    this.server.departures += [...this.rooms].filter((room) => room && alone(room)).length;
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
    this.#connection = new FakeConnection(server, this, new URL(url), protocol, `c${server.connections.length + 1}`);
    server.connections.push(this.#connection);
    queueMicrotask(() => {
      if (server.refusing || server.upgrades === "refused") return this.#connection.drop();
      if (server.accepting && server.upgrades === "passed") this.#connection.greet();
    });
  }

  send(data: string | Uint8Array): void {
    if (this.#connection.isOpen) this.#connection.receive(String(data));
  }

  close(code = 1005): void {
    this.#connection.end(code);
  }
}

/** Returns a request as the message that it is on a socket. */
function messageOf(path: string, body: object): ClientMessage | undefined {
  const [, , kind, name = ""] = path.split("/").map(decodeURIComponent);
  const types: Record<string, object> = {
    rooms: { type: "room_message", room: name },
    users: { type: "direct_message", targetUserId: name },
    broadcast: { type: "broadcast" },
    rpc: { type: "rpc" },
    me: { type: name === "status" ? "status_change" : "presence_update" },
  };
  return types[kind ?? ""] && ({ ...types[kind ?? ""], ...body } as ClientMessage);
}
