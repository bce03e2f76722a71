"""An alert reaches a receiver over real HTTP, when it begins and when it ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.settings import Settings
from tests.support.metrics_fleet import Fleet

pytestmark = pytest.mark.timeout(90)


async def test_posted_when_it_fires_and_when_it_ends(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    got: list[dict[str, Any]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        got.append(msgspec.json.decode(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(receive, "127.0.0.1", 0) as server,
        Fleet(make_settings(), tmp_path) as fleet,
    ):
        port = server.sockets[0].getsockname()[1]
        await fleet.leader(fleet.start(TIDINGS_WEBHOOK_URLS=f"http://127.0.0.1:{port}/hook"))
        await fleet.report_until(lambda: got, "the notification", gauges={"cpu": 95})
        await fleet.report_until(lambda: len(got) > 1, "the end of it", gauges={"cpu": 5})
    assert [body["status"] for body in got] == ["firing", "resolved"]
    firing, resolved = (body["alerts"][0] for body in got)
    assert firing["fingerprint"] == resolved["fingerprint"]
    assert firing["startsAt"] == resolved["startsAt"] < resolved["endsAt"]
