// The smallest room server in Bun that speaks our messages: join, publish, acknowledge.
type Data = { user: string };

export function serve(
  forward: (room: string, text: string) => true | undefined,
  onJoin: (room: string) => unknown = () => undefined,
) {
  let next = 0;
  const server = Bun.serve<Data>({
    hostname: "127.0.0.1",
    port: Number(process.env.PORT),
    reusePort: true,
    fetch(request, server) {
      if (server.upgrade(request, { data: { user: `u-${String(next++).padStart(20, "0")}` } })) return;
      return new Response("ok");
    },
    websocket: {
      perMessageDeflate: false,
      open(ws) {
        ws.send(JSON.stringify({ type: "welcome", userId: ws.data.user }));
      },
      async message(ws, text) {
        const message = JSON.parse(text as string);
        if (message.type === "join_room") {
          await onJoin(message.room);
          ws.subscribe(message.room);
          ws.send(JSON.stringify({ type: "joined_room", room: message.room }));
        } else if (message.type === "room_message") {
          const out = JSON.stringify({
            type: "room_message",
            userId: ws.data.user,
            username: "bench",
            room: message.room,
            content: message.content,
            timestamp: Date.now(),
          });
          if (!forward(message.room, out)) server.publish(message.room, out);
          ws.send(JSON.stringify({ type: "ack", id: message.id, timestamp: Date.now() }));
        }
      },
    },
  });
  return server;
}
