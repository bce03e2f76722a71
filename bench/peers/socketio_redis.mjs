// Socket.IO 4 with its Redis adapter, WebSocket transport only.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const publisher = createClient({ url: process.env.REDIS_URL });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer((_, response) => response.end("ok"));
const io = new Server(http, {
  adapter: createAdapter(publisher, subscriber),
  transports: ["websocket"],
  perMessageDeflate: process.env.COMPRESS === "1",
});
io.on("connection", (socket) => {
  socket.emit("welcome", { userId: socket.id });
  socket.on("join_room", async ({ room }) => {
    await socket.join(room);
    socket.emit("joined_room", { room });
  });
  socket.on("room_message", ({ room, content, id }) => {
    io.to(room).emit("room_message", {
      userId: socket.id, username: "bench", room, content, timestamp: Date.now(),
    });
    socket.emit("ack", { id, timestamp: Date.now() });
  });
});
http.listen(Number(process.env.PORT), "127.0.0.1");
