"""Server errors during a handshake: the client is answered before and after the upgrade, and nothing is left behind."""

import asyncio

from structlog.testing import capture_logs

from gateway.api.responses import refusal_response
from gateway.limits import Limit
from gateway.ws.handshake import PendingUpgrade, UpgradeHandler
from gateway.ws.protocol import WebSocketProtocol
from services.settings import Settings
from services.wire.codes import ErrorCode
from tests.property.test_threat_frames import UPGRADE, Recorder, Transport, connect, outcome_of


async def request_upgrade(handler: type[UpgradeHandler]) -> Transport:
    """Request an upgrade, and let the handler decide."""
    transport = connect(handler, Settings(), [], UPGRADE + b"\r\n")
    await asyncio.sleep(0)  # without eager tasks it is decided a turn later
    return transport


async def test_a_fault_in_the_decision_is_answered_and_logged_once() -> None:
    with capture_logs() as lines:
        transport = await request_upgrade(UpgradeHandler)  # of a gateway that lacks everything
    assert transport.written.startswith(b"HTTP/1.1 500 ")
    assert b'"internal"' in transport.written
    assert transport.ended
    assert [line["event"] for line in lines] == ["a handshake failed"]


async def test_an_upgrade_accepted_before_a_fault_is_closed() -> None:
    class Admits(UpgradeHandler):
        async def handle(self, upgrade: PendingUpgrade) -> None:
            upgrade.accept(Recorder())
            upgrade.reject(refusal_response(ErrorCode.INTERNAL, "a fault of ours"))

    transport = await request_upgrade(Admits)
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
