import { Channels } from "./channels.js";
import { systemClock, type Clock } from "./clock.js";
import { json } from "./codec.js";
import { Connection, type ConnectionStatus } from "./connection/connection.js";
import { Credentials } from "./credentials.js";
import { Emitter } from "./emitter.js";
import { Endpoint } from "./endpoint.js";
import { watchEnvironment } from "./environment.js";
import { localError, TidingsError } from "./errors.js";
import { Alerts, Logs, Metrics } from "./feeds.js";
import type { Ack, Broadcast, ClientMessage, RpcResult, ServerMessage, Status, Welcome } from "./generated/wire.js";
import { Http, type Answer, type Asked, type OperationName } from "./http.js";
import { Inbox } from "./inbox.js";
import { check, DEFAULTS, type TidingsOptions } from "./options.js";
import type { JoinRequest } from "./joining.js";
import { Presence } from "./presence.js";
import { Requests, type RequestOptions, type Sending } from "./requests.js";
import { Room } from "./room.js";
import { Kept, pageStorage } from "./session.js";
import type { Store } from "./store.js";
import { EventStreamTransport, type Post } from "./transport/sse.js";
import type { Interest, Transport, TransportEvents, TransportKind } from "./transport/transport.js";
import { openWebSocket, type WebSocketConstructor } from "./transport/websocket.js";

export interface ClientEvents {
  /** The state of the connection changed. */
  status: ConnectionStatus;
  /** A connection opened: this user's id and the server's limits. */
  welcome: Welcome;
  broadcast: Broadcast;
  /** Errors without a promise that could reject: a refused channel, an outage behind a snapshot, a failed refresh. */
  error: TidingsError;
  /** Every message of the server, unchanged. */
  message: ServerMessage;
}

const DUPLICATE_MS = 110_000; // the server's window is 120 s by default; clocks and queues need a margin
const ANSWER_MS = 5000;
const LINGER_MS = 100;
const IN_ORDER: Sending = { queued: true, repeatable: () => true, ready: () => true };
const ONCE: Sending = { queued: true, repeatable: () => false, ready: () => true };

export interface CallOptions extends RequestOptions {
  /** Time limit of the answer, from when the call is sent. Default: the option `ackTimeoutMs`, 10 s. */
  timeoutMs?: number;
}

/**
 * A client with one connection to a Tidings server. It reconnects by itself, recovers missed messages and restores
 * rooms, channels and status. Promises reject with a `TidingsError`, or with the reason of the `signal` given.
 */
export class TidingsClient extends Emitter<ClientEvents> {
  /** State of the connection. */
  readonly status: Store<ConnectionStatus>;
  /** The users who are online; call `watch()` to follow them. */
  readonly presence: Presence;
  readonly metrics: Metrics;
  readonly alerts: Alerts;
  readonly logs: Logs;
  readonly inbox: Inbox;

  readonly #endpoint: Endpoint;
  readonly #options: TidingsOptions;
  readonly #clock: Clock;
  readonly #connection: Connection;
  readonly #credentials: Credentials;
  readonly #http: Http;
  readonly #session: Kept;
  readonly #way: Kept;
  readonly #requests: Requests;
  readonly #channels: Channels;
  readonly #rooms = new Map<string, Room>();
  readonly #presences = new Map<string, Presence>();
  /** Status and custom data of this user, sent again on every connection. */
  readonly #said = new Map<string, ClientMessage>();
  #welcome: Welcome | undefined;
  /** The token with which the connection was opened. */
  #shown: string | undefined;
  #holders = 0;
  /** `connect` keeps the client open until `close`, also when every hold is released. */
  #wanted = false;
  #unwatch: (() => void) | undefined;

