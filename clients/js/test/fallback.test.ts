import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TidingsClient } from "../src/client.js";
import type { TidingsOptions } from "../src/options.js";
import { encodeEventId } from "../src/transport/eventid.js";
import { evenClock, pass } from "./support/client.js";
import { FakeServer } from "./support/server.js";
import { FakeStreams } from "./support/streams.js";

let streams: FakeStreams;
let client: TidingsClient;

beforeEach(() => {
  vi.useFakeTimers();
  streams = new FakeStreams();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

async function connected(options: TidingsOptions = {}): Promise<void> {
  client = new TidingsClient("http://server", {
    transports: ["sse"],
    fetch: streams.fetch,
    clock: evenClock,
    storage: null,
    username: "Ada",
    ...options,
  });
  const opening = client.connect();
  await pass();
  await opening;
}

const said = (seq: number) =>
  ({ type: "room_message", userId: "u", username: "u", room: "lobby", content: seq, timestamp: 1, seq }) as const;
const joined = (seq: number, more = {}) => ({ type: "joined_room", room: "lobby", epoch: "e1", seq, ...more }) as const;

describe("a stream", () => {
  it("asks for rooms and channels when it opens, and again when they change", async () => {
    client = new TidingsClient("http://server", { transports: ["sse"], fetch: streams.fetch, clock: evenClock, storage: null });
    const joining = client.room("lobby").join();
    client.metrics.watch();
    void client.connect();
    await pass();
    expect(streams.last.list("rooms")).toEqual(["lobby"]);
    expect(streams.last.list("channels")).toEqual(["metrics", "inbox"]);
    streams.last.message(joined(4));
    await pass();
    await joining;
    const other = client.room("other").join();
    client.room("third").join().catch(() => undefined);
    await pass(20);
    expect(streams.streams).toHaveLength(2);
    expect(streams.last.list("rooms")).toEqual(["lobby", "other", "third"]);
    expect(streams.last.headers.get("Last-Event-ID")).toBe(encodeEventId([["lobby", { epoch: "e1", seq: 4 }]]));
    streams.last.message({ ...joined(9), room: "other" } as never);
    await pass();
    await other;
    client.room("other").leave();
    await pass(20);
    expect(streams.last.list("rooms")).toEqual(["lobby", "third"]);
    expect(client.status.get()).toMatchObject({ state: "connected", transport: "sse" });
  });

  it("resumes where it stood, rooms and inbox, and shows nothing twice", async () => {
    await connected();
    const seen: unknown[] = [];
    client.room("lobby").on("message", ({ content }) => seen.push(content));
    client.inbox.on("message", ({ content }) => seen.push(content));
    void client.room("lobby").join();
    await pass(20);
    const inbox = encodeEventId([["", { epoch: "i1", seq: 2 }]]);
    streams.last.message({ type: "subscribed", channels: ["inbox"] } as never, inbox);
    streams.last.message(joined(4));
    streams.last.message(said(5));
    const direct = { type: "direct_message", fromUserId: "u", username: "u", timestamp: 1 } as const;
    streams.last.message({ ...direct, content: "d3", seq: 3 } as never);
    await pass();
    streams.last.end();
    await pass(250);
    expect(streams.last.headers.get("Last-Event-ID")).toBe(
      encodeEventId([
        ["lobby", { epoch: "e1", seq: 5 }],
        ["", { epoch: "i1", seq: 3 }],
      ]),
    );
    streams.last.message(said(5));
    streams.last.message(said(6));
    streams.last.message(joined(6, { recovered: true }));
    streams.last.message({ ...direct, content: "d4", seq: 4 } as never);
    streams.last.message({ type: "subscribed", channels: ["inbox"], recovered: true } as never);
    streams.last.message(said(7));
    await pass();
    expect(seen).toEqual([5, "d3", 6, "d4", 7]);
  });

  it("reports what could not be resumed", async () => {
    await connected();
    const gaps: unknown[] = [];
    client.room("lobby").on("gap", ({ position }) => gaps.push(position));
    void client.room("lobby").join();
    await pass(20);
    streams.last.message(joined(4));
    await pass();
    streams.last.end();
    await pass(250);
    streams.last.event("reset", { type: "reset", topics: ["lobby"], reason: "evicted" });
    streams.last.message(joined(50, { recovered: false }));
    await pass();
    expect(gaps).toEqual([{ epoch: "e1", seq: 50 }]);
  });

  it("publishes over HTTP", async () => {
    await connected();
    void client.room("lobby").join();
    await pass(20);
    streams.last.message(joined(0));
    await pass();
    await expect(client.room("lobby").publish({ text: "hi" })).resolves.toMatchObject({ seq: 1 });
    await client.sendDirect("u-other", 1);
    await client.broadcast(2);
    await client.setStatus("away");
    await client.setCustomData({ page: 1 });
    const as = "?username=Ada&session=signed";
    expect(streams.sent).toEqual([
      [`POST /api/rooms/lobby/messages${as}`, { content: { text: "hi" }, id: expect.any(String) as string }, "s2"],
      [`POST /api/users/u-other/messages${as}`, { content: 1, id: expect.any(String) as string }, "s2"],
      [`POST /api/broadcast${as}`, { content: 2 }, "s2"],
      [`PUT /api/me/status${as}`, { status: "away" }, "s2"],
      [`PUT /api/me/data${as}`, { customData: { page: 1 } }, "s2"],
    ]);
    expect([client.userId, client.welcome?.username]).toEqual(["u-me", "Ada"]);
    streams.refusals.push(Response.json({ code: "forbidden", message: "no", retryable: false }, { status: 403 }));
    await expect(client.broadcast(3)).rejects.toMatchObject({ code: "forbidden" });
  });

  it("sends status and data again on every stream", async () => {
    await connected();
    await client.setStatus("busy");
    client.room("lobby").join().catch(() => undefined);
    await pass(20);
    expect(streams.sent.map(([, body, connection]) => [body, connection])).toEqual([
      [{ status: "busy" }, "s1"],
      [{ status: "busy" }, "s2"],
    ]);
  });

  it("names the stream that is open, and sends nothing while one is opened", async () => {
    await connected();
    const lobby = client.room("lobby");
    void lobby.join();
    await pass(20);
    streams.last.message(joined(0));
    await pass();
    streams.greets = false;
    client.room("other").join().catch(() => undefined);
    await pass(20);
    expect(streams.streams).toHaveLength(3);
    const sent = client.sendDirect("u-other", 1);
    await pass(100);
    expect(streams.sent).toEqual([]);
    streams.last.event("connected", { status: "connected", connectionId: "third", userId: "u-me" });
    await sent;
    expect(streams.sent.map(([, , connection]) => connection)).toEqual(["third"]);
  });

  it("goes on with a new token, by a stream that shows it", async () => {
    const tokens: boolean[] = [];
    await connected({ getToken: ({ refresh }) => `token ${tokens.push(refresh)}` });
    const errors: string[] = [];
    client.on("error", ({ code }) => errors.push(code));
    streams.last.event("token_expiring", { type: "token_expiring", expiresAt: 5 });
    await pass(20);
    expect(streams.streams.map(({ headers }) => headers.get("Authorization"))).toEqual(["Bearer token 1", "Bearer token 2"]);
    expect([tokens, errors]).toEqual([[false, true], []]);
  });

  it("publishes one at a time, in order", async () => {
    await connected();
    let release: () => void = () => undefined;
    streams.slow = new Promise<void>((resolve) => (release = resolve));
    const sent = [1, 2, 3].map((content) => client.sendDirect("u-other", content));
    await pass();
    expect(streams.fetch.mock.calls.filter(([, init]) => init?.method === "POST")).toHaveLength(1);
    release();
    await Promise.all(sent);
    expect(streams.sent.map(([, body]) => body)).toMatchObject([{ content: 1 }, { content: 2 }, { content: 3 }]);
  });

  it.each([true, false])("does not lose everything over one refused room or channel (wanted early: %s)", async (early) => {
    streams.forbidden = ["secret", "logs"];
    if (!early) await connected();
    else client = new TidingsClient("http://server", { transports: ["sse"], fetch: streams.fetch, clock: evenClock, storage: null });
    const errors: string[] = [];
    client.on("error", ({ code }) => errors.push(code));
    const joins = ["lobby", "secret", "other"].map((name) => client.room(name).join());
    const refused = expect(joins[1]).rejects.toMatchObject({ code: "forbidden" });
    for (const feed of [client.metrics, client.logs, client.alerts]) feed.watch();
    if (early) void client.connect();
    await pass(1000);
    expect(client.status.get().state).toBe("connected");
    expect(streams.last.list("rooms").sort()).toEqual(["lobby", "other"]);
    expect(streams.last.list("channels").sort()).toEqual(["alerts", "inbox", "metrics"]);
    for (const room of ["lobby", "other"]) streams.last.message({ ...joined(1), room } as never);
    await pass();
    await refused;
    await Promise.all([joins[0], joins[2]]);
    expect(errors).toEqual(["forbidden"]);
    const before = [streams.streams.length, streams.refused];
    await pass(10_000);
    expect([streams.streams.length, streams.refused]).toEqual(before); // it does not go on asking
  });

  it("can try a refused room again, and gives up alone what is refused later", async () => {
    await connected();
    streams.forbidden = ["secret"];
    const refused = expect(client.room("secret").join()).rejects.toMatchObject({ code: "forbidden" });
    await pass(100);
    await refused;
    streams.forbidden = [];
    const joining = client.room("secret").join();
    client.room("lobby").join().catch(() => undefined);
    await pass(100);
    for (const room of ["secret", "lobby"]) streams.last.message({ ...joined(1), room } as never);
    await pass();
    await joining;
    streams.forbidden = ["secret"];
    streams.last.end();
    await pass(2000);
    expect(client.status.get().state).toBe("connected");
    expect(client.room("secret").state.get()).toBe("refused");
    expect(streams.last.list("rooms")).toEqual(["lobby"]);
    await expect(client.room("a,b").join()).rejects.toMatchObject({ code: "unsupported" });
  });

  it("opens with nothing when what it wants is refused at once", async () => {
    streams.refusals.push(Response.json({ code: "unknown_channel", message: "no", retryable: false }, { status: 404 }));
    client = new TidingsClient("http://server", { transports: ["sse"], fetch: streams.fetch, clock: evenClock, storage: null });
    client.logs.watch();
    await Promise.all([client.connect(), pass(20)]);
    expect(client.status.get().state).toBe("connected");
  });

  it("obeys disconnect and retry", async () => {
    await connected();
    streams.last.event("disconnect", { type: "disconnect", code: 1012, reason: "restart", reconnect: true, retryAfterMs: 430 });
    streams.last.end();
    await pass();
    expect(client.status.get()).toMatchObject({ state: "suspended", code: 1012, retryAt: Date.now() + 680 });
    await pass(680);
    streams.last.write("retry: 900\n\n");
    streams.last.end();
    await pass();
    expect(client.status.get()).toMatchObject({ state: "suspended", retryAt: Date.now() + 900 + 500 });
    await pass(1400);
    streams.last.event("disconnect", { type: "disconnect", code: 4502, reason: "ended", reconnect: false });
    streams.last.end();
    await pass();
    expect(client.status.get()).toMatchObject({ state: "failed", reason: "ended" });
  });

  it("fails on a refusal, and respects the server's retry time", async () => {
    streams.refusals.push(new Response("busy", { status: 503, headers: { "Retry-After": "2" } }));
    client = new TidingsClient("http://server", { transports: ["sse"], fetch: streams.fetch, clock: evenClock, storage: null });
    const opening = expect(client.connect()).rejects.toMatchObject({ code: "forbidden" });
    await pass();
    expect(client.status.get()).toMatchObject({ state: "suspended", retryAt: Date.now() + 2250 });
    streams.refusals.push(Response.json({ code: "forbidden", message: "origin", retryable: false }, { status: 403 }));
    await pass(2250);
    await opening;
  });

  it("is replaced when it falls silent", async () => {
    await connected();
    await pass(15_000);
    streams.last.event("heartbeat", { timestamp: 1, message: "still here" });
    await pass(15_000);
    expect(streams.streams).toHaveLength(1);
    await pass(10_000);
    expect(streams.streams).toHaveLength(2);
  });
});

describe("a server that allows one connection of a user", () => {
  it.each([true, false])("ends the stream for the WebSocket, which takes over (greeted first: %s)", async (greetedFirst) => {
    const server = new FakeServer();
    server.upgrades = "refused";
    client = new TidingsClient("http://server", { WebSocket: server.WebSocket, fetch: server.fetch, clock: evenClock, storage: null });
    await Promise.all([client.connect(), pass(1000)]);
    const states: string[] = [];
    client.on("status", ({ state, transport }) => states.push(`${state} ${transport}`));
    const stream = server.last;
    server.upgrades = "unanswered";
    for (let passed = 0; passed < 121_000; passed += 1000) {
      await pass(1000);
      server.beat();
    }
    expect(server.open).toEqual([stream, server.last]);
    if (greetedFirst) server.last.greet();
    stream.disconnect(4003, true);
    await pass(greetedFirst ? 0 : 100);
    if (!greetedFirst) server.last.greet();
    await pass(2000);
    expect(server.open).toEqual([server.last]);
    expect(client.status.get()).toMatchObject({ state: "connected", transport: "websocket" });
    expect(states).not.toContain("suspended sse");
    expect(server.connections).toHaveLength(4);
  });
});

describe("a stream, beside which an upgrade is not answered", () => {
  const beats = async (server: FakeServer, seconds: number): Promise<void> => {
    for (let passed = 0; passed < seconds; passed++) {
      await pass(1000);
      server.beat();
    }
  };

  beforeEach(async () => {
    const server = new FakeServer();
    server.upgrades = "refused";
    client = new TidingsClient("http://server", { WebSocket: server.WebSocket, fetch: server.fetch, clock: evenClock, storage: null });
    await Promise.all([client.connect(), pass(1000)]);
    fake = { server, stream: server.last };
    server.upgrades = "unanswered";
    await beats(server, 121);
    expect(server.open).toEqual([fake.stream, server.last]);
  });
  let fake: { server: FakeServer; stream: FakeServer["last"] };

  it("is opened again when it ends", async () => {
    fake.stream.drop();
    await pass(10_500);
    expect(client.status.get()).toMatchObject({ state: "suspended", reason: "the server did not answer in time" });
    await pass(4000);
    expect(client.status.get()).toMatchObject({ state: "connected", transport: "sse" });
  });

  it("may be closed by a listener while the WebSocket takes over", async () => {
    fake.stream.send({ type: "presence_list", users: [] });
    await pass();
    expect(client.presence.synced.get()).toBe(true);
    client.presence.synced.subscribe(() => client.close());
    fake.server.last.greet();
    await pass(100);
    expect(client.status.get().state).toBe("closed");
    expect(fake.server.open).toEqual([]);
  });

  it("waits two minutes again once a WebSocket took over and was lost", async () => {
    const { server } = fake;
    server.last.greet();
    await pass(2000);
    expect(client.status.get()).toMatchObject({ state: "connected", transport: "websocket" });
    server.upgrades = "refused";
    server.last.drop();
    await beats(server, 30);
    expect(client.status.get()).toMatchObject({ state: "connected", transport: "sse" });
    const tried = server.connections.length;
    await beats(server, 121);
    expect(server.connections).toHaveLength(tried + 1);
  });
});

describe("which way worked", () => {
  it("is remembered for the next page", async () => {
    const kept = new Map<string, string>();
    const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (k: string, v: string) => void kept.set(k, v) };
    const server = new FakeServer();
    server.upgrades = "refused";
    const options = { WebSocket: server.WebSocket, fetch: server.fetch, clock: evenClock, storage };
    client = new TidingsClient("http://server", options);
    await Promise.all([client.connect(), pass(1000)]);
    expect(server.connections.map(({ protocol }) => protocol)).toEqual(["tidings.v1.json", "tidings.v1.json", "sse"]);
    client.close();
    client = new TidingsClient("http://server", options);
    await Promise.all([client.connect(), pass()]);
    expect(server.connections.map(({ protocol }) => protocol).slice(3)).toEqual(["sse"]);
    expect(server.last.url.searchParams.get("session")).toBe("signed");
  });
});
