// Real gateways behind a proxy that has something against WebSockets.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { TidingsClient } from "../../src/client.js";
import { systemClock, type Clock } from "../../src/clock.js";
import type { TidingsOptions } from "../../src/options.js";
import type { WebSocketConstructor } from "../../src/transport/websocket.js";
import { BlockingProxy } from "../support/blocking.js";
import { startFleet, until, type Fleet } from "../support/fleet.js";
import { SECRET, tokenFor } from "../support/real.js";

const GRACE = { TIDINGS_PRESENCE_GRACE_S: "1" };
const SETTINGS = { open: GRACE, jwt: { ...GRACE, TIDINGS_AUTH: "jwt", TIDINGS_JWT_SECRETS: SECRET } };
/** Minutes pass in half a second. */
const HASTY: Clock = { ...systemClock, setTimeout: (callback, ms) => setTimeout(callback, ms < 60_000 ? ms : 500) };
const WAIT_MS = 20_000;

describe.each(Object.entries(SETTINGS))("%s", (auth, settings) => {
  let fleet: Fleet;
  let proxy: BlockingProxy;
  let url: string;
  const clients: TidingsClient[] = [];

  beforeAll(async () => {
    fleet = await startFleet(settings);
  });
  afterAll(() => (fleet as Fleet | undefined)?.end());
  beforeEach(async () => {
    proxy = new BlockingProxy();
    url = await proxy.start(fleet.url);
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    proxy.end();
  });

  function clientOf(name: string, at: string, options: TidingsOptions = {}): TidingsClient {
    const credentials = { getToken: () => tokenFor(name, 600, { tidings: { join: ["*"], publish: ["*"] } }) };
    const client = new TidingsClient(at, {
      WebSocket: WebSocket as unknown as WebSocketConstructor,
      storage: null,
      ...(auth === "jwt" ? credentials : { username: name }),
      ...options,
    });
    clients.push(client);
    return client;
  }

  it("a message whose answer was lost is repeated over HTTP, and stored once", async () => {
    const name = `double-${auth}`;
    const ada = clientOf("ada", url, { backoff: { firstMs: 100, longestMs: 200 } });
    const grace = clientOf("grace", fleet.url);
    const [seen, heard, joins]: unknown[][] = [[], [], []];
    ada.room(name).on("message", ({ content }) => seen!.push(content));
    grace.room(name).on("message", ({ userId, content }) => heard!.push([userId, content]));
    for (const event of ["userJoined", "userLeft"] as const) grace.room(name).on(event, ({ userId }) => joins!.push([event, userId]));
    await Promise.all([ada.connect(), grace.connect()]);
    await grace.room(name).join();
    await ada.room(name).join();
    const user = ada.userId;
    await until(async () => joins!.length > 0, () => "nobody saw who joined", WAIT_MS);
    expect(ada.status.get().transport).toBe("websocket");

    proxy.swallow();
    const sent = ada.room(name).publish("exactly once?", { id: "my-id-1" });
    await until(async () => heard!.length > 0, () => "it was not stored", WAIT_MS);
    proxy.upgrades = "refused";
    proxy.cut();
    await grace.room(name).publish("meanwhile");
    const { seq } = await sent;
    await ada.room(name).publish("as a stream");
    await until(async () => heard!.length > 1, () => JSON.stringify(heard), WAIT_MS);

    expect(ada.status.get()).toMatchObject({ state: "connected", transport: "sse" });
    const { messages } = await ada.room(name).history();
    expect(messages.map(({ userId, content }) => [userId, content])).toEqual([
      [user, "exactly once?"],
      [grace.userId, "meanwhile"],
      [user, "as a stream"],
    ]);
    expect(messages[0]?.seq).toBe(seq);
    expect([seen, heard]).toEqual([["meanwhile"], [[user, "exactly once?"], [user, "as a stream"]]]);
    expect([ada.userId, joins]).toEqual([user, [["userJoined", user]]]);
  }, 60_000);

  it("a working stream stays until a WebSocket works, and no user sees this one leave", async () => {
    const name = `beside-${auth}`;
    proxy.upgrades = "refused";
    const ada = clientOf("ada", url, { clock: HASTY });
    const grace = clientOf("grace", fleet.url);
    const [seen, heard, joins, states]: unknown[][] = [[], [], [], []];
    for (const event of ["userJoined", "userLeft"] as const) grace.room(name).on(event, ({ userId }) => joins!.push([event, userId]));
    grace.room(name).on("message", ({ content }) => heard!.push(content));
    ada.room(name).on("message", ({ content }) => seen!.push(content));
    await Promise.all([ada.connect(), grace.connect()]);
    await grace.room(name).join();
    await ada.room(name).join();
    const user = ada.userId;
    ada.on("status", ({ state, transport }) => states!.push(`${state} ${transport}`));
    const stillTried = async (): Promise<void> => {
      const before = proxy.refused;
      await until(async () => proxy.refused > before + 1, () => "no WebSocket was tried beside the stream", WAIT_MS);
    };
    const both = async (number: number): Promise<void> => {
      await Promise.all([ada.room(name).publish(`ada ${number}`), grace.room(name).publish(`grace ${number}`)]);
    };
    await both(1);
    await stillTried();
    await both(2);
    proxy.upgrades = "passed";
    await until(async () => ada.status.get().transport === "websocket", () => JSON.stringify(ada.status.get()), WAIT_MS);
    const since = Date.now();
    await both(3);
    await until(async () => Date.now() > since + 3000, () => "", WAIT_MS); // the stream ends, and its grace
    await both(4);
    await until(async () => heard!.length === 4 && seen!.length === 4, () => JSON.stringify([heard, seen]), WAIT_MS);
    ada.close();
    await until(async () => joins!.length > 1, () => JSON.stringify(joins), WAIT_MS);
    expect(joins).toEqual([["userJoined", user], ["userLeft", user]]);
    expect(heard).toEqual([1, 2, 3, 4].map((number) => `ada ${number}`));
    expect(seen).toEqual([1, 2, 3, 4].map((number) => `grace ${number}`));
    expect(states).toEqual(["connected websocket", "closed websocket"]);
  }, 60_000);

  it("an upgrade that is never answered costs seconds", async () => {
    proxy.upgrades = "unanswered";
    const ada = clientOf("ada", url);
    const since = Date.now();
    await ada.connect();
    const tookMs = Date.now() - since;
    expect(ada.status.get().transport).toBe("sse");
    await ada.room(`slow-${auth}`).join();
    await ada.room(`slow-${auth}`).publish("hello");
    await ada.setStatus("busy");
    expect(tookMs).toBeLessThan(9000); // it was two time limits of ten seconds
  }, 60_000);
});