  /**
   * `url`: `https://host`, `wss://host/ws`, or `/` for the page's own host. Opens nothing before `connect` or `hold`.
   * Throws TypeError for an unknown option or an unusable URL.
   */
  constructor(url: string, options: TidingsOptions = {}) {
    super();
    check(options);
    const fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#endpoint = new Endpoint(url);
    this.#credentials = new Credentials(options.getToken, options.getTicket);
    this.#http = new Http(this.#endpoint, this.#credentials, fetch);
    const storage = options.storage === undefined ? pageStorage() : options.storage;
    this.#session = new Kept(storage, `tidings.session:${this.#endpoint.http("")}`);
    this.#way = new Kept(storage, `tidings.transport:${this.#endpoint.http("")}`);
    this.#requests = new Requests({
      clock: this.#clock,
      ackMs: options.ackTimeoutMs ?? DEFAULTS.ackTimeoutMs,
      tries: options.tries ?? DEFAULTS.tries,
      queueLimit: options.queueLimit ?? DEFAULTS.queueLimit,
      duplicateMs: DUPLICATE_MS,
      send: (message) => this.#connection.send(message),
      onSilence: () => this.#connection.suspect(),
    });
    this.#channels = new Channels({
      clock: this.#clock,
      ask: (message) => this.#requests.submit(message),
      isUp: () => this.#isUp,
      onRefused: (channel, { code, message }) =>
        this.emit("error", new TidingsError({ code, message: `channel ${channel}: ${message}` })),
    });
    this.presence = new Presence(this.#channels, undefined);
    this.metrics = new Metrics(this.#channels, options.historyLimit ?? DEFAULTS.historyLimit);
    this.alerts = new Alerts(this.#channels);
    this.logs = new Logs(this.#channels);
    this.inbox = new Inbox((message) => this.#requests.submit(message));
    this.#connection = new Connection({
      clock: this.#clock,
      transports: options.transports ?? DEFAULTS.transports,
      backoff: {
        firstMs: options.backoff?.firstMs ?? DEFAULTS.firstMs,
        longestMs: options.backoff?.longestMs ?? DEFAULTS.longestMs,
      },
      connectMs: options.connectTimeoutMs ?? DEFAULTS.connectTimeoutMs,
      answerMs: ANSWER_MS,
      lastTransport: this.#way.value as TransportKind | undefined,
      open: (kind, events) => this.#open(kind, events),
      onMessage: (message) => this.#take(message),
      onUp: (welcome) => this.#onUp(welcome),
      onDown: () => this.#onDown(),
      onInboxAt: (position) => this.inbox.onPosition(position),
      onTokenExpired: () => this.#credentials.expire(this.#shown),
    });
    this.status = this.#connection.status;
    this.status.subscribe(() => this.#onStatus(this.status.get()));
    options.signal?.addEventListener("abort", () => this.close());
  }

  /** Id of this user; undefined before the first `welcome`. */
  get userId(): string | undefined {
    return this.#welcome?.userId;
  }

  /** The `welcome` of the last connection. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** Connects, and stays connected until `close`. Resolves when the first connection is open; rejects if it is refused. */
  connect({ signal }: RequestOptions = {}): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason as Error);
    if (this.#options.signal?.aborted) return Promise.reject(this.#options.signal.reason as Error);
    this.#wanted = true;
    this.#begin();
    return new Promise((resolve, reject) => {
      const off: (() => void)[] = [];
      const settle = (report: () => void): void => {
        for (const each of off) each();
        report();
      };
      const look = (): void => {
        const { state, error, reason = "the server refused the connection" } = this.status.get();
        if (state === "connected") settle(resolve);
        if (state === "closed") settle(() => reject(localError("closed", "the client was closed")));
        if (state === "failed") settle(() => reject(error ?? new TidingsError({ code: "forbidden", message: reason })));
      };
      const abort = (): void => settle(() => reject(signal?.reason as Error));
      signal?.addEventListener("abort", abort);
      off.push(this.status.subscribe(look), () => signal?.removeEventListener("abort", abort));
      look();
    });
  }

  /** Closes the connection and leaves its rooms. Waiting requests are rejected with `closed`. `connect` opens it again. */
  close(): void {
    this.#wanted = false;
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#connection.close();
  }

  /** Stays connected until the returned function is called. Holders are counted, for components that share a client. */
  hold(): () => void {
    this.#holders++;
    if (this.status.get().state === "closed" && !this.#options.signal?.aborted) this.#begin();
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#clock.setTimeout(() => {
        if (--this.#holders === 0 && !this.#wanted) this.close();
      }, LINGER_MS);
    };
  }

  /** Reconnects now, or probes whether the connection is alive. Pages do so by themselves. */
  wake(): void {
    this.#connection.wake();
  }

  /** Returns the room of that name, always the same object. Does not join it. */
  room(name: string): Room {
    const normal = name.normalize(); // two spellings of one name are one room
    let room = this.#rooms.get(normal);
    if (!room) {
      room = new Room(normal, {
        clock: this.#clock,
        isUp: () => this.#isUp,
        heardAt: () => this.#connection.heardAt,
        submit: (message, options, sending) => this.#requests.submit(message, options, sending),
        flush: () => this.#requests.flush(),
        drop: (topic, fault) => this.#requests.drop(topic, fault),
        over: () => this.#requests.over,
        unsettled: (topic) => this.#requests.unsettled(topic),
        history: (of, { signal, ...query }) =>
          this.request("GET /api/rooms/{room}/history", { path: { room: of }, query, signal }),
        presence: (of) => this.#presenceOf(of),
      });
      this.#rooms.set(normal, room);
    }
    return room;
  }

  /** Sends a direct message to all connections of one user, now or when they reconnect. Resolves when it is stored. */
  async sendDirect(userId: string, content: unknown, options: RequestOptions & { id?: string } = {}): Promise<Ack> {
    const message = { type: "direct_message", targetUserId: userId, content, id: options.id } as const;
    return (await this.#requests.submit(message, options, IN_ORDER)) as Ack;
  }

  /** Sends to every connection. A broadcast is not stored, so it is not repeated when its answer is lost. */
  async broadcast(content: unknown, options: RequestOptions & { echo?: boolean } = {}): Promise<Ack> {
    const message = { type: "broadcast", content, echo: options.echo } as const;
    return (await this.#requests.submit(message, options, ONCE)) as Ack;
  }

  /**
   * Calls a method of the application behind the server. Resolves with its answer; rejects with its error, whose code may
   * be the application's own, or with `unknown_method`. Waits for a connection. A call is never sent twice: where its
   * answer is lost, it rejects with `connection_lost` or `timeout`, and the method may have been carried out.
   */
  async call<T = unknown>(method: string, data?: unknown, { signal, timeoutMs }: CallOptions = {}): Promise<T> {
    const message = { type: "rpc", method, data: data ?? null } as const;
    const sending = { ...ONCE, once: true, answerMs: timeoutMs };
    return ((await this.#requests.submit(message, { signal }, sending)) as RpcResult).data as T;
  }

  /** Sets this user's status, now and on every later connection. */
  async setStatus(status: Status, options: RequestOptions = {}): Promise<void> {
    await this.#say({ type: "status_change", status }, options);
  }

  /** Replaces this user's custom data, which others see in presence; now and on every later connection. */
  async setCustomData(customData: unknown, options: RequestOptions = {}): Promise<void> {
    await this.#say({ type: "presence_update", customData }, options);
  }

  /** Carries out one operation of the HTTP API, for example `"GET /api/rooms"`. Types come from its OpenAPI contract. */
  request<Name extends OperationName>(name: Name, ...[given]: Asked<Name>): Promise<Answer<Name>> {
    return this.#http.request(name, given);
  }

  #begin(): void {
    this.#unwatch ??= watchEnvironment(
      () => this.#connection.wake(),
      () => this.#connection.offline(),
    );
    this.#requests.begin();
    this.#connection.connect();
  }

  get #isUp(): boolean {
    return this.status.get().state === "connected";
  }

  async #say(message: ClientMessage, options: RequestOptions): Promise<void> {
    await this.#requests.submit(message, options, IN_ORDER);
    this.#said.set(message.type, message);
  }

  #open(kind: TransportKind, events: TransportEvents): Transport {
    return kind === "websocket" ? this.#openWebSocket(events) : this.#openStream(events);
  }

  #openWebSocket(events: TransportEvents): Transport {
    const builtIn = (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    const WebSocket = this.#options.WebSocket ?? builtIn;
    if (!WebSocket) throw new TypeError("there is no WebSocket here: pass one in the options (see the package `ws`)");
    const identity = async (signal: AbortSignal): Promise<Record<string, string | undefined>> => ({
      ticket: await this.#ticket(signal),
      ...this.#name,
    });
    const codec = this.#options.codec ?? json;
    return openWebSocket({ endpoint: this.#endpoint, WebSocket, codec, identity }, events);
  }

  #openStream(events: TransportEvents): Transport {
    const setup = {
      clock: this.#clock,
      open: async (query: Record<string, string>, headers: Record<string, string>, signal: AbortSignal) => {
        const response = await this.#http.open("/events", { ...this.#name, ...query }, { headers, signal });
        this.#shown = await this.#credentials.token(signal);
        return response;
      },
      post: ([name, given]: Post, connectionId: string, signal: AbortSignal) => {
        const headers = connectionId ? { "Tidings-Connection": connectionId } : undefined;
        return this.#http.request<Post[0]>(name, { ...given, query: this.#name, signal } as never, headers);
      },
      interest: () => this.#interest,
    };
    return new EventStreamTransport(setup, events);
  }

  get #name(): Record<string, string | undefined> {
    return { username: this.#options.username, session: this.#session.value };
  }

  get #interest(): Interest {
    const rooms = new Map<string, JoinRequest>();
    for (const { name, request } of this.#rooms.values()) if (request) rooms.set(name, request);
    return {
      rooms,
      channels: this.#channels.wanted,
      inbox: this.inbox.position,
    };
  }

  /** A browser cannot set a header on a WebSocket, so the token is exchanged for a ticket, which may stand in a URL. */
  async #ticket(signal: AbortSignal): Promise<string | undefined> {
    if (this.#credentials.givesTickets) return this.#credentials.ticket(signal);
    if (!this.#credentials.any) return undefined;
    const { ticket } = await this.request("POST /api/tickets", { signal });
    this.#shown = await this.#credentials.token(signal);
    return ticket;
  }

  #onUp(welcome: Welcome): void {
    this.#requests.up();
    this.inbox.onUp(welcome);
    this.#channels.onUp();
    for (const room of this.#rooms.values()) room.onUp();
    for (const message of this.#said.values()) this.#requests.submit(message).catch(() => undefined); // again with the next
    this.#requests.flush();
  }

  #onDown(): void {
    this.#requests.down();
    for (const presence of this.#allPresences) presence.onDown();
    for (const room of this.#rooms.values()) room.onDown();
  }

  #onStatus(status: ConnectionStatus): void {
    if (status.state === "failed" || status.state === "closed") {
      const { reason = "the client was closed" } = status;
      const fault = status.error ?? localError("closed", reason);
      this.#requests.end(fault);
      for (const room of this.#rooms.values()) room.onEnd(fault);
    }
    if (status.state === "connected") this.#way.keep(status.transport);
    this.emit("status", status);
  }

  #take(message: ServerMessage): void {
    switch (message.type) {
      case "welcome":
        this.#welcome = message;
        this.#session.keep(message.session);
        this.emit("welcome", message);
        break;
      case "room_message":
        this.#rooms.get(message.room)?.onMessage(message);
        break;
      case "joined_room":
        // Without an id, the server may have joined a room that the application does not know yet.
        (message.id === undefined ? this.room(message.room) : this.#rooms.get(message.room))?.onJoined(message);
        break;
      case "left_room":
        if (message.reason !== undefined) this.#rooms.get(message.room)?.onRemoved(message.reason);
        break;
      case "user_joined":
        this.#rooms.get(message.room)?.emit("userJoined", message);
        break;
      case "user_left":
        this.#rooms.get(message.room)?.emit("userLeft", message);
        break;
      case "direct_message":
        this.inbox.take(message);
        break;
      case "subscribed":
        if (message.recovered !== undefined) this.inbox.onResumed(message);
        break;
      case "broadcast":
        this.emit("broadcast", message);
        break;
      case "token_expiring":
        void this.#refresh();
        break;
      case "error":
        if (message.id === undefined) this.emit("error", new TidingsError(message));
        break;
      default:
        for (const presence of this.#allPresences) presence.take(message);
        this.metrics.take(message);
        this.alerts.take(message);
        this.logs.take(message);
    }
    const request = "id" in message ? this.#requests.onAnswer(message) : undefined;
    if (request?.type === "room_message" && message.type === "ack") {
      this.#rooms.get(request.room)?.onStored(message, request.echo);
    }
    this.emit("message", message);
  }

  /** Sends a new token on the open connection, so that it does not end with the old one. */
  async #refresh(): Promise<void> {
    const { signal } = new AbortController();
    try {
      this.#credentials.expire(this.#shown);
      const token = await this.#credentials.token(signal);
      const ticket = token === undefined ? await this.#credentials.ticket(signal) : undefined;
      this.#shown = token;
      if (token !== undefined || ticket !== undefined) await this.#requests.submit({ type: "refresh", token, ticket });
    } catch (fault) {
      const { message } = fault as Error;
      this.emit("error", fault instanceof TidingsError ? fault : new TidingsError({ code: "unauthorized", message }));
    }
  }

  get #allPresences(): Presence[] {
    return [this.presence, ...this.#presences.values()];
  }

  #presenceOf(room: string): Presence {
    let presence = this.#presences.get(room);
    if (!presence) this.#presences.set(room, (presence = new Presence(this.#channels, room)));
    return presence;
  }
}
