// Tokens that run out, against real gateways that ask for them.
import { createHmac } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { WebSocket } from "ws";
import { TidingsClient } from "../../src/client.js";
import type { WebSocketConstructor } from "../../src/transport/websocket.js";
import { startFleet, until, type Fleet } from "../support/fleet.js";

const SECRET = "0123456789abcdef0123456789abcdef";
let fleet: Fleet;

beforeAll(async () => {
  fleet = await startFleet({ TIDINGS_AUTH: "jwt", TIDINGS_JWT_SECRETS: SECRET });
});

afterAll(() => (fleet as Fleet | undefined)?.end()); // undefined where it did not start

function tokenFor(sub: string, seconds: number): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const claims = { sub, exp, aud: "tidings", tidings: { join: ["*"], publish: ["*"], admin: true } };
  const head = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${head}.${createHmac("sha256", SECRET).update(head).digest("base64url")}`;
}

const options = { WebSocket: WebSocket as unknown as WebSocketConstructor, storage: null, backoff: { firstMs: 200 } };

it.each([["websocket"], ["sse"]] as const)("a token lets in, over %s", async (transport) => {
  const client = new TidingsClient(fleet.url, {
    ...options,
    transports: [transport],
    getToken: () => tokenFor(`ada-${transport}`, 60),
  });
  try {
    await client.connect();
    await client.room("lobby").join();
    await client.room("lobby").publish("hello");
    expect((await client.room("lobby").history()).messages.length).toBeGreaterThan(0);
  } finally {
    client.close();
  }
});

it("a refused token is asked for once more, then the client fails", async () => {
  const asked: boolean[] = [];
  const client = new TidingsClient(fleet.url, {
    ...options,
    getToken: ({ refresh }) => {
      asked.push(refresh);
      return tokenFor("ada", -600);
    },
  });
  await expect(client.connect()).rejects.toMatchObject({ code: "unauthorized" });
  expect(asked).toEqual([false, true]);
  client.close();
});

it("a token that runs out is replaced, and nothing is missed", async () => {
  const asked: boolean[] = [];
  const client = new TidingsClient(fleet.url, {
    ...options,
    getToken: ({ refresh }) => {
      asked.push(refresh);
      return tokenFor("grace", asked.length === 1 ? 2 : 120);
    },
  });
  const seen: unknown[] = [];
  client.room("lobby").on("gap", () => seen.push("gap"));
  try {
    await client.connect();
    await client.room("lobby").join();
    await until(() => asked.length > 1 && client.status.get().state === "connected", "a new token", 20_000);
    await client.room("lobby").publish("still here");
    expect(asked.slice(0, 2)).toEqual([false, true]);
    expect(client.userId).toBe("grace");
    expect(seen).toEqual([]);
  } finally {
    client.close();
  }
});
