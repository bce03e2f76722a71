import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { TidingsClient } from "../src/client.js";
import { TidingsError } from "../src/errors.js";
import type { User } from "../src/generated/wire.js";
import { clientOf, connected, pass } from "./support/client.js";
import { FakeServer } from "./support/server.js";

let server: FakeServer;
let client: TidingsClient;

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

describe("connecting", () => {
  it("offers its codec and says who it is", async () => {
    const kept = new Map<string, string>();
    const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (k: string, v: string) => void kept.set(k, v) };
    client = await connected(server, { username: "Ada", storage });
    expect(server.last.protocol).toBe("tidings.v1.json");
    expect(server.last.url.searchParams.get("username")).toBe("Ada");
    expect(client.userId).toBe("u-me");
    client.close();
    expect(server.last.closedWith).toBe(1000); // the user left, and is not expected back
    client = await connected(server, { storage });
    expect(server.last.url.searchParams.get("session")).toBe("signed");
  });

  it("works where storage is forbidden", async () => {
    const forbidden = () => {
      throw new Error("forbidden");
    };
    client = await connected(server, { storage: { getItem: forbidden, setItem: forbidden } });
    expect(client.status.get().state).toBe("connected");
  });

  it("can be given up", async () => {
    server.accepting = false;
    client = clientOf(server);
    const gone = new AbortController();
    const opening = client.connect({ signal: gone.signal });
    gone.abort(new Error("changed my mind"));
    await expect(opening).rejects.toThrow("changed my mind");
    const closing = client.connect();
    client.close();
    await expect(closing).rejects.toMatchObject({ code: "closed" });
  });

  it("ends with its signal", async () => {
    const gone = new AbortController();
    client = await connected(server, { signal: gone.signal });
    gone.abort();
    expect(client.status.get().state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  it("is shared by holders", async () => {
    client = clientOf(server);
    const [first, second] = [client.hold(), client.hold()];
    await pass();
    first();
    first();
    await pass(1000);
    expect(client.status.get().state).toBe("connected");
    second();
    const third = client.hold(); // mounted again at once
    await pass(1000);
    expect(client.status.get().state).toBe("connected");
    third();
    await pass(1000);
    expect(client.status.get().state).toBe("closed");
  });

  it.each(["nonsense", null, { no: "type" }])("is replaced when %j comes, which is no message", async (frame) => {
    client = await connected(server);
    server.last.send(frame as never);
    expect(client.status.get()).toMatchObject({ state: "suspended", reason: "a frame could not be read" });
    await pass(250);
    expect(client.status.get().state).toBe("connected");
  });
});

describe("sending", () => {
  it("waits for the connection and the join, in order", async () => {
    client = clientOf(server);
    const room = client.room("lobby");
    void room.join();
    const acks = [room.publish(1), room.publish(2)];
    void client.connect();
    await pass();
    expect((await Promise.all(acks)).map(({ seq }) => seq)).toEqual([1, 2]);
    expect(server.last.types()).toEqual(["join_room", "room_message", "room_message"]);
  });

  it("keeps only so much for later", async () => {
    client = clientOf(server, { queueLimit: 2 });
    const sent = [1, 2, 3].map((content) => client.sendDirect("u-other", content));
    await expect(sent[2]).rejects.toMatchObject({ code: "queue_full", retryable: true });
    await client.connect();
    await Promise.all(sent.slice(0, 2));
  });

  it("can be given up while it waits", async () => {
    client = clientOf(server);
    const gone = new AbortController();
    const sent = client.sendDirect("u-other", 1, { signal: gone.signal });
    gone.abort(new Error("too late"));
    await expect(sent).rejects.toThrow("too late");
    await client.connect();
    await pass();
    expect(server.last.types()).toEqual([]);
    await expect(client.sendDirect("u", 1, { signal: gone.signal })).rejects.toThrow("too late");
  });

  it("does not send what the server would not take", async () => {
    client = await connected(server);
    await expect(client.sendDirect("u-other", "x".repeat(2000))).rejects.toMatchObject({ code: "too_large" });
    expect(server.last.types()).toEqual([]);
  });

  it("does not repeat what is not stored", async () => {
    client = await connected(server);
    await client.room("live:cursors").join();
    server.silent = true;
    const lost = [client.broadcast("x"), client.room("live:cursors").publish(1)].map((sent) =>
      expect(sent).rejects.toMatchObject({ code: "connection_lost" }),
    );
    server.last.drop();
    await Promise.all(lost);
  });

  it("does not repeat what the server would no longer recognise", async () => {
    client = await connected(server);
    await client.room("lobby").join();
    server.silent = true;
    const lost = expect(client.room("lobby").publish("x")).rejects.toMatchObject({ code: "connection_lost" });
    server.last.drop();
    server.refusing = true;
    await pass(200_000);
    server.refusing = server.silent = false;
    await pass(40_000);
    await lost;
    expect(server.last.types()).not.toContain("room_message");
  });

  it("tells what was refused", async () => {
    client = await connected(server);
    await expect(client.room("lobby").publish("x")).rejects.toMatchObject({ code: "not_in_room" });
    await client.room("lobby").join();
    server.last.rooms.clear();
    await expect(client.room("lobby").publish("x")).rejects.toBeInstanceOf(TidingsError);
  });

  it("gets a copy only if asked for", async () => {
    client = await connected(server);
    const seen: unknown[] = [];
    client.room("lobby").on("message", ({ content }) => seen.push(content));
    await client.room("lobby").join();
    await client.room("lobby").publish("silent");
    await client.room("lobby").publish("loud", { echo: true });
    expect(seen).toEqual(["loud"]);
  });

  it("says again who it is on every connection", async () => {
    client = await connected(server);
    await client.setStatus("away");
    await client.setStatus("busy");
    await client.setCustomData({ page: 1 });
    server.last.drop();
    await pass(250);
    expect(server.last.received.slice(1)).toMatchObject([
      { type: "status_change", status: "busy" },
      { type: "presence_update", customData: { page: 1 } },
    ]);
  });
});

describe("rooms", () => {
  it("are one object each, however the name is spelled", () => {
    client = clientOf(server);
    expect(client.room("caf\u00e9")).toBe(client.room("cafe\u0301"));
  });

  it("are left with the last holder", async () => {
    client = await connected(server);
    const room = client.room("lobby");
    const [first, second] = [room.hold(), room.hold()];
    await pass();
    first();
    await pass(1000);
    expect(room.state.get()).toBe("joined");
    second();
    await pass(1000);
    expect(room.state.get()).toBe("left");
    expect(server.last.types()).toEqual(["join_room", "leave_room"]);
  });

  it("say when they are refused, and can be tried again", async () => {
    client = await connected(server);
    const answer = server.answer.bind(server);
    server.answer = (connection, { id }) =>
      connection.send({ type: "error", id, code: "forbidden", message: "no", retryable: false });
    const room = client.room("secret");
    await expect(room.join()).rejects.toMatchObject({ code: "forbidden" });
    expect(room.state.get()).toBe("refused");
    server.answer = answer;
    await room.join();
    expect(room.state.get()).toBe("joined");
  });

  it("are asked for again when they are out of reach", async () => {
    client = await connected(server);
    const answer = server.answer.bind(server);
    server.answer = (connection, { id }) =>
      connection.send({ type: "error", id, code: "unavailable", message: "no", retryable: true, retryAfterMs: 300 });
    const joining = client.room("lobby").join();
    await pass();
    server.answer = answer;
    await pass(300);
    await joining;
  });

  it("stop waiting when they are left", async () => {
    client = clientOf(server);
    const joining = client.room("lobby").join();
    client.room("lobby").leave();
    await expect(joining).rejects.toMatchObject({ code: "closed" });
  });

  it("tell who comes and goes", async () => {
    client = await connected(server);
    const seen: string[] = [];
    const room = client.room("lobby");
    room.on("userJoined", ({ userId }) => seen.push(`+${userId}`));
    room.on("userLeft", ({ userId }) => seen.push(`-${userId}`));
    await room.join();
    server.last.send({ type: "user_joined", userId: "u", username: "u", room: "lobby" });
    server.last.send({ type: "user_left", userId: "u", username: "u", room: "lobby" });
    expect(seen).toEqual(["+u", "-u"]);
  });
});

describe("presence", () => {
  const user = (userId: string, more: Partial<User> = {}): User => ({
    userId,
    username: userId,
    status: "online",
    lastSeen: 1,
    ...more,
  });

  it("is a map that follows the server", async () => {
    client = await connected(server);
    const { presence } = client.room("lobby");
    const seen: string[] = [];
    presence.on("enter", ({ userId }) => seen.push(`+${userId}`));
    presence.on("leave", ({ userId }) => seen.push(`-${userId}`));
    presence.on("update", ({ userId, status }) => seen.push(`${userId} ${status}`));
    const release = presence.watch();
    await pass();
    expect(server.last.of("subscribe")[0]?.channels).toEqual(["presence:lobby"]);
    server.last.send({ type: "presence_list", users: [user("a"), user("b")], room: "lobby" });
    server.last.send({ type: "presence_list", users: [user("z")] }); // of everyone: not this one
    server.last.send({ type: "user_online", user: user("c"), room: "lobby" });
    server.last.send({ type: "status_changed", userId: "a", status: "busy" });
    server.last.send({ type: "status_changed", userId: "stranger", status: "busy" });
    server.last.send({ type: "presence_updated", userId: "a", customData: 1 });
    server.last.send({ type: "user_offline", userId: "b", room: "lobby" });
    expect([...presence.users.get().values()]).toEqual([user("a", { status: "busy", customData: 1 }), user("c")]);
    expect(seen).toEqual(["+a", "+b", "+c", "a busy", "a busy", "-b"]);
    expect(presence.synced.get()).toBe(true);
    server.last.drop();
    expect(presence.synced.get()).toBe(false);
    await pass(250);
    expect(server.last.of("subscribe")[1]?.channels).toEqual(["presence:lobby"]); // after the inbox
    seen.length = 0;
    server.last.send({ type: "presence_list", users: [user("c"), user("d")], room: "lobby" });
    expect(seen).toEqual(["-a", "+d"]);
    release();
    await pass(1000);
    expect(server.last.of("unsubscribe")).toHaveLength(1);
  });

  it("gathers a long list from its parts, and keeps a count where there is no list", async () => {
    client = await connected(server);
    const { presence } = client.room("lobby");
    presence.watch();
    await pass();
    server.last.send({ type: "presence_list", users: [user("c"), user("z")], room: "lobby" });
    const list = { type: "presence_list", room: "lobby", count: 4 } as const;
    server.last.send({ ...list, users: [user("a"), user("b")], more: true });
    server.last.send({ type: "user_online", user: user("ab"), room: "lobby" });
    server.last.send({ type: "status_changed", userId: "a", status: "busy" });
    server.last.send({ type: "user_offline", userId: "b", room: "lobby" });
    server.last.send({ ...list, users: [user("c"), user("d")], part: 2 });
    expect([...presence.users.get().keys()].sort()).toEqual(["a", "ab", "c", "d"]);
    expect(presence.users.get().get("a")?.status).toBe("busy");
    expect(presence.count.get()).toBe(4);
    server.last.send({ type: "presence_list", users: [], room: "lobby", count: 2001 });
    expect([presence.users.get().size, presence.count.get()]).toEqual([0, 2001]);
    server.last.send({ type: "presence_list", users: [user("a")], room: "lobby" });
    expect([presence.users.get().size, presence.count.get()]).toEqual([1, undefined]);
  });
});

describe("channels", () => {
  it("are asked for together, and a refused one does not cost the others", async () => {
    client = await connected(server);
    const errors: string[] = [];
    client.on("error", ({ code }) => errors.push(code));
    client.metrics.watch();
    client.alerts.watch();
    await pass();
    expect(server.last.of("subscribe").map(({ channels }) => channels)).toEqual([["metrics", "alerts"]]);
    client.room("x").presence.watch();
    await pass();
    server.last.drop();
    const answer = server.answer.bind(server);
    server.answer = (connection, message) =>
      message.type === "subscribe" && message.channels?.includes("alerts")
        ? connection.send({ type: "error", id: message.id, code: "unknown_channel", message: "no", retryable: false })
        : answer(connection, message);
    await pass(250);
    expect(server.last.of("subscribe").flatMap(({ channels }) => (channels ? [channels] : []))).toEqual([
      ["metrics", "alerts", "presence:x"],
      ["metrics"],
      ["alerts"],
      ["presence:x"],
    ]);
    expect(errors).toEqual(["unknown_channel"]);
  });

  it("end with a signal", async () => {
    client = await connected(server);
    const gone = new AbortController();
    client.logs.watch({ signal: gone.signal });
    await pass();
    gone.abort();
    await pass(1000);
    expect(server.last.types()).toEqual(["subscribe", "unsubscribe"]);
  });
});

describe("metrics and alerts", () => {
  const record = (timestamp: number) => ({
    cpu: 1, memory: 1, disk: 1, network: { in: 0, out: 0 }, requests: 0, errors: 0,
    latencyP50: 0, latencyP95: 0, latencyP99: 0, timestamp,
  });
  const alert = (id: string, type: "warning" | "critical" = "warning") => ({
    id, type, metric: "cpu", value: 1, threshold: 1, message: "", timestamp: 1,
  });

  it("keep a limited history that a snapshot continues", async () => {
    client = await connected(server, { historyLimit: 4 });
    server.last.send({ type: "initial_state", history: [record(1), record(2), record(3)], alerts: [] });
    server.last.send({ type: "metrics_update", data: record(4) });
    server.last.send({ type: "initial_state", history: [record(3), record(4), record(5)], alerts: [] });
    expect(client.metrics.history.get().map(({ timestamp }) => timestamp)).toEqual([2, 3, 4, 5]);
    expect(client.metrics.latest.get()?.timestamp).toBe(5);
  });

  it("tell what began and ended, also between connections", async () => {
    client = await connected(server);
    const seen: string[] = [];
    client.alerts.on("raised", ({ id, type }) => seen.push(`${id} ${type}`));
    client.alerts.on("resolved", ({ id }) => seen.push(`${id} over`));
    server.last.send({ type: "alert", data: alert("cpu") });
    server.last.send({ type: "alert", data: alert("cpu", "critical") });
    server.last.send({ type: "alert", data: alert("disk") });
    server.last.send({ type: "alert_resolved", data: alert("disk") });
    server.last.send({ type: "initial_state", history: [], alerts: [alert("memory")] });
    expect(seen).toEqual(["cpu warning", "cpu critical", "disk warning", "disk over", "cpu over", "memory warning"]);
    expect(client.alerts.active.get()).toEqual([alert("memory")]);
  });
});

describe("listening", () => {
  it("ends by signal, by function, and after one event", async () => {
    client = await connected(server);
    const gone = new AbortController();
    const seen: string[] = [];
    const message = { type: "broadcast", userId: "u", username: "u", content: 1, timestamp: 1 } as const;
    client.on("broadcast", () => seen.push("signal"), { signal: gone.signal });
    const off = client.on("broadcast", () => seen.push("function"));
    const once = client.once("broadcast");
    server.last.send(message);
    await expect(once).resolves.toMatchObject({ content: 1 });
    gone.abort();
    off();
    server.last.send(message);
    expect(seen).toEqual(["signal", "function"]);
    await expect(client.once("broadcast", { signal: gone.signal })).rejects.toThrow();
  });

  it("does not let a listener disturb the others", async () => {
    client = await connected(server);
    const uncaught: unknown[] = [];
    const task = vi.spyOn(globalThis, "queueMicrotask").mockImplementation((callback) => {
      try {
        callback();
      } catch (fault) {
        uncaught.push(fault);
      }
    });
    const seen: string[] = [];
    client.on("broadcast", () => {
      throw new Error("mine");
    });
    client.on("broadcast", () => seen.push("still here"));
    server.last.send({ type: "broadcast", userId: "u", username: "u", content: 1, timestamp: 1 });
    task.mockRestore();
    expect(seen).toEqual(["still here"]);
    expect(uncaught).toMatchObject([{ message: "mine" }]);
  });
});
