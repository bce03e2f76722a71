"""python-socketio with its Redis manager on uvicorn, WebSocket transport only."""

import os
import time
from typing import Any

import socketio
import uvicorn

server = socketio.AsyncServer(
    async_mode="asgi",
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
        backlog=4096,
    )
