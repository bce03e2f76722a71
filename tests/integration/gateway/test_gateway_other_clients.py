"""Clients of others: the WebSocket of Node.js, which is that of browsers."""

import asyncio
import json
import subprocess
from pathlib import Path

from tests.support.clients import client
from tests.support.cluster import ServiceProcess
from tests.support.deadline import PATIENCE_S
from tests.support.deployment import websocket_url
from tests.support.requires import missing, need

_SCRIPT = Path(__file__).parents[2] / "support" / "node_client.mjs"


def node() -> list[str]:
    """Return the command of a Node that has a WebSocket: since 22, behind a flag since 20.10."""
    program = need("node", "Node 20.10 or newer")
    for flags in ([], ["--experimental-websocket"]):
        found = subprocess.run([program, *flags, "-e", "new WebSocket"], capture_output=True, text=True)
        if "ReferenceError" not in found.stderr and "bad option" not in found.stderr:
            return [program, *flags]
    missing("node", "Node 20.10 or newer, for its WebSocket")
    raise AssertionError("unreachable")


async def test_node_talks_with_python(gateways: tuple[ServiceProcess, ServiceProcess], room: str) -> None:
    async with client(gateways[0]) as ann:
        await ann.join(room)
        process = await asyncio.create_subprocess_exec(
            *node(), str(_SCRIPT), websocket_url(gateways[1], "username=Node"), room, stdout=subprocess.PIPE
        )
        joined = await ann.expect("user_joined", username="Node")
        await ann.ask("room_message", room=room, content="grüße 👋")
        heard = await ann.expect("room_message", userId=joined["userId"])
        assert heard["content"] == {"heard": "grüße 👋"}
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        await ann.expect("user_left", userId=joined["userId"])
    messages = [json.loads(line) for line in output.splitlines()]
    assert [message["type"] for message in messages] == [
        "welcome",
        "joined_room",
        "room_message",
        "ack",
        "closed",
    ]
    assert messages[-1] == {"type": "closed", "code": 1000, "wasClean": True, "protocol": "tidings.v1.json"}
