import type { Clock } from "../clock.js";
import type { TidingsError } from "../errors.js";
import type { ClientMessage, Position, ServerMessage, Welcome } from "../generated/wire.js";
import { Store } from "../store.js";
import type { End, Transport, TransportEvents, TransportKind } from "../transport/transport.js";
import { backoff, type BackoffOptions } from "./backoff.js";
import { TOKEN_EXPIRED } from "./codes.js";
import { Fallback } from "./fallback.js";
import { advance, type Action, type Input, type State } from "./machine.js";
import { TURN_MS, Watchdog, type Verdict } from "./watchdog.js";

/** How the connection stands. */
export interface ConnectionStatus {
  readonly state: State;
  /** Which transport carries, or last carried, the messages. */
  readonly transport?: TransportKind;
  /** Why the last connection ended, or could not be made. */
  readonly reason?: string;
  /** The close code, where there was one. */
  readonly code?: number | undefined;
  /** While suspended: when the next attempt is due, in ms since 1970. */
  readonly retryAt?: number;
  /** While failed: what was refused. */
  readonly error?: TidingsError | undefined;
}

export interface ConnectionSetup {
  clock: Clock;
  transports: readonly TransportKind[];
  backoff: BackoffOptions;
  /** How long a connection may take to be made. */
  connectMs: number;
  /** How long the answer to a probe may take. */
  answerMs: number;
  /** How long to stay on the fallback before the better transport is tried again. */
  upgradeMs: number;
  open(kind: TransportKind, events: TransportEvents): Transport;
  onMessage(message: ServerMessage): void;
  onUp(welcome: Welcome): void;
  onDown(): void;
  onInboxAt(position: Position): void;
  onTokenExpired(): void;
}

/** A connection that lived so long has forgotten the failures before it: a server that sends all away is no success. */
const STABLE_MS = 5000;

/** Keeps one transport to the server open, and opens the next one when and only when it should. */
export class Connection {
  readonly status = new Store<ConnectionStatus>({ state: "closed" });
  readonly #fallback: Fallback;
  #transport: Transport | undefined;
  #watchdog: Watchdog | undefined;
  #end: End = { reason: "", reconnect: true };
  #attempts = 0;
  #upAt = 0;
  #notBefore = 0;
  #dueAt = 0;
  #dueTimer: unknown;
  #watchTimer: unknown;
  #limitTimer: unknown;

  constructor(private readonly setup: ConnectionSetup) {
    this.#fallback = new Fallback(setup.transports);
  }

  get state(): State {
    return this.status.get().state;
  }

  /** When anything last came from the server. */
  get heardAt(): number {
    return this.#watchdog?.heardAt ?? 0;
  }

  connect(): void {
    this.#attempts = 0;
    this.#input("connect");
  }

  close(): void {
    this.#input("close");
  }

  /** The world outside has changed: try now, or look whether the connection still lives. */
  wake(): void {
    if (this.setup.clock.now() >= this.#notBefore || this.state === "connected") this.#input("wake");
  }

  /** Doubts the connection: something was not answered. */
  suspect(): void {
    if (this.state === "connected") this.#judge(this.#watchdog?.probe(this.setup.clock.now()));
  }

  /** Sends now. Throws a TidingsError for what the server would not take; nothing is sent while not connected. */
  send(message: ClientMessage): void {
    if (this.state === "connected") this.#transport?.send(message);
  }

  #input(input: Input): void {
    const before = this.state;
    const step = advance(before, input);
    if (!step) return;
    if (before === "connected" && step.next !== "connected") this.#stopped();
    for (const action of step.actions) this.#perform(action);
    this.#tell(step.next);
    if (before === "connected" && step.next !== "connected") this.setup.onDown();
  }

  #perform(action: Action): void {
    const { clock } = this.setup;
    switch (action) {
      case "open":
        return this.#open();
      case "drop":
      case "leave":
        clock.clearTimeout(this.#limitTimer);
        this.#transport?.close(action === "leave");
        this.#transport = undefined;
        return;
      case "wait":
        return this.#wait();
      case "cancel":
        return clock.clearTimeout(this.#dueTimer);
      case "probe":
        return this.suspect();
    }
  }

  #open(): void {
    const kind = this.#fallback.choose();
    // What a transport reports after it was let go concerns nobody.
    const mine = (take: () => void): void => {
      if (this.#transport === transport) take();
    };
    const transport: Transport = this.setup.open(kind, {
      heard: () => mine(() => this.#watchdog?.heard(this.setup.clock.now())),
      message: (message) => mine(() => this.#take(message, kind)),
      inboxAt: (position) => mine(() => this.setup.onInboxAt(position)),
      ended: (end) => mine(() => this.#ended(end)),
    });
    this.#transport = transport;
    this.#limitTimer = this.setup.clock.setTimeout(
      () => this.#ended({ reason: "the server did not answer in time", reconnect: true }),
      this.setup.connectMs,
    );
  }

  #take(message: ServerMessage, kind: TransportKind): void {
    if (message.type === "welcome" && this.state === "connecting") this.#welcomed(message, kind);
    this.setup.onMessage(message);
  }

  #welcomed(welcome: Welcome, kind: TransportKind): void {
    const { clock, answerMs, upgradeMs } = this.setup;
    clock.clearTimeout(this.#limitTimer);
    this.#upAt = clock.now();
    this.#notBefore = 0;
    this.#fallback.worked(kind);
    this.#watchdog = new Watchdog(this.#upAt, welcome.heartbeatInterval, answerMs, this.#transport?.probes ?? false);
    this.#watch();
    if (this.#fallback.isFallback(kind)) {
      this.#limitTimer = clock.setTimeout(() => this.#input("upgrade"), upgradeMs);
    }
    this.#end = { reason: "", reconnect: true };
    this.#input("welcomed");
    this.setup.onUp(welcome);
  }

  #watch(): void {
    this.#watchTimer = this.setup.clock.setTimeout(() => {
      this.#watch();
      this.#judge(this.#watchdog?.turn(this.setup.clock.now()));
    }, TURN_MS);
  }

  #judge(verdict: Verdict | undefined): void {
    if (verdict === "probe") this.#transport?.send({ type: "heartbeat" });
    if (verdict === "dead") this.#ended({ reason: "the server fell silent", reconnect: true });
  }

  #ended(end: End): void {
    const now = this.setup.clock.now();
    if (this.state !== "connected") this.#fallback.failed();
    else if (now - this.#upAt >= STABLE_MS) this.#attempts = 0;
    this.#end = end;
    if (end.code === TOKEN_EXPIRED) this.setup.onTokenExpired();
    this.#notBefore = now + (end.retryAfterMs ?? 0);
    this.#input(end.reconnect ? "lost" : "refused");
  }

  #wait(): void {
    const { clock } = this.setup;
    const delay = backoff(this.#attempts++, this.#end.retryAfterMs ?? 0, this.setup.backoff, () => clock.random());
    this.#dueTimer = clock.setTimeout(() => this.#input("due"), delay);
    this.#dueAt = clock.now() + delay;
  }

  #stopped(): void {
    this.setup.clock.clearTimeout(this.#watchTimer);
    this.setup.clock.clearTimeout(this.#limitTimer);
  }

  #tell(state: State): void {
    const { code, reason, error } = this.#end;
    const transport = this.#transport?.kind ?? this.status.get().transport;
    const known = this.status.get();
    if (known.state === state) return;
    this.status.set({
      state,
      ...(transport && { transport }),
      ...(reason && { reason, code }),
      ...(state === "suspended" && { retryAt: this.#dueAt }),
      ...(state === "failed" && { error }),
    });
  }
}
