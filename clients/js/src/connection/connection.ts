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
  /** Which transport worked when a client here was last connected. */
  lastTransport: TransportKind | undefined;
  open(kind: TransportKind, events: TransportEvents): Transport;
  onMessage(message: ServerMessage): void;
  onUp(welcome: Welcome): void;
  onDown(): void;
  onInboxAt(position: Position): void;
  onTokenExpired(): void;
}

/** A connection that lived so long has forgotten the failures before it: a server that sends all away is no success. */
const STABLE_MS = 5000;
/** How long the first transport may take before the second is tried beside it. */
const RACE_MS = 3000;
/** How long the old transport stays beside the new one: others shall not see this user leave. */
const RETIRE_MS = 1000;

/** Keeps one transport to the server open, and opens the next one when and only when it should. */
export class Connection {
  readonly status = new Store<ConnectionStatus>({ state: "closed" });
  readonly #fallback: Fallback;
  #transport: Transport | undefined;
  /** Beside it: one that may be quicker, or better, or the one before it for a moment more. */
  #side: Transport | undefined;
  /** What a better transport began with, while the other's last answers are waited for. */
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

  /** The network is gone, says the machine: waiting for a silence would tell the user late. */
  offline(): void {
    if (this.state === "connected") this.#ended({ reason: "the network is away", reconnect: true });
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
    if (this.state !== before) return; // closed by a listener meanwhile
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
    // What a transport reports after it was let go concerns nobody.
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

  // --- a second transport, beside the one that works or is being tried ---

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
      // It was quicker. The other one may still make it, and is better then.
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

  // --- the one ---

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

  /** A transport works: watch it, and what is better. */
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
    // The other one may make it yet; a server that allows one connection ends the older for it.
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

  #tell(state: State): void {
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
