// Notifications for one user on every tab and device: direct messages, including those sent while disconnected.
import { TidingsClient } from "@tidings/client";

const byId = (id: string): HTMLElement => document.getElementById(id) as HTMLElement;

const client = new TidingsClient("/", { username: "bell" });
let unread = 0;

function count(change: number): void {
  unread = Math.max(0, unread + change);
  byId("count").textContent = String(unread);
  document.title = unread > 0 ? `(${unread}) Notification bell` : "Notification bell";
}

client.inbox.on("message", ({ content, timestamp }) => {
  const notice = document.createElement("li");
  const text = typeof content === "string" ? content : JSON.stringify(content);
  notice.textContent = `${new Date(timestamp).toLocaleTimeString()} ${text}`;
  byId("notices").prepend(notice);
  count(1);
});

client.inbox.on("gap", () => {
  byId("state").textContent = "some notifications may be missing";
});

byId("bell").addEventListener("click", () => count(-unread));

client.on("welcome", ({ userId }) => {
  // Works under `TIDINGS_AUTH=open`; otherwise it needs an API key.
  const body = JSON.stringify({ userId, content: "your build is ready" });
  byId("command").textContent =
    `curl -X POST ${location.origin}/api/publish -H 'Content-Type: application/json' -d '${body}'`;
});

client.on("status", ({ state }) => (byId("state").textContent = state));

client.hold();
