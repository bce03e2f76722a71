"""python-socketio with its Redis manager on uvicorn, WebSocket transport only."""

import json
import os
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import socketio
import uvicorn

# As UTF-8, like the other peers: the load counts a character that Python would otherwise escape.
utf8 = SimpleNamespace(dumps=partial(json.dumps, ensure_ascii=False), loads=json.loads)

server = socketio.AsyncServer(
    async_mode="asgi",
    json=utf8,
    transports=["websocket"],
    client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"]),
)


@server.event
async def connect(sid: str, _environ: dict[str, Any]) -> None:
    await server.emit("welcome", {"userId": sid}, to=sid)


@server.event
async def join_room(sid: str, data: dict[str, Any]) -> None:
    await server.enter_room(sid, data["room"])
    await server.emit("joined_room", {"room": data["room"]}, to=sid)


@server.event
async def room_message(sid: str, data: dict[str, Any]) -> None:
    message = {
        "userId": sid,
        "username": "bench",
        "room": data["room"],
        "content": data["content"],
        "timestamp": time.time_ns() // 1_000_000,
    }
    await server.emit("room_message", message, room=data["room"])
    await server.emit("ack", {"id": data.get("id")}, to=sid)


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="error",
        ws_ping_interval=None,  # its pings carry random bytes, which may contain the load's mark
        ws_per_message_deflate=os.environ.get("COMPRESS") == "1",
        backlog=4096,
    )
