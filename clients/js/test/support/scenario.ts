/** Carries out the rows of tests/fixtures/scenarios/faked.json; the README beside it describes the steps. */
import { readFileSync } from "node:fs";
import { vi } from "vitest";
import type { CallOptions, TidingsClient } from "../../src/client.js";
import type { CredentialRequest } from "../../src/credentials.js";
import { TidingsError } from "../../src/errors.js";
import type { ClientMessage, ServerMessage, Status } from "../../src/generated/wire.js";
import { Inbox } from "../../src/inbox.js";
import type { TidingsOptions } from "../../src/options.js";
import type { Presence } from "../../src/presence.js";
import type { PublishOptions, Room } from "../../src/room.js";
import { clientOf, pass } from "./client.js";
import { FakeServer, type FakeConnection } from "./server.js";

export type Step = [verb: string, ...given: unknown[]];

export interface Row {
  name: string;
  steps: Step[];
  options?: Record<string, unknown>;
  clients?: string[];
  why?: string;
  ways?: string[];
  server?: string;
}

const WHO = "js";
const KNOWN = ["name", "steps", "options", "clients", "why", "ways", "server"];

/** Returns the rows of a table that this client has to pass. */
export function rows(table: string): Row[] {
  const file = new URL(`../../../../tests/fixtures/scenarios/${table}.json`, import.meta.url);
  const all = JSON.parse(readFileSync(file, "utf8")) as Row[];
  for (const row of all) {
    must(Object.keys(row).every((name) => KNOWN.includes(name)), `${row.name} has a field that is not known`);
    must((row.clients === undefined) === (row.why === undefined), `${row.name}: say why not for all clients`);
    must((row.clients ?? []).every((who) => ["js", "python"].includes(who)), `${row.name}: there is no such client`);
  }
  return all.filter(({ clients = [WHO] }) => clients.includes(WHO));
}

export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

export const errorOf = (fault: unknown): object => {
  must(fault instanceof TidingsError, `not an error of ours: ${String(fault)}`);
  const { code, message, retryable } = fault as TidingsError;
  return { code, message, retryable };
};

