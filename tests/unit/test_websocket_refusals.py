"""Server errors during a handshake: the client is answered before and after the upgrade, and nothing is left behind."""

import asyncio
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from gateway.limits import Limit
from gateway.ws.handshake import PendingUpgrade, UpgradeHandler, UpgradeRules
from gateway.ws.protocol import ServerContext, WebSocketProtocol
from gateway.ws.sniff import UpgradeRequest
from gateway.ws.timers import Keepalive
from services.settings import Settings
from tests.property.test_threat_frames import UPGRADE, Recorder, Transport, outcome_of, sniffer_of


async def request_upgrade(rules: UpgradeRules) -> Transport:
    """Request an upgrade, and let the rules decide."""
    sniffer = sniffer_of(ServerContext(Settings(), Keepalive(25, 60), lambda _: None, set()), rules)
    transport = Transport()
    sniffer.connection_made(transport)
    sniffer.data_received(UPGRADE + b"\r\n")
    await asyncio.sleep(0)  # without eager tasks it is decided a turn later
    return transport


async def test_a_fault_in_the_decision_is_answered_and_logged_once() -> None:
    def fault(_now: float) -> float:
        raise RuntimeError("a fault of ours")

    gateway: Any = SimpleNamespace(settings=Settings(), admission=SimpleNamespace(wait_s=fault))
    with capture_logs() as lines:
        transport = await request_upgrade(UpgradeHandler(gateway))
    assert transport.written.startswith(b"HTTP/1.1 500 ")
    assert b'"internal"' in transport.written
    assert transport.ended
    assert [line["event"] for line in lines] == ["a handshake failed"]


async def test_an_upgrade_accepted_before_a_fault_is_closed() -> None:
    class Admits:
        def serves(self, path: str) -> bool:
            return path == "/ws"

        async def handle(self, upgrade: PendingUpgrade, request: UpgradeRequest) -> None:
            upgrade.accept(Recorder())
            upgrade.reject(500, (), b"")

    transport = await request_upgrade(Admits())
    assert transport.written.startswith(b"HTTP/1.1 101 ")
    assert transport.written.endswith(b"\x88\x10\x03\xf3internal error")
    protocol = transport.get_protocol()
    assert isinstance(protocol, WebSocketProtocol)
    assert protocol.closing
    protocol.connection_lost(None)


async def test_a_message_that_is_too_large_is_counted_once() -> None:
    head = b"\x82\xfe\x04\x01" + bytes(4)  # 1,025 bytes follow
    _, _, limits = await outcome_of([head, b"x" * 500, b"x" * 525], deflate=False)
    assert limits == [Limit.MESSAGE_BYTES]
