"""Posting to receivers: what was taken, what may have been, and one that hangs holds up nobody else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from metrics_svc.notify import http
from metrics_svc.notify.notification import Notification
from metrics_svc.notify.outlet import THREADS, DeliveryFailed, Lane
from metrics_svc.notify.webhook import Webhook
from tests.support.notifying import entry

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

MESSAGE = Notification("webhook-1", "{}:{}", {}, [entry()], [], "key")


@asynccontextmanager
async def receiver(answer: Answer) -> AsyncIterator[str]:
    """A server that reads each request's head and does as told; everything it holds is closed with it."""
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        await reader.readuntil(b"\r\n\r\n")
        await answer(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        for writer in open_now:
            writer.transport.abort()


def saying(text: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()

    return answer


OK = saying(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "receiver", "http://127.0.0.1:1/x", "http://[::1"]
)
async def test_what_cannot_be_posted_says_why(url: str) -> None:
    with pytest.raises(DeliveryFailed) as failed:
        await http.post_json(Lane(), url, b"{}", {})
    assert failed.value.reason
    assert not failed.value.perhaps


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 404, 429, 500, 503])
async def test_every_answer_but_2xx_is_no_delivery(status: int) -> None:
    """A redirect followed would be a GET: answered with 200, and nothing delivered."""
    async with receiver(OK) as elsewhere:
        head = (
            f"HTTP/1.1 {status} X\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        async with receiver(saying(head.encode())) as url:
            with pytest.raises(DeliveryFailed, match=f"HTTP {status}") as failed:
                await Webhook(url).send(MESSAGE)
    assert not failed.value.perhaps


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH_9.9\r\n"])
async def test_without_an_answer_it_may_have_been_taken(text: bytes) -> None:
    async with receiver(saying(text)) as url:
        with pytest.raises(DeliveryFailed) as failed:
            await Webhook(url).send(MESSAGE)
    assert failed.value.perhaps


async def test_an_answer_that_never_ends_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte begins the socket's own time limit anew."""
    monkeypatch.setattr(http, "ATTEMPT_S", 0.3)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.transport.is_closing():
            writer.write(b"x: y\r\n")
            await asyncio.sleep(0.05)

    async with receiver(drip) as url:
        with pytest.raises(DeliveryFailed, match=r"not taken within 0\.3 s") as failed:
            await Webhook(url).send(MESSAGE)
    assert failed.value.perhaps


async def test_one_that_hangs_holds_up_nobody_else() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with receiver(hang) as hanging, receiver(OK) as well:
        stuck = Webhook(hanging)
        waiting = [asyncio.create_task(stuck.send(MESSAGE)) for _ in range(4 * THREADS)]
        async with asyncio.timeout(2):
            await Webhook(well).send(MESSAGE)
            await asyncio.to_thread(lambda: None)  # nor whatever else runs in a thread
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
