// The pointers of all users, in an ephemeral room: a position is useless a second later, so none is stored or repeated.
import { TidingsClient } from "@tidings/client";

interface Point {
  x: number;
  y: number;
}

const client = new TidingsClient("/", { username: `guest ${Math.floor(Math.random() * 1000)}` });
const room = client.room("live:example-cursors");
const cursors = new Map<string, HTMLElement>();

function cursorOf(userId: string, username: string): HTMLElement {
  let cursor = cursors.get(userId);
  if (!cursor) {
    cursor = document.createElement("div");
    cursor.className = "cursor";
    cursor.textContent = `➤ ${username}`;
    document.body.append(cursor);
    cursors.set(userId, cursor);
  }
  return cursor;
}

room.on("message", ({ userId, username, content }) => {
  const { x, y } = content as Point;
  cursorOf(userId, username).style.transform = `translate(${x * window.innerWidth}px, ${y * window.innerHeight}px)`;
});

room.on("userLeft", ({ userId }) => {
  cursors.get(userId)?.remove();
  cursors.delete(userId);
});

// At most 20 a second; the newest position is always sent.
let next: Point | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;

function send(): void {
  timer = undefined;
  if (!next || room.state.get() !== "joined") return;
  room.publish(next).catch(() => undefined); // a newer position follows
  next = undefined;
  timer = setTimeout(send, 50);
}

document.addEventListener("pointermove", ({ clientX, clientY }) => {
  next = { x: clientX / window.innerWidth, y: clientY / window.innerHeight };
  if (timer === undefined) send();
});

room.hold();
client.hold();
