// @vitest-environment jsdom
// Each example from its folder, against a simulated server.
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeServer, type FakeConnection } from "./support/server.js";

const FOLDER = `${import.meta.dirname}/../examples`;
const EXAMPLES = { chat: "main.ts", cursors: "main.ts", bell: "main.ts", board: "main.tsx" };
// A page is drawn when the machine gets to it: no time is claimed.
const eventually = (holds: () => void) => vi.waitFor(holds, 20_000);
let server: FakeServer;

beforeEach(() => {
  server = new FakeServer();
  vi.stubGlobal("WebSocket", server.WebSocket);
  vi.stubGlobal("fetch", async () => Response.json({ room: "r", messages: server.rooms.get("example-chat") ?? [] }));
  sessionStorage.clear();
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.resetModules();
});

async function open(name: keyof typeof EXAMPLES): Promise<FakeConnection> {
  const page = new DOMParser().parseFromString(readFileSync(`${FOLDER}/${name}/index.html`, "utf8"), "text/html");
  document.body.replaceChildren(...page.body.children);
  await import(/* @vite-ignore */ `../examples/${name}/${EXAMPLES[name]}`);
  await eventually(() => expect(server.connections[0]?.received.length ?? -1).toBeGreaterThanOrEqual(0));
  return server.last;
}

const text = (id: string) => document.getElementById(id)?.textContent ?? "";
const shows = (id: string, what: string) => eventually(() => expect(text(id)).toContain(what));

describe("the chat", () => {
  it("shows history, live messages and members", async () => {
    server.store("example-chat", "long ago", "u-other");
    const connection = await open("chat");
    await shows("messages", "long ago");
    server.say("example-chat", "<b>hello</b>");
    await shows("messages", "<b>hello</b>");
    const user = { userId: "u", username: "Ada", status: "online", lastSeen: 1 } as const;
    connection.send({ type: "presence_list", users: [user], room: "example-chat" });
    await shows("people", "Ada");
    (document.getElementById("text") as HTMLInputElement).value = "mine";
    document.getElementById("form")!.dispatchEvent(new Event("submit", { cancelable: true }));
    await eventually(() => expect(server.rooms.get("example-chat")?.at(-1)?.content).toBe("mine"));
    await shows("messages", "you: mine");
  });
});

describe("the cursors", () => {
  it("follow others and send ours, not too often", async () => {
    const connection = await open("cursors");
    await eventually(() => expect(connection.types()).toContain("join_room"));
    await eventually(() => expect(connection.rooms.size).toBe(1));
    server.say("live:example-cursors", { x: 0.5, y: 0.5 });
    await eventually(() => expect(document.querySelectorAll(".cursor")).toHaveLength(1));
    for (let x = 0; x < 50; x++) document.dispatchEvent(new MouseEvent("pointermove", { clientX: x, clientY: 1 }));
    await eventually(() => expect(connection.of("room_message").length).toBeGreaterThan(0));
    expect(connection.of("room_message").length).toBeLessThan(5);
    connection.send({ type: "user_left", userId: "u-other", username: "o", room: "live:example-cursors" });
    expect(document.querySelectorAll(".cursor")).toHaveLength(0);
  });
});

describe("the bell", () => {
  it("counts direct messages", async () => {
    await open("bell");
    await shows("command", "u-me");
    server.direct("your build is ready");
    await shows("count", "1");
    expect(text("notices")).toContain("your build is ready");
    document.getElementById("bell")!.click();
    expect(text("count")).toBe("0");
  });
});

describe("the board", () => {
  it("shows figures and alerts", async () => {
    const connection = await open("board");
    await eventually(() => expect(connection.types()).toContain("subscribe"));
    const record = {
      cpu: 42, memory: 1, disk: 1, network: { in: 0, out: 0 }, requests: 0, errors: 0,
      latencyP50: 0, latencyP95: 0, latencyP99: 0, timestamp: 1,
    };
    const alert = { id: "a", type: "warning", metric: "cpu", value: 1, threshold: 1, message: "too hot", timestamp: 1 } as const;
    connection.send({ type: "initial_state", history: [record], alerts: [alert] });
    await shows("root", "CPU 42.0 %");
    await shows("root", "warning: too hot");
  });
});

it.each(Object.entries(EXAMPLES))("%s is below 100 lines", (name, main) => {
  for (const file of [main, "index.html"]) {
    expect(readFileSync(`${FOLDER}/${name}/${file}`, "utf8").split("\n").length).toBeLessThan(100);
  }
});
