// A minimal room server in Bun with Tidings' messages: join, publish, ack, and one room as an SSE stream.
type Data = { user: string };
type Stream = ReadableStreamDefaultController<Uint8Array>;

const compress = process.env.COMPRESS === "1";

export function serve(
  forward: (room: string, text: string) => true | undefined,
  onJoin: (room: string) => unknown = () => undefined,
) {
  let next = 0;
  const streams = new Map<string, Set<Stream>>();
  const encoder = new TextEncoder();

  // Messages of a room to its members.
  const deliver = (room: string, text: string) => {
    server.publish(room, text, compress);
    const listening = streams.get(room);
    if (!listening?.size) return;
    const event = encoder.encode(`event: room_message\ndata: ${text}\n\n`);
    for (const stream of listening) stream.enqueue(event);
  };

  const events = async (room: string) => {
    await onJoin(room);
    const listening = streams.get(room) ?? new Set();
    streams.set(room, listening);
    let own: Stream;
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        own = controller;
        listening.add(controller);
        controller.enqueue(encoder.encode("event: connected\ndata: {}\n\nevent: joined_room\ndata: {}\n\n"));
      },
      cancel() {
        listening.delete(own);
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream", "cache-control": "no-store" } });
  };

  const server = Bun.serve<Data>({
    hostname: "127.0.0.1",
    port: Number(process.env.PORT),
    reusePort: true,
    idleTimeout: 0, // a stream may be silent
    fetch(request, server) {
      if (server.upgrade(request, { data: { user: `u-${String(next++).padStart(20, "0")}` } })) return;
      const url = new URL(request.url);
      if (url.pathname === "/events") return events(url.searchParams.get("rooms")!);
      return new Response("ok");
    },
    websocket: {
      perMessageDeflate: compress,
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
          if (!forward(message.room, out)) deliver(message.room, out);
          ws.send(JSON.stringify({ type: "ack", id: message.id, timestamp: Date.now() }));
        }
      },
    },
  });
  return deliver;
}
