// @vitest-environment jsdom
import { act, cleanup, render, renderHook } from "@testing-library/react";
import { StrictMode, type ReactNode } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { TidingsClient } from "../src/client.js";
import {
  TidingsProvider,
  useAlerts,
  useConnection,
  useMetrics,
  usePresence,
  useRealtimeDashboard,
  useRoom,
} from "../src/react/index.js";
import { paced } from "../src/react/watching.js";
import { clientOf, evenClock } from "./support/client.js";
import { FakeServer } from "./support/server.js";

let server: FakeServer;
let client: TidingsClient;

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  client = clientOf(server);
});

afterEach(() => {
  cleanup();
  client.close();
  vi.useRealTimers();
});

const pass = (ms = 0) => act(() => vi.advanceTimersByTimeAsync(ms));
const wrapper = ({ children }: { children: ReactNode }) => (
  <StrictMode>
    <TidingsProvider client={client}>{children}</TidingsProvider>
  </StrictMode>
);

describe("in strict mode", () => {
  it("one connection is made, and ends with the last component", async () => {
    const { result, unmount } = renderHook(() => useConnection(), { wrapper });
    expect(result.current).toMatchObject({ state: "connecting", connected: false });
    await pass(1000);
    expect(result.current).toMatchObject({ state: "connected", connected: true });
    expect(server.connections).toHaveLength(1);
    unmount();
    await pass(1000);
    expect(server.last.closedWith).toBe(1000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("a client of the application's own stays connected", async () => {
    await client.connect();
    const { unmount } = renderHook(() => useConnection(), { wrapper });
    await pass(1000);
    unmount();
    await pass(1000);
    expect(client.status.get().state).toBe("connected");
  });

  it("a room is joined once, and left once", async () => {
    const { result, unmount } = renderHook(() => useRoom("lobby"), { wrapper });
    await pass(1000);
    expect(result.current.state).toBe("joined");
    act(() => void server.say("lobby", "hello"));
    await pass(20);
    await act(() => result.current.publish("mine"));
    await pass(20);
    expect(result.current.messages.map(({ content }) => content)).toEqual(["hello", "mine"]);
    unmount();
    await pass(1000);
    expect(server.last.types()).toEqual(["join_room", "room_message"]); // the connection went with the room
  });
});

describe("rooms", () => {
  it("begin with what is stored, each message once", async () => {
    const past = ["a", "b"].map((content) => server.store("lobby", content, "u"));
    const fetch = vi.fn(async () => Response.json({ room: "lobby", messages: [...past, server.rooms.get("lobby")!.at(-1)] }));
    client = clientOf(server, { fetch });
    const { result } = renderHook(() => useRoom("lobby", { history: true, limit: 3 }), { wrapper });
    await pass(100);
    act(() => void server.say("lobby", "c"));
    await pass(100);
    act(() => void server.say("lobby", "d"));
    await pass(100);
    expect(result.current.messages.map(({ content }) => content)).toEqual(["b", "c", "d"]);
  });

  it.each([true, false])("begin anew with a new log of the server (history: %s)", async (history) => {
    const fetch = vi.fn(async () =>
      Response.json({ room: "lobby", epoch: server.epoch, messages: server.rooms.get("lobby") ?? [] }),
    );
    client = clientOf(server, { fetch });
    const { result } = renderHook(() => useRoom("lobby", { history, limit: 3 }), { wrapper });
    await pass(100);
    for (const content of ["o1", "o2", "o3"]) act(() => void server.say("lobby", content));
    await pass(100);
    expect(result.current.messages.map(({ content }) => content)).toEqual(["o1", "o2", "o3"]);
    server.epoch = "e2";
    server.rooms.clear();
    server.seq = 0;
    server.last.drop();
    await pass(1000);
    for (const content of ["NEW one", "NEW two"]) act(() => void server.say("lobby", content));
    await pass(100);
    expect(result.current.messages.map(({ content }) => content)).toEqual(["NEW one", "NEW two"]);
  });

  it("show data and tokens of this member, and replace data without leaving", async () => {
    let asked = 0;
    const { result, rerender } = renderHook(
      ({ page }) => useRoom("lobby", { data: { page }, token: () => `room token ${++asked}` }),
      { wrapper, initialProps: { page: 1 } },
    );
    await pass(200);
    rerender({ page: 1 });
    await pass(200);
    rerender({ page: 2 });
    await pass(200);
    expect(result.current.state).toBe("joined");
    expect(asked).toBe(1);
    expect(server.last.received).toMatchObject([
      { type: "join_room", memberData: { page: 1 }, token: "room token 1" },
      { type: "join_room", memberData: { page: 2 }, token: "room token 1" },
    ]);
  });

  it("say why they are refused, or that the user was removed, and try again when mounted again", async () => {
    server.answers = { join_room: { type: "error", code: "refused", message: "for members only", retryable: false } };
    const { result, rerender, unmount } = renderHook(({ name }) => useRoom(name), { wrapper, initialProps: { name: "club" } });
    await pass(200);
    expect(result.current).toMatchObject({ state: "refused", error: { code: "refused", message: "for members only" } });
    server.answers = {};
    rerender({ name: "lobby" });
    await pass(200);
    expect(result.current).toMatchObject({ state: "joined", error: undefined });
    act(() => server.last.send({ type: "left_room", room: "lobby", reason: "removed" }));
    await pass(50);
    expect(result.current).toMatchObject({ state: "removed", error: { code: "removed" } });
    await expect(result.current.publish("x")).rejects.toMatchObject({ code: "removed" });
    rerender({ name: "club" });
    await pass(200);
    rerender({ name: "lobby" });
    await pass(200);
    expect(result.current).toMatchObject({ state: "joined", error: undefined });
    unmount();
  });

  it("render once a frame, not once a message", async () => {
    let renders = 0;
    const { result } = renderHook(() => (renders++, useRoom("lobby")), {
      wrapper: ({ children }: { children: ReactNode }) => <TidingsProvider client={client}>{children}</TidingsProvider>,
    });
    await pass(100);
    renders = 0;
    for (let index = 0; index < 100; index++) {
      act(() => void server.say("lobby", index));
    }
    await pass(16);
    expect(result.current.messages).toHaveLength(100);
    expect(renders).toBeLessThanOrEqual(2);
  });

  it("do not render for what others show", async () => {
    let renders = 0;
    renderHook(() => (renders++, useAlerts()), { wrapper });
    await pass(100);
    await act(() => client.room("lobby").join());
    renders = 0;
    act(() => void server.say("lobby", 1));
    await pass(100);
    expect(renders).toBe(0);
  });
});

describe("what is followed", () => {
  const record = (timestamp: number) => ({
    cpu: 1, memory: 1, disk: 1, network: { in: 0, out: 0 }, requests: 0, errors: 0,
    latencyP50: 0, latencyP95: 0, latencyP99: 0, timestamp,
  });
  const alert = { id: "cpu", type: "warning", metric: "cpu", value: 1, threshold: 1, message: "", timestamp: 1 } as const;

  it("presence", async () => {
    const { result, unmount } = renderHook(() => usePresence("lobby"), { wrapper });
    await pass(100);
    const user = { userId: "a", username: "a", status: "online", lastSeen: 1 } as const;
    act(() => server.last.send({ type: "presence_list", users: [user], room: "lobby" }));
    await pass(20);
    expect(result.current).toEqual({ users: [user], synced: true });
    unmount();
  });

  it("metrics and alerts", async () => {
    const { result } = renderHook(() => ({ metrics: useMetrics(), alerts: useAlerts() }), { wrapper });
    expect(result.current.metrics.latest).toBeUndefined();
    await pass(100);
    expect(server.last.of("subscribe").map(({ channels }) => channels)).toEqual([["metrics", "alerts"]]);
    act(() => server.last.send({ type: "initial_state", history: [record(1), record(2)], alerts: [alert] }));
    await pass(20);
    expect(result.current.metrics.latest?.timestamp).toBe(2);
    expect(result.current.alerts).toEqual([alert]);
  });

  it("a whole dashboard, without a provider", async () => {
    const options = { WebSocket: server.WebSocket, clock: evenClock, storage: null };
    const { result, rerender, unmount } = renderHook(({ url }) => useRealtimeDashboard(url, { ...options }), {
      wrapper: StrictMode,
      initialProps: { url: "ws://one/ws" },
    });
    expect(result.current).toEqual({ connected: false, metrics: [], alerts: [], latestMetrics: null });
    await pass(200);
    act(() => server.last.send({ type: "initial_state", history: [record(1)], alerts: [alert] }));
    await pass(20);
    expect(result.current).toEqual({ connected: true, metrics: [record(1)], alerts: [alert], latestMetrics: record(1) });
    const before = result.current;
    rerender({ url: "ws://one/ws" });
    expect(result.current).toBe(before);
    expect(server.connections).toHaveLength(1);
    rerender({ url: "ws://two/ws" });
    await pass(200);
    expect(server.connections.map(({ url, isOpen }) => [url.host, isOpen])).toEqual([
      ["one", false],
      ["two", true],
    ]);
    unmount();
    await pass(200);
    expect(server.open).toHaveLength(0);
  });
});

it("a hook without a provider says what is missing", () => {
  vi.spyOn(console, "error").mockImplementation(() => undefined);
  expect(() => render(<Lost />)).toThrow("needs a <TidingsProvider>");
});

it("renders on a server", () => {
  expect(renderToString(<TidingsProvider url="/">{<Lost />}</TidingsProvider>)).toBe("closed");
});

function Lost() {
  return <>{useConnection().state}</>;
}

it("reports the first change at once and the others together", () => {
  let change = (): void => undefined;
  const watcher = vi.fn();
  const off = paced((each) => {
    change = each;
    return () => undefined;
  }, 16)(watcher);
  for (let index = 0; index < 5; index++) change();
  expect(watcher).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(16);
  expect(watcher).toHaveBeenCalledTimes(2);
  vi.advanceTimersByTime(100);
  expect(watcher).toHaveBeenCalledTimes(2);
  change();
  off();
  expect(vi.getTimerCount()).toBe(0);
});
