/** Carries out the rows of tests/fixtures/scenarios/real.json; the README beside it describes the steps. */
import { createHmac } from "node:crypto";
import { WebSocket } from "ws";
import { TidingsClient } from "../../src/client.js";
import type { CredentialCallback } from "../../src/credentials.js";
import type { TidingsError } from "../../src/errors.js";
import type { RoomMessage } from "../../src/generated/wire.js";
import { msgpack } from "../../src/msgpack.js";
import type { TidingsOptions } from "../../src/options.js";
import type { PublishOptions, Room } from "../../src/room.js";
import type { WebSocketConstructor } from "../../src/transport/websocket.js";
import { type Fleet, until } from "./fleet.js";
import { collect, compare, errorOf, isPart, must, Results, runSteps, type Step } from "./scenario.js";

export const SECRET = "0123456789abcdef0123456789abcdef";

const WAYS: Record<string, TidingsOptions> = {
  json: { transports: ["websocket"] },
  msgpack: { transports: ["websocket"], codec: msgpack },
  sse: { transports: ["sse"] },
};
const WAIT_MS = 40_000;
let rooms = 0;

interface ActorOptions {
  way?: boolean;
  /** Before the room's name. */
  prefix?: string;
  tokens?: number[];
  limited?: boolean;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One client of a row, and what it saw. */
class Actor {
  readonly client: TidingsClient;
  readonly room: Room;
  readonly asked: boolean[] = [];
  readonly seen: unknown[] = [];
  readonly inbox: unknown[] = [];
  readonly states: string[] = [];
  readonly arrivals: Record<string, unknown> = {};
  readonly removals: string[] = [];
  readonly askedForRoom: boolean[] = [];
  userId: string | undefined;
  gateway: string | undefined;

  constructor(
    url: string,
    private readonly name: string,
    room: string,
    { tokens, limited, prefix = "" }: ActorOptions,
    way: TidingsOptions,
  ) {
    const getToken = tokens && givesTokens(name, tokens, this.asked, { tidings: limited ? LIMITED : ALL });
    this.client = new TidingsClient(url, {
      username: name,
      WebSocket: WebSocket as unknown as WebSocketConstructor,
      storage: null,
      backoff: { firstMs: 200, longestMs: 1000 },
      connectTimeoutMs: 2000,
      ...(getToken && { getToken }),
      ...way,
    });
    this.room = this.client.room(prefix + room);
    collect(this.seen, this.room);
    collect(this.inbox, this.client.inbox);
    this.room.on("removed", ({ reason }) => this.removals.push(reason));
    this.room.on("userJoined", ({ username, memberData }) => (this.arrivals[username] = memberData ?? null));
    this.client.on("status", ({ state }) => this.states.push(state));
  }

  /** Joins; `tokens`: the validity of each token of the room in seconds, in turn. */
  join({ tokens, ...options }: { tokens?: number[]; history?: number; data?: unknown } = {}): Promise<RoomMessage[]> {
    const claims = { room: this.room.name, publish: true };
    const token = tokens && givesTokens(this.name, tokens, this.askedForRoom, claims);
    return this.room.join({ ...options, token });
  }

  /** Its room and user, as in the paths of the server's API. */
  get membership(): { room: string; userId: string } {
    return { room: this.room.name, userId: this.userId ?? "" };
  }

  async connect(): Promise<void> {
    await this.client.connect();
    this.userId = this.client.userId;
    this.gateway = this.client.welcome?.gateway;
  }
}

/** One row. */
export class Real {
  readonly #room = `js-${process.pid}-${++rooms}`;
  readonly #actors = new Map<string, Actor>();
  readonly #results = new Results();
  readonly #paused: string[] = [];

  constructor(
    private readonly fleet: Fleet,
    private readonly way: string,
  ) {}

