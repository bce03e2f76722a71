// The scenario table against real gateways, a real NATS and a real Redis.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { TidingsClient } from "../../src/client.js";
import { msgpack } from "../../src/msgpack.js";
import type { TidingsOptions } from "../../src/options.js";
import type { WebSocketConstructor } from "../../src/transport/websocket.js";
import { startFleet, until, type Fleet } from "../support/fleet.js";

let fleet: Fleet;
const clients: TidingsClient[] = [];

beforeAll(async () => {
  fleet = await startFleet({ TIDINGS_HEARTBEAT_INTERVAL_MS: "2000" });
});

afterAll(() => (fleet as Fleet | undefined)?.end()); // undefined where it did not start

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

function clientOf(options: TidingsOptions = {}): TidingsClient {
  const client = new TidingsClient(fleet.url, {
    WebSocket: WebSocket as unknown as WebSocketConstructor,
    storage: null,
    backoff: { firstMs: 200, longestMs: 1000 },
    connectTimeoutMs: 2000,
    ...options,
  });
  clients.push(client);
  return client;
}

async function connected(options: TidingsOptions = {}): Promise<TidingsClient> {
  const client = clientOf(options);
  await client.connect();
  return client;
}

async function listening(client: TidingsClient, name: string): Promise<unknown[]> {
  const seen: unknown[] = [];
  const room = client.room(name);
  room.on("message", ({ content }) => seen.push(content));
  room.on("gap", () => seen.push("gap"));
  await room.join();
  return seen;
}

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);
let rooms = 0;
const newRoom = () => `js-${process.pid}-${++rooms}`;

const WAYS: [string, TidingsOptions][] = [
  ["JSON over WebSocket", {}],
  ["MessagePack over WebSocket", { codec: msgpack }],
  ["Server-Sent Events and HTTP", { transports: ["sse"] }],
];

describe.each(WAYS)("%s", (_, options) => {
  it("carries rooms, direct messages, presence, metrics", async () => {
    const room = newRoom();
    const [one, other] = [await connected({ ...options, username: "Ada" }), await connected({ username: "Grace" })];
    const release = one.room(room).presence.watch();
    const seen = await listening(one, room);
    const said = await listening(other, room);
    await until(() => [...one.room(room).presence.users.get().values()].some((user) => user.username === "Grace"), "presence");
    await other.room(room).publish({ text: "Grüße 🛰️" });
    const { seq } = await one.room(room).publish([1, 2.5, null, true]);
    expect(seq).toBeGreaterThan(0);
    await until(() => seen.length > 0 && said.length > 0, "both heard");
    expect(seen[0]).toEqual({ text: "Grüße 🛰️" });
    expect(said).toEqual([[1, 2.5, null, true]]);
    one.metrics.watch();
    await until(() => one.metrics.latest.get() !== undefined, "a metrics record");
    expect((await one.room(room).history()).messages).toHaveLength(2);
    release();
  });

  it("misses nothing when its gateway is killed, and sees nothing twice", async () => {
    const room = newRoom();
    const publisher = await connected();
    await publisher.room(room).join();
    const listener = await connected(options);
    const seen = await listening(listener, room);
    // A stream does not say which gateway serves it: then both are killed, one after the other.
    const victims = listener.welcome?.gateway ? [listener.welcome.gateway] : ["gateway-1", "gateway-2"];
    const acks: Promise<unknown>[] = [];
    for (const number of numbers(60)) {
      acks.push(publisher.room(room).publish(number));
      if (number === 10) await fleet.order("kill", victims[0]!);
      if (number === 30 && victims[1]) {
        await new Promise((resolve) => setTimeout(resolve, 3000)); // the first one is back by then
        await fleet.order("kill", victims[1]);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await Promise.all(acks);
    await until(() => seen.length >= 60, "all messages");
    expect(new Set(seen)).toEqual(new Set(numbers(60)));
    expect(seen).toHaveLength(60);
  });
});

it("resumes the inbox when the gateway is killed", async () => {
  const [one, other] = [await connected(), await connected()];
  const seen: unknown[] = [];
  one.inbox.on("message", ({ content }) => seen.push(content));
  one.inbox.on("gap", () => seen.push("gap"));
  await other.sendDirect(one.userId!, 0);
  await until(() => seen.length === 1, "the first message");
  const { userId } = one;
  await fleet.order("kill", one.welcome!.gateway);
  for (const number of [1, 2, 3]) await other.sendDirect(userId!, number);
  await until(() => seen.length >= 4, "the others");
  expect(seen).toEqual([0, 1, 2, 3]);
  expect(one.userId).toBe(userId);
});

it("leaves a gateway that is stopped, without missing anything", async () => {
  const room = newRoom();
  const listener = await connected();
  const seen = await listening(listener, room);
  const publisher = await connected();
  await publisher.room(room).join();
  await fleet.order("stop", listener.welcome!.gateway);
  for (const number of numbers(20)) {
    await publisher.room(room).publish(number);
  }
  await until(() => seen.length >= 20, "all messages");
  expect(seen).toEqual(numbers(20));
});

it("keeps the connection while NATS is paused, and delivers afterwards", async () => {
  const room = newRoom();
  const [one, other] = [await connected(), await connected()];
  const seen = await listening(other, room);
  await one.room(room).join();
  await fleet.order("pause", "nats-server");
  const published = one.room(room).publish("patience");
  await new Promise((resolve) => setTimeout(resolve, 2000));
  expect(one.status.get().state).toBe("connected");
  await fleet.order("resume", "nats-server");
  await published;
  await until(() => seen.length > 0, "the message");
  expect(seen).toEqual(["patience"]);
});

it("stays away when the server says so", async () => {
  const client = await connected();
  const operator = await connected();
  await operator.request("DELETE /api/users/{id}/connections", { path: { id: client.userId! }, query: { reason: "bye" } });
  await until(() => client.status.get().state === "failed", "failed");
  expect(client.status.get()).toMatchObject({ code: 4502 });
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(client.status.get().state).toBe("failed");
});

it("leaves a gateway that fell silent, as a laptop does that wakes", async () => {
  const room = newRoom();
  const client = await connected();
  const seen = await listening(client, room);
  const frozen = client.welcome!.gateway;
  await fleet.order("pause", frozen);
  try {
    client.wake();
    await until(() => client.status.get().state === "connected" && client.welcome!.gateway !== frozen, "another gateway", 40_000);
    await client.room(room).publish("thawed", { echo: true });
    await until(() => seen.length > 0, "the message");
    expect(seen).toEqual(["thawed"]);
  } finally {
    await fleet.order("resume", frozen);
  }
}, 60_000);
