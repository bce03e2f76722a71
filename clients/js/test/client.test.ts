// What is this client's own: what both clients do alike is in the table of scenarios.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { TidingsClient } from "../src/client.js";
import type { TidingsOptions } from "../src/options.js";
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
  it("offers its codec and sends its identity", async () => {
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

  it("may be closed by a listener of its status", async () => {
    client = clientOf(server);
    client.on("status", ({ state }) => state === "connected" && client.close());
    const opening = client.connect();
    const joining = client.room("lobby").join();
    await expect(opening).rejects.toMatchObject({ code: "closed" });
    await expect(joining).rejects.toMatchObject({ code: "closed" });
    await expect(client.sendDirect("u-other", 1)).rejects.toMatchObject({ code: "closed" });
    expect(client.status.get().state).toBe("closed");
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
});

describe("connect and hold", () => {
  it("a client that was connected stays connected when its holder releases it", async () => {
    client = await connected(server);
    client.hold()();
    await pass(1000);
    expect(client.status.get().state).toBe("connected");
    client.close();
    client.hold()();
    await pass(1000);
    expect(client.status.get().state).toBe("closed");
  });
});

describe("options", () => {
  it.each([
    [{ transports: ["web"] }, "no such transport: web"],
    [{ transports: [] }, "no such transport: none"],
    [{ usename: "Ada" }, "there is no option usename"],
  ])("that mean nothing are refused: %j", (options, text) => {
    expect(() => clientOf(server, options as TidingsOptions)).toThrow(text);
    client = clientOf(server);
  });
});

describe("tokens", () => {
  const refused = (): Response => Response.json({ code: "unauthorized", message: "no", retryable: false }, { status: 401 });

  it("are asked for once, however many wait", async () => {
    const asked: boolean[] = [];
    const valid = new Set(["token 1"]);
    client = clientOf(server, {
      getToken: async ({ refresh }) => {
        const token = `token ${asked.push(refresh)}`;
        await Promise.resolve();
        return token;
      },
      fetch: async (_, init) => {
        const token = new Headers(init?.headers).get("Authorization")?.replace("Bearer ", "") ?? "";
        await Promise.resolve();
        return valid.has(token) ? Response.json([]) : refused();
      },
    });
    const five = (): Promise<unknown> => Promise.all(Array.from({ length: 5 }, () => client.request("GET /api/alerts")));
    await five();
    expect(asked).toEqual([false]);
    valid.clear();
    valid.add("token 2");
    await five();
    expect(asked).toEqual([false, true]);
  });

  it("are aborted when nothing waits for them, and requested again", async () => {
    const signals: AbortSignal[] = [];
    client = clientOf(server, {
      getToken: ({ signal }) => {
        signals.push(signal);
        return signals.length === 1 ? new Promise<string>(() => undefined) : "token";
      },
      fetch: () => Promise.resolve(Response.json([])),
    });
    const gone = new AbortController();
    const first = client.request("GET /api/alerts", { signal: gone.signal });
    gone.abort(new Error("too late"));
    await expect(first).rejects.toThrow("too late");
    expect(signals[0]?.aborted).toBe(true);
    await expect(client.request("GET /api/alerts")).resolves.toEqual([]);
  });
});

describe("requests", () => {
  it("name what they need", async () => {
    client = clientOf(server, { fetch: server.fetch });
    // @ts-expect-error -- without `path` it does not compile
    await expect(client.request("GET /api/rooms/{room}/history")).rejects.toThrow("needs path.room");
    // @ts-expect-error -- nor without `body`
    const without = () => client.request("POST /api/publish", {});
    expect(without).toBeTypeOf("function");
  });

  it.each([[403], [200]])("answered by something else, with %i, say so", async (status) => {
    client = clientOf(server, { fetch: () => Promise.resolve(new Response("<html>", { status })) });
    await expect(client.request("GET /api/alerts")).rejects.toMatchObject({ code: "blocked", retryable: true });
  });
});

describe("sending", () => {
  it("an unanswered id is shared, and dropped when nothing waits for it", async () => {
    client = await connected(server);
    server.silent = true;
    const gone = new AbortController();
    const first = client.sendDirect("u", 1, { id: "x", signal: gone.signal });
    const second = client.sendDirect("u", 1, { id: "x" });
    gone.abort(new Error("too late"));
    await expect(first).rejects.toThrow("too late");
    server.answer(server.last, server.last.of("direct_message")[0]!);
    await expect(second).resolves.toMatchObject({ type: "ack", id: "x" });
    expect(server.last.types()).toEqual(["direct_message"]);
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

  it("stop waiting when they are left", async () => {
    client = clientOf(server);
    const joining = client.room("lobby").join();
    client.room("lobby").leave();
    await expect(joining).rejects.toMatchObject({ code: "closed" });
  });

  it("report users who enter and leave", async () => {
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

describe("a signal that outlives what it may abort", () => {
  it("is not listened to any more", async () => {
    client = await connected(server);
    const { signal } = new AbortController();
    const listening = vi.spyOn(signal, "addEventListener");
    const ended = vi.spyOn(signal, "removeEventListener");
    await client.room("lobby").join({ signal });
    await client.room("lobby").publish("x", { signal });
    const heard = client.once("broadcast", { signal });
    server.last.send({ type: "broadcast", userId: "u", username: "u", content: 1, timestamp: 1 });
    await heard;
    await pass();
    const given = (spy: typeof listening | typeof ended): unknown[] => spy.mock.calls.map(([, listener]) => listener);
    expect(given(listening).length).toBeGreaterThan(2);
    expect(given(listening).filter((listener) => !given(ended).includes(listener))).toEqual([]);
  });
});

describe("channels", () => {
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
