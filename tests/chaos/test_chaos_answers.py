"""A client of the broken part always gets an answer in time, never silence."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.cluster import Cluster
from tests.support.faults import delayed, killed, partitioned, paused
from tidings_cli.gateways import socket_url

_LIMIT_S = 10.0

Break = Callable[[Cluster], AbstractAsyncContextManager[None]]
FAULTS: dict[str, Break] = {
    "NATS killed": lambda cluster: killed(cluster.nats),
    "NATS frozen": lambda cluster: paused(cluster.nats),
    "gateway cut off": lambda cluster: partitioned(cluster.proxy),
    "gateway slow to reach NATS": lambda cluster: delayed(cluster.proxy, 0.9),
    "Redis frozen": lambda cluster: paused(cluster.redis),
    "presence frozen": lambda cluster: paused(cluster.presence),
    "metrics frozen": lambda cluster: paused(cluster.metrics),
}

REQUESTS: dict[str, dict[str, Any]] = {
    "publish": {"type": "room_message", "room": "answers", "content": 1},
    "join": {"type": "join_room", "room": "another"},
    "rejoin": {"type": "join_room", "room": "answers", "since": {"epoch": "old", "seq": 1}},
    "direct": {"type": "direct_message", "targetUserId": "somebody", "content": 1},
    "broadcast": {"type": "broadcast", "content": 1},
    "status": {"type": "status_change", "status": "away"},
    "data": {"type": "presence_update", "customData": {"a": 1}},
    "heartbeat": {"type": "heartbeat"},
    "subscribe": {"type": "subscribe", "channels": ["presence", "metrics", "alerts"]},
    "inbox": {"type": "subscribe", "channels": ["inbox"], "since": {"epoch": "old", "seq": 1}},
    "leave": {"type": "leave_room", "room": "a third"},
}

PATHS = [
    ("GET", "/api/presence"),
    ("GET", "/api/metrics/history"),
    ("GET", "/api/alerts"),
    ("GET", "/api/alerts/history"),
    ("GET", "/api/rooms"),
    ("GET", "/api/rooms/answers/history"),
    ("GET", "/api/gateways"),
    ("GET", "/readyz"),
    ("GET", "/healthz"),
    ("POST", "/api/publish"),
    ("DELETE", "/api/users/nobody/connections"),
]


async def _answers(connection: ClientConnection) -> dict[str, dict[str, Any]]:
    """Send every request, and return the answers that came in time by request."""
    for id, request in REQUESTS.items():
        await connection.send(json.dumps(request | {"id": id}))
    answers: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(_LIMIT_S):
            while len(answers) < len(REQUESTS):
                message = json.loads(await connection.recv())
                if message.get("id") in REQUESTS:
                    answers[message["id"]] = message
    except TimeoutError:
        return answers
    return answers


async def _upgrade(url: str) -> int:
    """Try to connect; return the HTTP status."""
    try:
        async with connect(socket_url(url, {"username": "late"}), open_timeout=_LIMIT_S, proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def _stream(client: httpx.AsyncClient) -> tuple[int, bool]:
    """Open a stream on a room and the inbox; return its status, and whether it received something about them."""
    async with client.stream("GET", "/events?rooms=streamed&channels=inbox") as response:
        async for line in response.aiter_lines():
            if line.startswith(("event: joined_room", "event: reset", "event: error")):
                return response.status_code, True
        return response.status_code, False


async def _fetch(client: httpx.AsyncClient, method: str, path: str) -> int:
    body = {"room": "answers", "content": 1} if method == "POST" else None
    response = await client.request(method, path, json=body)
    return response.status_code


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_request_is_answered_in_time(cluster: Cluster, fault: str) -> None:
    url = cluster.gateways[0].url
    async with (
        httpx.AsyncClient(base_url=url, timeout=_LIMIT_S, trust_env=False) as client,
        connect(socket_url(url, {"username": "client"}), proxy=None) as connection,
    ):
        await connection.send(json.dumps({"type": "join_room", "room": "answers", "id": "first"}))
        while json.loads(await connection.recv()).get("id") != "first":
            pass
        async with FAULTS[fault](cluster):
            started = time.monotonic()
            answers, upgraded, streamed, *statuses = await asyncio.gather(
                _answers(connection),
                _upgrade(url),
                _stream(client),
                *(_fetch(client, method, path) for method, path in PATHS),
            )
            took_s = time.monotonic() - started
    assert set(answers) == set(REQUESTS)
    errors = {id: answer for id, answer in answers.items() if answer["type"] == "error"}
    assert all(error["code"] == "unavailable" and error["retryable"] for error in errors.values()), errors
    assert answers["heartbeat"]["type"] == "heartbeat_ack"
    assert upgraded in (101, 503)
    assert streamed == (200, True)
    answered = dict(zip(PATHS, statuses, strict=True))
    assert set(answered.values()) <= {200, 202, 204, 503}, answered
    assert answered["GET", "/healthz"] == 200
    assert took_s < _LIMIT_S
