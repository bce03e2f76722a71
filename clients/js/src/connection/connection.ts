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

/** State of the connection. */
export interface ConnectionStatus {
  readonly state: State;
  /** The current transport, or the last one. */
  readonly transport?: TransportKind;
  /** Why the last connection ended or failed. */
  readonly reason?: string;
  /** The close code, where there was one. */
  readonly code?: number | undefined;
  /** While suspended: time of the next attempt, in ms since 1970. */
  readonly retryAt?: number;
  /** While failed: the server's refusal. */
  readonly error?: TidingsError | undefined;
}

export interface ConnectionSetup {
  clock: Clock;
  transports: readonly TransportKind[];
  backoff: BackoffOptions;
  /** Time limit for opening a connection. */
  connectMs: number;
  /** Time limit of the answer to a probe. */
  answerMs: number;
  /** The transport of the last connection, possibly of an earlier client on this page. */
  lastTransport: TransportKind | undefined;
  open(kind: TransportKind, events: TransportEvents): Transport;
  onMessage(message: ServerMessage): void;
  onUp(welcome: Welcome): void;
  onDown(): void;
  onInboxAt(position: Position): void;
  onTokenExpired(): void;
}

/** Age from which a connection resets the backoff. A server that accepts and disconnects at once must not reset it. */
const STABLE_MS = 5000;
/** Time after which the second transport is tried beside the first. */
const RACE_MS = 3000;
/** How long the old transport stays open beside the new one, so that other users do not see this user leave. */
const RETIRE_MS = 1000;

/** Keeps one transport to the server open, and decides when to open the next one. */
export class Connection {
  readonly status = new Store<ConnectionStatus>({ state: "closed" });
  readonly #fallback: Fallback;
  #transport: Transport | undefined;
  /** A second transport: one that may be faster or better, or the previous one until it retires. */
  #side: Transport | undefined;
  /** The `welcome` of a better transport, while the old one's last answers are awaited. */
  #better: Welcome | undefined;
  #watchdog: Watchdog | undefined;
  #end: End = { reason: "", reconnect: true };
  #attempts = 0;
  #upAt = 0;
  #notBefore = 0;
  #dueAt = 0;
  #dueTimer: unknown;
  #watchTimer: unknown;
  #limitTimer: unknown;
  #sideTimer: unknown;
  #probeTimer: unknown;
  #probeAt = 0;
  #probing = false;

  constructor(private readonly setup: ConnectionSetup) {
    this.#fallback = new Fallback(setup.transports, setup.lastTransport);
  }

  get state(): State {
    return this.status.get().state;
  }

  /** When the last byte arrived from the server, in ms since 1970. */
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

  /** The page or network has changed: reconnect now, or probe the connection. */
  wake(): void {
    if (this.setup.clock.now() >= this.#notBefore || this.state === "connected") this.#input("wake");
  }

  /** The browser reports that the network is gone. Waiting for the watchdog would show it late. */
  offline(): void {
    if (this.state === "connected") this.#ended({ reason: "the network is away", reconnect: true });
  }

  /** A request was not answered: probe the connection. */
  suspect(): void {
    if (this.state === "connected") this.#judge(this.#watchdog?.probe(this.setup.clock.now()));
  }

  /** Sends now, if connected. Throws a TidingsError for what the server would not accept. */
  send(message: ClientMessage): void {
    if (this.state === "connected") this.#transport?.send(message);
  }

  #input(input: Input): void {
    const before = this.state;
    const step = advance(before, input);
    if (!step) return;
    if (before === "connected" && step.next !== "connected") this.#stopped();
    for (const action of step.actions) this.#perform(action);
    if (this.state !== before) return; // closed by a listener meanwhile
    this.#setState(step.next);
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
        this.#closeSide();
        return;
      case "wait":
        return this.#wait();
      case "cancel":
        return clock.clearTimeout(this.#dueTimer);
      case "probe":
        return this.suspect();
      case "try":
        this.#beside(this.setup.transports[0] ?? "websocket");
        this.#probing = true;
        return;
      case "switch":
        return this.#switch();
    }
  }

