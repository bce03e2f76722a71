import { vi } from "vitest";
import { TidingsClient } from "../../src/client.js";
import { systemClock, type Clock } from "../../src/clock.js";
import type { TidingsOptions } from "../../src/options.js";
import type { FakeServer } from "./server.js";

/** Fake timers of the test, and a chance that always falls in the middle. */
export const evenClock: Clock = { ...systemClock, random: () => 0.5 };

export function clientOf(server: FakeServer, options: TidingsOptions = {}): TidingsClient {
  return new TidingsClient("http://server", {
    WebSocket: server.WebSocket,
    transports: ["websocket"],
    clock: evenClock,
    storage: null,
    ...options,
  });
}

export async function connected(server: FakeServer, options: TidingsOptions = {}): Promise<TidingsClient> {
  const client = clientOf(server, options);
  await client.connect();
  return client;
}

/** Lets everything happen that needs no time, or a given time. */
export async function pass(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}
