// A chat in one room: history, live messages, presence, and recovery after a reconnect.
import { TidingsClient, type RoomMessage } from "@tidings/client";

const byId = (id: string): HTMLElement => document.getElementById(id) as HTMLElement;

const client = new TidingsClient("/", { username: `guest ${Math.floor(Math.random() * 1000)}` });
const room = client.room("example-chat");

/** Shown messages by sequence: history and live messages overlap and arrive in any order. */
const lines = new Map<number, HTMLElement>();

function lineOf({ username, content }: Pick<RoomMessage, "username" | "content">): HTMLElement {
  const line = document.createElement("li");
  line.textContent = `${username}: ${String(content)}`;
  return line;
}

function place(line: HTMLElement, seq: number): void {
  if (lines.has(seq)) return line.remove();
  const next = Math.min(...[...lines.keys()].filter((other) => other > seq));
  byId("messages").insertBefore(line, lines.get(next) ?? null);
  lines.set(seq, line);
}

const show = (message: RoomMessage): void => place(lineOf(message), message.seq ?? 0);

client.on("status", ({ state, retryAt }) => {
  const wait = retryAt === undefined ? "" : `, again in ${Math.ceil((retryAt - Date.now()) / 1000)} s`;
  byId("state").textContent = state + wait;
});

room.on("message", show);
room.on("joined", ({ recovered }) => {
  if (!recovered) void showHistory();
});

async function showHistory(): Promise<void> {
  const { messages } = await room.history({ limit: 50 });
  messages.forEach(show);
}

room.presence.users.subscribe(() => {
  const names = [...room.presence.users.get().values()].map(({ username }) => username);
  byId("people").textContent = names.join(", ");
});

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("text") as HTMLInputElement;
  const line = lineOf({ username: "you", content: input.value });
  byId("messages").append(line);
  line.style.opacity = "0.5"; // until the server has stored it, if need be after a reconnect
  room.publish(input.value).then(
    ({ seq = 0 }) => {
      line.style.removeProperty("opacity");
      place(line, seq); // its position in the room
    },
    (fault: unknown) => (line.textContent += ` (not sent: ${(fault as Error).message})`),
  );
  input.value = "";
});

room.hold();
room.presence.watch();
client.hold();