  async run(steps: Step[]): Promise<void> {
    try {
      await runSteps(steps, (verb, given) => this.#act(verb, given));
    } finally {
      for (const process of [...this.#paused]) await this.#order("resume", process);
      for (const { client } of this.#actors.values()) client.close();
    }
  }

  #actor(name: string): Actor {
    const actor = this.#actors.get(name);
    if (!actor) throw new Error(`there is no client ${name}`);
    return actor;
  }

  async #act(verb: string, given: unknown[]): Promise<void> {
    const act = this.#acts[verb];
    if (!act) throw new Error(`this runner does not know "${verb}"`);
    await act(...(given as never[]));
  }

  async #connect(name: string, options: ActorOptions): Promise<void> {
    const way = WAYS[options.way ? this.way : "json"];
    if (!way) throw new Error(`this runner does not know the way "${this.way}"`);
    const actor = new Actor(this.fleet.url, name, this.#room, options, way);
    this.#actors.set(name, actor);
    await actor.connect();
  }

  async #order(order: "kill" | "stop" | "pause" | "resume", named: string): Promise<void> {
    const of = "gateway of ";
    const process = named.startsWith(of) ? (this.#actor(named.slice(of.length)).client.welcome?.gateway ?? "") : named;
    await this.fleet.order(order, process);
    if (order === "pause") this.#paused.push(process);
    if (order === "resume") this.#paused.splice(this.#paused.indexOf(process), 1);
  }

  async #publishAll(name: string, count: number, orders: Record<string, Step>): Promise<void> {
    const answers: Promise<unknown>[] = [];
    for (let number = 0; number < count; number++) {
      const [verb, ...given] = orders[number] ?? [];
      if (verb !== undefined) await this.#act(verb, given);
      answers.push(this.#actor(name).room.publish(number));
      await sleep(20);
    }
    await Promise.all(answers);
  }

  readonly #acts: Record<string, (...given: never[]) => unknown> = {
    connect: (name: string, options: ActorOptions) => this.#connect(name, options),
    fail: async (name: string, options: ActorOptions) => {
      const letIn = await this.#connect(name, options).then(
        () => true,
        () => false,
      );
      must(!letIn, "it was let in");
    },
    join: async (name: string, options?: object) => {
      const joined = this.#actor(name).join(options);
      this.#results.keep(`join ${name}`, joined.then((past) => past.map(({ content }) => content)));
      await joined;
    },
    refused: async (name: string, room: string, expected: object = { code: "forbidden" }) => {
      const fault = await this.#actor(name).client.room(room).join().then(() => undefined, errorOf);
      must(isPart(expected, fault), `it was answered ${JSON.stringify(fault)}`);
    },
    admit: (name: string, by: string) =>
      this.#actor(by).client.request("PUT /api/rooms/{room}/users/{userId}", { path: this.#actor(name).membership }),
    remove: (name: string, by: string) =>
      this.#actor(by).client.request("DELETE /api/rooms/{room}/users/{userId}", { path: this.#actor(name).membership }),
    call: (result: string, name: string, method: string, data: unknown) =>
      this.#results.keep(result, this.#actor(name).client.call(method, data).then((answer) => [answer])),
    follow: (name: string) => {
      this.#actor(name).room.presence.watch();
      this.#actor(name).client.metrics.watch();
    },
    wake: (name: string) => this.#actor(name).client.wake(),
    publish: (name: string, content: unknown, options?: PublishOptions) => this.#actor(name).room.publish(content, options),
    direct: (name: string, to: string, content: unknown) =>
      this.#actor(name).client.sendDirect(this.#actor(to).userId ?? "", content),
    begin: (result: string, name: string, content: unknown) =>
      this.#results.keep(result, this.#actor(name).room.publish(content)),
    "publish-all": (name: string, count: number, orders: Record<string, Step>) => this.#publishAll(name, count, orders),
    wait: (ms: number) => sleep(ms),
    kill: (process: string) => this.#order("kill", process),
    stop: (process: string) => this.#order("stop", process),
    pause: (process: string) => this.#order("pause", process),
    resume: (process: string) => this.#order("resume", process),
    disconnect: (name: string, by: string) =>
      this.#actor(by).client.request("DELETE /api/users/{id}/connections", {
        path: { id: this.#actor(name).userId ?? "" },
        query: { reason: "bye" },
      }),
    stays: async (ms: number, name: string, state: string) => {
      const { client, states } = this.#actor(name);
      states.length = 0;
      await sleep(ms);
      must(client.status.get().state === state && states.length === 0, `it was ${[state, ...states].join(", ")}`);
    },
    until: async (name: string, expected: object) => {
      let wrong = "";
      const look = (): Promise<boolean> =>
        compare(expected, this.#looks(this.#actor(name))).then(
          () => true,
          (fault: unknown) => ((wrong = (fault as Error).message), false),
        );
      await until(look, () => wrong, WAIT_MS);
    },
    expect: (name: string, expected: object) => compare(expected, this.#looks(this.#actor(name))),
  };

