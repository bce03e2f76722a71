"""Messages of `tidings pub` and `tidings sub` when a gateway refuses them."""

import asyncio
import socket

import pytest

from tidings_cli import CommandFailed
from tidings_cli.gateways import Gateways
from tidings_cli.pubsub import publish

_UNAVAILABLE = '{"code":"unavailable","message":"the server cannot take connections now","retryable":true,"retryAfterMs":1500}'
_NO_TOKEN = '{"code":"auth_required","message":"no credentials","retryable":false}'


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, _UNAVAILABLE, "503: unavailable: the server cannot take connections now; try again in 1.5 s"),
        (401, _NO_TOKEN, "401 (give a token with --token or TIDINGS_TOKEN): auth_required: no credentials"),
        (502, "<h1>Bad gateway</h1>", "502: <h1>Bad gateway</h1>"),
        (500, '{"code":7}', '500: {"code":7}'),
        (500, "", "500"),
    ],
)
async def test_a_refusal_has_its_own_text(status: int, body: str, said: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body.encode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(CommandFailed) as failed:
            await publish(Gateways([url]), "ada", "lobby", "hello")
    assert str(failed.value) == f"{url} answered {said}"


async def test_an_absent_gateway_is_reported_in_a_sentence() -> None:
    with socket.socket() as held:  # bound and not listening: no other process gets this port
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(CommandFailed) as unreached:
            await publish(Gateways([url]), "ada", "lobby", "hello")
    assert f"cannot reach {url}: connection refused. Does Tidings run? Start it" in str(unreached.value)