/** Whether all that is in `part` is in `whole`. */
export function isPart(part: unknown, whole: unknown): boolean {
  if (Array.isArray(part) && Array.isArray(whole)) {
    return part.length === whole.length && part.every((each, index) => isPart(each, whole[index]));
  }
  if (isObject(part) && isObject(whole)) {
    return Object.entries(part).every(([name, value]) => isPart(value, whole[name]));
  }
  return Object.is(part, whole);
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

/** Runs one step at a time, and names the failed one. */
export async function runSteps(steps: Step[], run: (verb: string, given: unknown[]) => unknown): Promise<void> {
  for (const [index, [verb, ...given]] of steps.entries()) {
    try {
      await run(verb, given);
    } catch (fault) {
      throw new Error(`step ${index + 1}, ${JSON.stringify([verb, ...given])}: ${(fault as Error).message}`, { cause: fault });
    }
  }
}

/** Compares what is expected with what is found by these names. */
export async function compare(expected: object, look: Record<string, (expected: never) => unknown>): Promise<void> {
  for (const [name, value] of Object.entries(expected)) {
    const see = look[name];
    if (!see) throw new Error(`this runner does not know what "${name}" is`);
    const found = await see(value as never);
    must(JSON.stringify(found) === JSON.stringify(value), `${name} is ${JSON.stringify(found)}`);
  }
}

type Result = "open" | { ok: unknown } | { error: object };

/** Keeps what becomes of a promise. */
export class Results {
  readonly #known = new Map<string, Result>();

  keep(name: string, promise: Promise<unknown>): void {
    this.#known.set(name, "open");
    promise.then(
      (value) => this.#known.set(name, { ok: value ?? {} }),
      (fault: unknown) => this.#known.set(name, { error: errorOf(fault) }),
    );
  }

  get(name: string): Result | undefined {
    return this.#known.get(name);
  }
}

/** Keeps the contents that come from a room or an inbox, and its gaps. */
export function collect(into: unknown[], from: Room | Inbox): void {
  const take = ({ content }: { content: unknown }): void => void into.push(content);
  if (from instanceof Inbox) from.on("message", take);
  else from.on("message", take);
  (from as Inbox).on("gap", () => void into.push("gap"));
}

const forEachOf = <T>(expected: Record<string, unknown>, find: (name: string) => T): Record<string, T> =>
  Object.fromEntries(Object.keys(expected).map((name) => [name, find(name)]));

/** Calls back when a page is hidden and shown, as `document` does. */
function stubPage(): EventTarget & { hidden: boolean } {
  const page = Object.assign(new EventTarget(), { hidden: false });
  vi.stubGlobal("document", page);
  vi.stubGlobal("window", new EventTarget());
  return page;
}

/** One row: a client, the server it sees, and what came of it. Fake timers have to be in use. */
export class Faked {
  readonly #server = new FakeServer();
  readonly #page = stubPage();
  readonly #client: TidingsClient;
  readonly #asked: boolean[] = [];
  readonly #results = new Results();
  readonly #seen = new Map<string, unknown[]>();
  readonly #presenceSeen = new Map<string, string[]>();
  readonly #alertsSeen: string[] = [];
  readonly #errors: string[] = [];
  readonly #removals = new Map<string, string[]>();
  readonly #arrivals = new Map<string, unknown[]>();
  readonly #askedForRooms: boolean[] = [];
  readonly #inbox: unknown[] = [];
  readonly #following = new Map<string, () => void>();
  #shown = "";

  constructor(options: Record<string, unknown> = {}) {
    const { token, ...others } = options;
    this.#client = clientOf(this.#server, { fetch: this.#server.fetch, ...(others as TidingsOptions), ...(token !== undefined && this.#tokens(token)) });
    collect(this.#inbox, this.#client.inbox);
    this.#client.on("error", ({ code }) => this.#errors.push(code));
    this.#client.alerts.on("raised", ({ id }) => this.#alertsSeen.push(`+${id}`));
    this.#client.alerts.on("resolved", ({ id }) => this.#alertsSeen.push(`-${id}`));
  }

  async run(steps: Step[]): Promise<void> {
    try {
      await runSteps(steps, async (verb, given) => {
        const act = this.#acts[verb];
        if (!act) throw new Error(`this runner does not know "${verb}"`);
        await act(...(given as never[]));
        await pass();
        if (verb === "expect") await compare(given[0] as object, this.#looks);
      });
    } finally {
      this.#client.close();
      vi.unstubAllGlobals();
    }
  }

  /** A token is shown to `POST /api/tickets`, and its ticket opens the connection. */
  #tokens(kind: unknown): TidingsOptions {
    must(kind === true || kind === "fails once", `no such token: ${String(kind)}`);
    return {
      getToken: ({ refresh }: CredentialRequest) => {
        this.#asked.push(refresh);
        if (kind === "fails once" && this.#asked.length === 1) throw new Error("the application's server is away");
        return `token ${this.#asked.length}`;
      },
      fetch: async (input, init) => {
        if (!(input as string).endsWith("/api/tickets")) return this.#server.fetch(input, init);
        this.#shown = new Headers(init?.headers).get("Authorization")?.replace("Bearer ", "") ?? "";
        const refused = { code: "unauthorized", message: "no", retryable: false };
        if (this.#server.refuseCredentials-- > 0) return Response.json(refused, { status: 401 });
        return Response.json({ ticket: "t", expiresAt: 1 }, { status: 201 });
      },
    };
  }

  #presence(channel: string): Presence {
    const [, room] = channel.split(":");
    return room === undefined ? this.#client.presence : this.#client.room(room).presence;
  }

  #listen(name: string): Room {
    const room = this.#client.room(name);
    if (!this.#seen.has(name)) {
      const [seen, removals, arrivals]: [unknown[], string[], unknown[]] = [[], [], []];
      this.#seen.set(name, seen);
      this.#removals.set(name, removals);
      this.#arrivals.set(name, arrivals);
      collect(seen, room);
      room.on("removed", ({ reason }) => removals.push(reason));
      room.on("userJoined", ({ userId, memberData }) => arrivals.push({ [userId]: memberData ?? null }));
    }
    return room;
  }

  #want(name: string, { token, ...options }: { token?: unknown; history?: number; data?: unknown } = {}): void {
    const getToken = ({ refresh }: CredentialRequest): string => {
      this.#askedForRooms.push(refresh);
      if (token === "fails once" && this.#askedForRooms.length === 1) throw new Error("the application's server is away");
      return `room token ${this.#askedForRooms.length}`;
    };
    const given = { ...options, token: token === true || token === "fails once" ? getToken : (token as string | undefined) };
    const joined = this.#listen(name).join(given);
    this.#results.keep(`join ${name}`, joined.then((history) => ({ history: history.map(({ content }) => content) })));
  }

  #follow(channel: string): void {
    const presence = this.#presence(channel);
    const seen: string[] = [];
    this.#presenceSeen.set(channel, seen);
    presence.on("enter", ({ userId }) => seen.push(`+${userId}`));
    presence.on("leave", ({ userId }) => seen.push(`-${userId}`));
    presence.on("update", ({ userId, status }) => seen.push(`${userId} ${status}`));
    this.#following.set(channel, presence.watch());
  }

  readonly #acts: Record<string, (...given: never[]) => unknown> = {
    connect: async () => {
      this.#results.keep("connect", this.#client.connect());
      await pass();
      must(this.#client.status.get().state === "connected", JSON.stringify(this.#client.status.get()));
    },
    begin: () => this.#results.keep("connect", this.#client.connect()),
    close: () => this.#client.close(),
    wake: () => this.#client.wake(),
    hide: () => this.#turnPage(true),
    show: () => this.#turnPage(false),
    join: async (name: string, options?: object) => {
      this.#want(name, options);
      await pass();
      must(this.#client.room(name).state.get() === "joined", "it is not joined");
    },
    want: (name: string, options?: object) => this.#want(name, options),
    listen: (name: string) => void this.#listen(name),
    call: (name: string, method: string, data: unknown, options?: CallOptions) =>
      this.#results.keep(name, this.#client.call(method, data, options)),
    leave: (name: string) => this.#client.room(name).leave(),
    publish: (name: string, room: string, content: unknown, options?: PublishOptions) =>
      this.#results.keep(name, this.#client.room(room).publish(content, options)),
    direct: (name: string, userId: string, content: unknown) =>
      this.#results.keep(name, this.#client.sendDirect(userId, content === "LARGE" ? "x".repeat(2000) : content)),
    broadcast: (name: string, content: unknown) => this.#results.keep(name, this.#client.broadcast(content)),
    status: (name: string, status: Status) => this.#results.keep(name, this.#client.setStatus(status)),
    data: (name: string, data: unknown) => this.#results.keep(name, this.#client.setCustomData(data)),
    follow: (...channels: string[]) => {
      for (const channel of channels) {
        if (channel.startsWith("presence")) this.#follow(channel);
        else this.#following.set(channel, this.#client[channel as "metrics" | "alerts" | "logs"].watch());
      }
    },
    unfollow: (channel: string) => this.#following.get(channel)?.(),
    pass: (ms: number) => pass(ms),
    offline: () => void (globalThis as { window?: EventTarget }).window?.dispatchEvent(new Event("offline")),
    beats: async (ms: number) => {
      for (let passed = 0; passed < ms; passed += 1000) {
        await pass(1000);
        this.#server.beat();
      }
    },
    upgrade: () => this.#server.connections.find(({ protocol, isOpen }) => protocol !== "sse" && isOpen)!.greet(),
    sleep: (ms: number) => void vi.setSystemTime(Date.now() + ms),
    server: (changes: Partial<FakeServer>) => {
      for (const name of Object.keys(changes)) must(name in this.#server, `the server has no "${name}"`);
      Object.assign(this.#server, changes);
    },
    say: (room: string, content: unknown) => this.#server.say(room, content),
    store: (room: string, content: unknown) => this.#server.store(room, content, "u-other"),
    "direct-in": (content: unknown) => this.#server.direct(content),
    keep: () => this.#server.keep(this.#server.last.of("room_message").at(-1)!),
    answer: (type: ClientMessage["type"]) => this.#server.answer(this.#server.last, this.#server.last.of(type).at(-1)!),
    send: (message: unknown) => this.#server.last.send(filled(message) as ServerMessage),
    frame: (text: string) => this.#server.last.sendFrame(text),
    drop: (code: number) => this.#server.last.drop(code),
    disconnect: ({ code, reconnect, retryAfterMs }: { code: number; reconnect: boolean; retryAfterMs?: number }) =>
      this.#server.last.disconnect(code, reconnect, retryAfterMs),
    die: () => void (this.#server.last.closedWith = 1006), // without a close frame
    expect: () => undefined, // compared after everything has happened that needs no time
  };

  #turnPage(hidden: boolean): void {
    this.#page.hidden = hidden;
    this.#page.dispatchEvent(new Event("visibilitychange"));
  }

  get #status() {
    return this.#client.status.get();
  }

  readonly #looks: Record<string, (expected: never) => unknown> = {
    state: () => this.#status.state,
    reason: () => this.#status.reason,
    code: () => this.#status.code,
    transport: () => this.#status.transport,
    error: (expected: object) => {
      const found = this.#status.error && errorOf(this.#status.error);
      return isPart(expected, found) ? expected : found;
    },
    retryInMs: () => (this.#status.retryAt ?? NaN) - Date.now(),
    seen: (expected: Record<string, unknown>) => forEachOf(expected, (room) => this.#seen.get(room)),
    inbox: () => this.#inbox,
    inboxPosition: () => this.#client.inbox.position,
    position: (expected: Record<string, unknown>) => forEachOf(expected, (room) => this.#client.room(room).position),
    rooms: (expected: Record<string, unknown>) => forEachOf(expected, (room) => this.#client.room(room).state.get()),
    removals: (expected: Record<string, unknown>) => forEachOf(expected, (room) => this.#removals.get(room)),
    arrivals: (expected: Record<string, unknown>) => forEachOf(expected, (room) => this.#arrivals.get(room)),
    askedForRooms: () => this.#askedForRooms,
    results: (expected: Record<string, unknown>) =>
      forEachOf(expected, (name) => {
        const found = this.#results.get(name);
        return isPart(expected[name], found) ? expected[name] : found;
      }),
    errors: () => this.#errors,
    presence: (expected: Record<string, Record<string, unknown>>) =>
      forEachOf(expected, (channel) => {
        const { users, synced, count } = this.#presence(channel);
        const all: Record<string, unknown> = {
          users: Object.fromEntries([...users.get()].map(([userId, { status }]) => [userId, status])),
          memberData: Object.fromEntries([...users.get()].map(([userId, { memberData }]) => [userId, memberData ?? null])),
          synced: synced.get(),
          count: count.get(),
        };
        return forEachOf(expected[channel]!, (name) => all[name]);
      }),
    presenceSeen: (expected: Record<string, unknown>) => forEachOf(expected, (channel) => this.#presenceSeen.get(channel)),
    alerts: () => this.#client.alerts.active.get().map(({ id }) => id),
    alertsSeen: () => this.#alertsSeen,
    metrics: () => this.#client.metrics.history.get().map(({ timestamp }) => timestamp),
    connections: () => this.#server.connections.length,
    closedWith: () => this.#server.last.closedWith,
    departures: () => this.#server.departures,
    types: () => this.#server.last.types(),
    sent: (expected: Record<string, unknown[]>) =>
      forEachOf(expected, (type) => {
        const sent = this.#server.last.of(type as ClientMessage["type"]);
        return isPart(expected[type], sent) ? expected[type] : sent;
      }),
    ids: (expected: Record<string, unknown>) =>
      forEachOf(expected, (type) => {
        const of = (connection: FakeConnection) => connection.of(type as ClientMessage["type"]).map(({ id }) => id);
        return new Set(this.#server.connections.flatMap(of)).size;
      }),
    asked: () => this.#asked,
    shown: () => this.#shown,
  };
}

const FIGURES = ["cpu", "memory", "disk", "requests", "errors", "latencyP50", "latencyP95", "latencyP99"];

/** Returns a message with what its abbreviations stand for. */
function filled(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(filled);
  if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, filled(each)]));
  const [kind, of = ""] = typeof value === "string" ? value.split(" ") : [];
  if (kind === "RECORD") {
    const figures = Object.fromEntries(FIGURES.map((name) => [name, 1]));
    return { ...figures, network: { in: 0, out: 0 }, timestamp: Number(of) };
  }
  if (kind === "ALERT") {
    return { id: of, type: "warning", metric: of, value: 1, threshold: 1, message: "", timestamp: 1 };
  }
  return value;
}
