// What a user sees when something goes wrong, against a server without a network. The same table runs with real
// gateways in test/real/.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { TidingsClient } from "../src/client.js";
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

async function listening(room: string): Promise<unknown[]> {
  const seen: unknown[] = [];
  client.room(room).on("message", ({ content }) => seen.push(content));
  await client.room(room).join();
  return seen;
}

describe("the gateway is killed", () => {
  it("comes back, misses nothing, and shows nothing twice", async () => {
    client = await connected(server);
    const seen = await listening("lobby");
    server.say("lobby", 1);
    server.last.drop();
    expect(client.status.get()).toMatchObject({ state: "suspended", reason: "connection lost" });
    server.say("lobby", 2);
    server.say("lobby", 3);
    await pass(250);
    expect(client.status.get().state).toBe("connected");
    server.say("lobby", 4);
    expect(seen).toEqual([1, 2, 3, 4]);
    expect(server.last.of("join_room")[0]?.since).toEqual({ epoch: "e1", seq: 1 });
  });

  it("sends again what was not answered, with the same id, and shows it to nobody twice", async () => {
    client = await connected(server);
    const seen = await listening("lobby");
    server.silent = true;
    const published = client.room("lobby").publish("mine");
    await pass();
    const [sent] = server.last.of("room_message");
    server.silent = false;
    server.answer(server.last, sent!); // stored, but the answer is lost with the connection
    const before = server.last;
    before.drop();
    await pass(250);
    // The first answer did arrive here, so this is the plain case.
    await expect(published).resolves.toMatchObject({ seq: 1 });
    expect(seen).toEqual([]);
  });

  it("does not show an own message that was stored when its answer was lost", async () => {
    client = await connected(server);
    const seen = await listening("lobby");
    server.say("lobby", "before");
    server.silent = true;
    const published = client.room("lobby").publish("mine");
    await pass();
    const { id } = server.last.of("room_message")[0]!;
    const stored = server.store("lobby", "mine", server.userId);
    server.stored.set(`lobby/${id}`, { type: "ack", id, epoch: "e1", seq: stored.seq, timestamp: 1 });
    server.last.drop();
    server.silent = false;
    server.say("lobby", "after");
    await pass(250);
    await expect(published).resolves.toMatchObject({ seq: stored.seq });
    await pass();
    expect(server.last.of("room_message").map((message) => message.id)).toEqual([id]);
    expect(seen).toEqual(["before", "after"]);
  });

  it("resumes the inbox", async () => {
    client = await connected(server);
    const seen: unknown[] = [];
    client.inbox.on("message", ({ content }) => seen.push(content));
    server.direct(1);
    server.last.drop();
    server.direct(2);
    await pass(250);
    server.direct(3);
    expect(seen).toEqual([1, 2, 3]);
  });

  it("puts direct messages that come before the missed ones behind them", async () => {
    client = await connected(server);
    const seen: unknown[] = [];
    client.inbox.on("message", ({ content }) => seen.push(content));
    server.last.drop();
    server.direct(1);
    server.silent = true;
    await pass(250);
    server.direct(2); // live, while the question what was missed is not answered
    expect(seen).toEqual([]);
    server.answer(server.last, server.last.of("subscribe")[0]!);
    expect(seen).toEqual([1, 2]);
  });

  it("shows no messages of another user's inbox as its own", async () => {
    client = await connected(server);
    server.direct(1);
    server.last.drop();
    server.userId = "u-somebody-else";
    await pass(250);
    expect(server.last.of("subscribe")).toEqual([]);
    expect(client.inbox.position).toEqual({ epoch: "i1", seq: 1 });
  });

  it("says so when messages are gone", async () => {
    client = await connected(server);
    const seen = await listening("lobby");
    const gaps: unknown[] = [];
    client.room("lobby").on("gap", ({ position }) => gaps.push(position));
    server.last.send({ type: "joined_room", room: "lobby", epoch: "e2", seq: 7, recovered: false, missed: [] });
    expect(gaps).toEqual([{ epoch: "e2", seq: 7 }]);
    server.last.send({ type: "room_message", userId: "u", username: "u", room: "lobby", content: 8, timestamp: 1, seq: 8 });
    expect(seen).toEqual([8]);
  });

  it("waits longer each time, at most half a minute, and not in step with others", async () => {
    client = await connected(server);
    server.refusing = true;
    server.last.drop();
    const waits: number[] = [];
    for (let attempt = 0; attempt < 9; attempt++) {
      const { retryAt = 0 } = client.status.get();
      waits.push(retryAt - Date.now());
      await pass(retryAt - Date.now());
    }
    expect(waits).toEqual([250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  });
});

describe("the bus is paused", () => {
  it("keeps the connection, and delivers when it is back", async () => {
    client = await connected(server);
    await listening("lobby");
    server.busDown = true;
    const published = client.room("lobby").publish("patience");
    await pass(1000);
    expect(client.status.get().state).toBe("connected");
    server.busDown = false;
    await pass(1000);
    await expect(published).resolves.toMatchObject({ seq: 1 });
    expect(new Set(server.last.of("room_message").map(({ id }) => id)).size).toBe(1);
  });

  it("gives up after some tries", async () => {
    client = await connected(server, { tries: 3 });
    await listening("lobby");
    server.busDown = true;
    const published = expect(client.room("lobby").publish("x")).rejects.toMatchObject({
      code: "unavailable",
      retryable: true,
    });
    await pass(5000);
    await published;
    expect(server.last.of("room_message")).toHaveLength(3);
  });
});

describe("the server says what to do", () => {
  it.each([
    ["drain", 1012, true],
    ["slow client", 4000, true],
    ["token expired", 4002, true],
    ["forbidden", 4501, false],
    ["ended by an administrator", 4502, false],
    ["message too big", 1009, false],
  ])("%s", async (_, code, returns) => {
    client = await connected(server);
    server.last.drop(code); // the code alone has to be enough
    expect(client.status.get().state).toBe(returns ? "suspended" : "failed");
    await pass(60_000);
    expect(client.status.get().state).toBe(returns ? "connected" : "failed");
    expect(server.connections).toHaveLength(returns ? 2 : 1);
  });

  it("waits as long as it is told, even if the page is looked at again", async () => {
    client = await connected(server);
    server.last.disconnect(1013, true, 10_000);
    expect(client.status.get()).toMatchObject({ code: 1013, retryAt: Date.now() + 10_250 });
    await pass(9000);
    client.wake();
    expect(client.status.get().state).toBe("suspended");
    await pass(1250);
    expect(client.status.get().state).toBe("connected");
  });

  it("fails what waits when it must not come back, until connect is called", async () => {
    client = await connected(server);
    await listening("lobby");
    server.silent = true;
    const published = expect(client.room("lobby").publish("x")).rejects.toMatchObject({ code: "closed" });
    server.last.disconnect(4502, false);
    await published;
    await expect(client.room("lobby").publish("y")).rejects.toMatchObject({ message: "reason 4502" });
    server.silent = false;
    await client.connect();
    expect(client.room("lobby").state.get()).toBe("joining");
    await pass();
    expect(client.room("lobby").state.get()).toBe("joined");
  });
});

describe("the token runs out", () => {
  const answers = (...statuses: number[]) =>
    vi.fn<typeof fetch>(async () => {
      const status = statuses.shift() ?? 201;
      const refused = { code: "unauthorized", message: "no", retryable: false };
      return Response.json(status === 201 ? { ticket: `t${statuses.length}`, expiresAt: 1 } : refused, { status });
    });

  it("asks for a fresh one before it comes back", async () => {
    const asked: boolean[] = [];
    const getToken = ({ refresh }: { refresh: boolean }) => {
      asked.push(refresh);
      return `token ${asked.length}`;
    };
    const fetch = answers();
    client = await connected(server, { getToken, fetch });
    expect(server.last.url.searchParams.get("ticket")).toBe("t0");
    server.last.disconnect(4002, true);
    await pass(250);
    expect(asked).toEqual([false, true]);
    expect(new Headers(fetch.mock.lastCall?.[1]?.headers).get("Authorization")).toBe("Bearer token 2");
    expect(client.status.get().state).toBe("connected");
  });

  it("shows a new one in time, on the connection there is", async () => {
    let count = 0;
    client = await connected(server, { getToken: () => `token ${++count}`, fetch: answers() });
    server.last.send({ type: "token_expiring", expiresAt: 5 });
    await pass();
    expect(server.last.of("refresh")).toMatchObject([{ token: "token 2" }]);
    expect(server.connections).toHaveLength(1);
  });

  it("asks once more when a token is refused, then fails", async () => {
    const asked: boolean[] = [];
    client = clientOf(server, {
      getToken: ({ refresh }) => (asked.push(refresh), "t"),
      fetch: answers(401, 401),
    });
    await expect(client.connect()).rejects.toMatchObject({ code: "unauthorized" });
    expect(asked).toEqual([false, true]);
    expect(client.status.get()).toMatchObject({ state: "failed", error: { code: "unauthorized" } });
  });

  it("tries again when the token cannot be fetched", async () => {
    let calls = 0;
    client = clientOf(server, {
      getToken: async () => {
        if (++calls === 1) throw new Error("the application's server is away");
        return "t";
      },
      fetch: answers(),
    });
    const opening = client.connect();
    await pass();
    expect(client.status.get()).toMatchObject({ state: "suspended", reason: "the application's server is away" });
    await pass(250);
    await opening;
  });
});

describe("the laptop sleeps", () => {
  const sleep = (ms: number) => vi.setSystemTime(Date.now() + ms); // timers stand still, the clock does not

  it("asks for a sign of life when it wakes, and keeps a connection that lives", async () => {
    client = await connected(server);
    sleep(30_000);
    await pass(5000);
    expect(server.last.types()).toContain("heartbeat");
    await pass(10_000);
    expect(server.connections).toHaveLength(1);
  });

  it("replaces a connection that died meanwhile, and misses nothing", async () => {
    client = await connected(server);
    const seen = await listening("lobby");
    const dead = server.last;
    sleep(600_000);
    dead.closedWith = 1006; // nobody told us
    server.store("lobby", "meanwhile", "u-other");
    await pass(20_000);
    expect(server.connections).toHaveLength(2);
    expect(seen).toEqual(["meanwhile"]);
  });
});

describe("the tab is hidden", () => {
  it("does not mistake late timers for a dead server", async () => {
    client = await connected(server);
    for (let minute = 0; minute < 10; minute++) {
      vi.setSystemTime(Date.now() + 55_000); // the browser runs timers once a minute
      await pass(5000);
    }
    expect(server.connections).toHaveLength(1);
    expect(server.last.types().filter((type) => type === "heartbeat")).toHaveLength(10);
  });

  it("notices a dead server all the same", async () => {
    client = await connected(server);
    server.silent = true;
    server.accepting = true;
    for (let minute = 0; minute < 4; minute++) {
      vi.setSystemTime(Date.now() + 55_000);
      await pass(5000);
    }
    expect(server.connections.length).toBeGreaterThan(1);
  });

  it("looks at once when it is shown again", async () => {
    client = await connected(server);
    client.wake();
    expect(server.last.types()).toContain("heartbeat");
    server.refusing = true;
    server.last.drop();
    await pass(10_000); // the next attempt is seconds away
    expect(client.status.get().state).toBe("suspended");
    server.refusing = false;
    client.wake();
    await pass();
    expect(client.status.get().state).toBe("connected");
  });
});

describe("nothing is answered", () => {
  it("doubts the connection, replaces it, and sends again", async () => {
    client = await connected(server);
    await listening("lobby");
    server.silent = true;
    const published = client.room("lobby").publish("x");
    await pass(10_000); // no answer: is anybody there?
    expect(server.last.types()).toContain("heartbeat");
    await pass(10_000); // nobody
    expect(server.connections.length).toBe(2);
    server.silent = false;
    await pass(30_000);
    await expect(published).resolves.toMatchObject({ seq: 1 });
  });

  it("gives up a connection that is never made", async () => {
    server.accepting = false;
    client = clientOf(server);
    void client.connect().catch(() => undefined);
    await pass(10_000);
    expect(client.status.get()).toMatchObject({ state: "suspended", reason: "the server did not answer in time" });
  });
});