  #open(): void {
    const { clock, connectMs } = this.setup;
    const kind = this.#fallback.choose();
    this.#transport = this.#begin(kind);
    this.#limitTimer = clock.setTimeout(() => this.#late(), connectMs);
    const rival = this.#fallback.rival(kind);
    if (rival) this.#sideTimer = clock.setTimeout(() => this.#beside(rival), RACE_MS);
  }

  #begin(kind: TransportKind): Transport {
    // Reports of a transport that is not used any more are ignored.
    const main = (take: () => void): void => {
      if (this.#transport === transport) take();
    };
    const transport: Transport = this.setup.open(kind, {
      heard: () => main(() => this.#watchdog?.heard(this.setup.clock.now())),
      message: (message) => {
        if (this.#side === transport && message.type === "welcome") this.#sideWelcomed(message, transport);
        else main(() => this.#take(message, kind));
      },
      inboxAt: (position) => main(() => this.setup.onInboxAt(position)),
      ended: (end) => (this.#side === transport ? this.#sideEnded(end) : main(() => this.#mainEnded(end))),
    });
    return transport;
  }

  // --- a second transport, beside the current one ---

  #beside(kind: TransportKind): void {
    this.#closeSide();
    this.#side = this.#begin(kind);
    this.#limitSide(this.setup.connectMs);
  }

  #limitSide(ms: number): void {
    this.setup.clock.clearTimeout(this.#sideTimer);
    this.#sideTimer = this.setup.clock.setTimeout(() => this.#sideEnded(undefined), ms);
  }

  #closeSide(): void {
    this.setup.clock.clearTimeout(this.#sideTimer);
    this.#side?.close(false);
    this.#side = this.#better = undefined;
    this.#probing = false;
  }

  #sideEnded(end: End | undefined): void {
    if (this.state === "connecting" && end?.reconnect === false) return this.#ended(end);
    if (this.#probing) this.#fallback.probed();
    this.#closeSide();
    if (this.state !== "connected" || !this.#transport || !this.#fallback.isFallback(this.#transport.kind)) return;
    this.#probeAt = 0;
    this.#probeLater();
  }

  #sideWelcomed(welcome: Welcome, side: Transport): void {
    if (this.state === "connecting") {
      // It was faster. The preferred one may still open, and then replaces it.
      [this.#transport, this.#side] = [side, this.#transport];
      this.#limitSide(this.setup.connectMs);
      this.#take(welcome, side.kind);
      return;
    }
    this.#better = welcome;
    void this.#transport?.settled().then(() => {
      if (this.#better === welcome) this.#input("upgraded");
    });
  }

  #switch(): void {
    const { setup } = this;
    const [welcome, side] = [this.#better, this.#side];
    if (!welcome || !side) return;
    this.#better = undefined;
    this.#probing = false; // it succeeded
    this.#stopped();
    this.setup.onDown();
    if (this.#side !== side) return; // closed by a listener
    [this.#transport, this.#side] = [side, this.#transport];
    this.#limitSide(RETIRE_MS);
    this.#begun(welcome, side);
    setup.onUp(welcome);
    setup.onMessage(welcome);
  }

  #probeLater(): void {
    const { clock } = this.setup;
    this.#probeAt ||= clock.now() + this.#fallback.pauseMs;
    clock.clearTimeout(this.#probeTimer);
    this.#probeTimer = clock.setTimeout(() => this.#input("upgrade"), Math.max(0, this.#probeAt - clock.now()));
  }

  // --- the current transport ---

  #take(message: ServerMessage, kind: TransportKind): void {
    if (message.type === "welcome" && this.state === "connecting") this.#welcomed(message, kind);
    this.setup.onMessage(message);
  }

  #welcomed(welcome: Welcome, kind: TransportKind): void {
    if (!this.#transport) return;
    if (!this.#fallback.isFallback(kind)) this.#closeSide();
    this.#begun(welcome, this.#transport);
    this.#end = { reason: "", reconnect: true };
    this.#input("welcomed");
    if (this.state === "connected") this.setup.onUp(welcome); // else closed by a listener
  }

  /** A transport is open: starts the watchdog, and probes of a better transport. */
  #begun(welcome: Welcome, transport: Transport): void {
    const { clock, answerMs } = this.setup;
    clock.clearTimeout(this.#limitTimer);
    this.#upAt = clock.now();
    this.#notBefore = 0;
    this.#fallback.worked(transport.kind);
    this.#watchdog = new Watchdog(this.#upAt, welcome.heartbeatInterval, answerMs, transport.probes);
    this.#watch();
    if (!this.#fallback.isFallback(transport.kind)) this.#probeAt = 0;
    else if (!this.#side) {
      clock.clearTimeout(this.#sideTimer);
      this.#probeLater();
    }
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

  #mainEnded(end: End): void {
    const { clock, connectMs } = this.setup;
    const [connected, main, side] = [this.state === "connected", this.#transport, this.#side];
    const trying = side && (!connected || (main && this.#fallback.isFallback(main.kind)));
    if (!trying || !end.reconnect) return this.#ended(end);
    if (this.#better) return this.#input("upgraded");
    // The other one may still open: a server that allows one connection per user disconnects the older one.
    clock.clearTimeout(this.#sideTimer);
    this.#transport = side;
    this.#side = undefined;
    this.#probing = false;
    if (!connected) return this.#fallback.failed();
    this.#end = end;
    this.#input("replaced");
    this.#limitTimer = clock.setTimeout(() => this.#late(), connectMs);
  }

  #late(): void {
    this.#ended({ reason: "the server did not answer in time", reconnect: true });
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
    this.setup.clock.clearTimeout(this.#probeTimer);
  }

  #setState(state: State): void {
    const { code, reason, error } = this.#end;
    const transport = this.#transport?.kind ?? this.status.get().transport;
    const known = this.status.get();
    if (known.state === state && known.transport === transport) return;
    this.status.set({
      state,
      ...(transport && { transport }),
      ...(reason && { reason, code }),
      ...(state === "suspended" && { retryAt: this.#dueAt }),
      ...(state === "failed" && { error }),
    });
  }
}
