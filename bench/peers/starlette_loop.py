"""The server of most tutorials: Starlette, a loop over `send_text`, and a queue for each SSE stream. No bus."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms: dict[str, set[WebSocket]] = {}
streams: dict[str, set[asyncio.Queue[str]]] = {}


async def endpoint(ws: WebSocket) -> None:
    await ws.accept()
    user = f"u-{id(ws):020d}"
    await ws.send_text(json.dumps({"type": "welcome", "userId": user}))
    try:
        while True:
            message = json.loads(await ws.receive_text())
            if message["type"] == "join_room":
                rooms.setdefault(message["room"], set()).add(ws)
                await ws.send_text(json.dumps({"type": "joined_room", "room": message["room"]}))
            elif message["type"] == "room_message":
                text = json.dumps(
                    {
                        "type": "room_message",
                        "userId": user,
                        "username": "bench",
                        "room": message["room"],
                        "content": message["content"],
                        "timestamp": time.time_ns() // 1_000_000,
                    },
                    ensure_ascii=False,
                )
                for member in list(rooms[message["room"]]):
                    await member.send_text(text)
                for queue in streams.get(message["room"], ()):
                    queue.put_nowait(f"event: room_message\ndata: {text}\n\n")
                await ws.send_text(json.dumps({"type": "ack", "id": message.get("id")}))
    except WebSocketDisconnect:
        for members in rooms.values():
            members.discard(ws)


async def events(request: Request) -> StreamingResponse:
    room = request.query_params["rooms"]
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def body() -> AsyncIterator[str]:
        streams.setdefault(room, set()).add(queue)
        try:
            yield "event: connected\ndata: {}\n\nevent: joined_room\ndata: {}\n\n"
            while True:
                yield await queue.get()
        finally:
            streams[room].discard(queue)

    return StreamingResponse(body(), media_type="text/event-stream", headers={"cache-control": "no-store"})


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/ws", endpoint), Route("/events", events)]),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="error",
        ws_ping_interval=None,  # its pings carry random bytes, which may contain the load's mark
        ws_per_message_deflate=os.environ.get("COMPRESS") == "1",
        backlog=4096,
    )
