// A chat in one room: what was said before, what is said now, who is here, and nothing lost when the line drops.
import { TidingsClient, type RoomMessage } from "@tidings/client";

const byId = (id: string): HTMLElement => document.getElementById(id) as HTMLElement;

const client = new TidingsClient("/", { username: `guest ${Math.floor(Math.random() * 1000)}` });
const room = client.room("example-chat");

function show(message: Pick<RoomMessage, "username" | "content">): HTMLElement {
  const line = document.createElement("li");
  line.textContent = `${message.username}: ${String(message.content)}`;
  byId("messages").append(line);
  return line;
}

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
  byId("messages").replaceChildren();
  messages.forEach(show);
}

room.presence.users.subscribe(() => {
  const names = [...room.presence.users.get().values()].map(({ username }) => username);
  byId("people").textContent = names.join(", ");
});

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("text") as HTMLInputElement;
  const line = show({ username: "you", content: input.value });
  line.style.opacity = "0.5"; // until the server has stored it, also if that is after a reconnect
  room.publish(input.value).then(
    () => line.style.removeProperty("opacity"),
    (fault: unknown) => (line.textContent += ` (not sent: ${(fault as Error).message})`),
  );
  input.value = "";
});

room.hold();
room.presence.watch();
client.hold();
