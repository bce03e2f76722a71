"""What most tutorials do: Starlette, and a loop over `send_text`. No bus."""

import json
import os
import time

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms: dict[str, set[WebSocket]] = {}


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
                await ws.send_text(json.dumps({"type": "ack", "id": message.get("id")}))
    except WebSocketDisconnect:
        for members in rooms.values():
            members.discard(ws)


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/ws", endpoint)]),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="error",
        ws_per_message_deflate=False,
        backlog=4096,
    )