  #looks(actor: Actor): Record<string, (expected: never) => unknown> {
    const { client, room, seen } = actor;
    return {
      state: () => client.status.get().state,
      code: () => client.status.get().code,
      error: () => client.status.get().error?.code,
      asked: () => actor.asked,
      seen: (expected: unknown) => (typeof expected === "string" ? allOf(seen, expected) : seen),
      seenCount: () => seen.length,
      seenFirst: () => seen[0],
      inbox: () => actor.inbox,
      people: (expected: string[]) => {
        const names = new Set([...room.presence.users.get().values()].map(({ username }) => username));
        return isPart([...expected].sort(), [...names].sort()) ? expected : [...names];
      },
      memberData: (expected: object) => {
        const users = [...room.presence.users.get().values()];
        const found = Object.fromEntries(users.map(({ username, memberData }) => [username, memberData ?? null]));
        return isPart(expected, found) ? expected : found;
      },
      arrivals: (expected: object) => (isPart(expected, actor.arrivals) ? expected : actor.arrivals),
      room: () => room.state.get(),
      removals: () => actor.removals,
      askedForRoom: () => actor.askedForRoom,
      metrics: () => client.metrics.latest.get() !== undefined,
      stored: async () => (await room.history()).messages.length,
      results: (expected: object) =>
        Object.fromEntries(Object.keys(expected).map((name) => [name, said(this.#results.get(name))])),
      sameUser: () => client.userId === actor.userId,
      gateway: () => (client.welcome?.gateway === actor.gateway ? "the same" : "another"),
    };
  }
}

/** Returns `expected` ("all N, in order") if that is so, else what was seen. */
function allOf(seen: readonly unknown[], expected: string): unknown {
  const numbers = Array.from({ length: Number(/\d+/.exec(expected)?.[0]) }, (_, number) => number);
  const shown = expected.endsWith("in any order") ? [...(seen as number[])].sort((one, other) => one - other) : seen;
  return isPart(numbers, shown) ? expected : seen;
}

/** Returns the contents of a join, the answer of a call, "ok", the code of an error, or "open". */
function said(result: ReturnType<Results["get"]>): unknown {
  if (typeof result !== "object") return result;
  if ("error" in result) return (result.error as TidingsError).code;
  return Array.isArray(result.ok) ? result.ok : "ok";
}

const ALL = { join: ["*"], publish: ["*"], admin: true };
const LIMITED = { join: ["js-*"], publish: ["js-*"], channels: [] };

/** Returns a function that gives tokens, valid for these seconds in turn, and notes how it was asked. */
function givesTokens(name: string, seconds: number[], asked: boolean[], claims: object): CredentialCallback {
  return ({ refresh }) => {
    const valid = seconds[Math.min(asked.length, seconds.length - 1)] ?? 0;
    asked.push(refresh);
    return tokenFor(name, valid, claims);
  };
}

export function tokenFor(sub: string, seconds: number, more: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const claims = { sub, exp, aud: "tidings", ...more };
  const head = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${head}.${createHmac("sha256", SECRET).update(head).digest("base64url")}`;
}
