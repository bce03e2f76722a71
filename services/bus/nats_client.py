"""The nats-py client with a short path for messages and its traps closed. No other file touches its insides.

Written against nats-py 2.16. What differs from its `Client`, and why:

- Messages for a `Subscription` of ours go straight to its callback: no `Msg`, header dictionary, queue or
  task. nats-py's own queue drops the newest messages when it is full; here there is none.
- `send` is synchronous and bounded, and refuses while disconnected. What was queued when the connection broke
  is discarded and counted: nothing is sent late.
- What is queued is written with the next turn of the loop, by no task: nats-py's flusher, which costs five times as much
  as the write, runs only while the server is behind.
- `barrier` writes what is queued before its PING. `Client.flush` sends the PING first, so it proves nothing
  about messages published just before it.
- A PONG for a flush that timed out meets a cancelled future, and the exception would end the read loop while
  `is_connected` stays true.
- Losing the connection is seen at once and by one place, whatever the path (`_status` is a property).
- A broken connection is aborted: `close()` would wait for bytes that a frozen server never takes, and the
  client would not turn to another server meanwhile.
- With a `tls://` URL, a server that does not ask for TLS is refused before credentials are sent.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import ParseResult

import structlog
from nats import errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.transport import TcpTransport

from services.bus.errors import PayloadTooLarge, Unavailable
from services.bus.message import BusMessage
from services.bus.stats import BusStats

_log = structlog.get_logger(__name__)


# More that waits to be written makes publishes Unavailable: it is a second or so of traffic.
MAX_PENDING_BYTES = 8 * 1024 * 1024
_BEHIND_BYTES = 65_536  # more than that in the transport, and nats-py's flusher waits until it is written


# `up`: connected again, subscriptions are on their way to the server. `down`: the connection was lost, the client
# reconnects by itself. `closed`: the client has closed for good and needs to be replaced.
ClientState = Literal["up", "down", "closed"]


class Subscription:
    """A subscription; `close()` ends it at once and is idempotent."""

    __slots__ = ("_id", "_on_close", "_queue", "_received", "_subject", "on_message")

    # What nats-py reads from entries of its table when it replays or closes them.
    _max_msgs = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(
        self,
        subject: str,
        queue: str,
        on_message: Callable[[BusMessage], None],
        on_close: Callable[["Subscription"], None],
    ) -> None:
        self._id = 0
        self._subject = subject
        self._queue = queue
        self._received = 0
        self._on_close = on_close
        self.on_message = on_message

    def close(self) -> None:
        """End the subscription. No message reaches the callback afterwards."""
        self._on_close(self)


class AbortingTransport(TcpTransport):
    """TCP that never waits for a dead peer while closing, and never leaks the connection before."""

    def __bool__(self) -> bool:
        """Stay in place: nats-py puts a transport of its own where it finds a false one."""
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Open a connection, dropping the one before."""
        self.close()
        await super().connect(uri, buffer_size, connect_timeout)

    def close(self) -> None:
        """Drop the connection with what is still unsent."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()


class LeanClient(Client):
    """A client whose lean subscriptions and publishes cost a few microseconds."""

    def __init__(self, stats: BusStats) -> None:
        self.up = False
        # Called synchronously, from anywhere; must not raise.
        self.watcher: Callable[[ClientState], None] | None = None
        self.stats_of_bus = stats
        self._state = Client.DISCONNECTED
        self._flush_due = False
        self._loop = asyncio.get_running_loop()
        self._barriers: set[asyncio.Future[bool]] = set()
        super().__init__()

    # --- the connection's state ---

    @property
    def _status(self) -> int:
        return self._state

    @_status.setter
    def _status(self, status: int) -> None:
        before, self._state = self._state, status
        if before == status:
            return
        was_up, self.up = self.up, status == Client.CONNECTED
        if was_up and not self.up:
            self._drop_queued()
        if self.watcher is None:
            return
        if self.up:
            self.watcher("up")
        elif was_up:
            self.watcher("down")
        if status == Client.CLOSED:
            self.watcher("closed")

    def _drop_queued(self) -> None:
        """Forget what a lost connection did not take, so that it is not sent when there is a new one."""
        self.stats_of_bus.discarded += sum(
            1 for command in self._pending if command.startswith((b"PUB", b"HPUB"))
        )
        self._pending = []
        self._pending_data_size = 0
        for barrier in self._barriers:
            if not barrier.done():
                barrier.set_result(False)

    @property
    def stuck(self) -> bool:
        """Whether the client can no longer help itself: a task of its own ended by an unexpected error."""
        if self.up:
            return any(task is None or task.done() for task in (self._reading_task, self._flusher_task))
        if self._state in (Client.RECONNECTING, Client.CONNECTING):
            return self._reconnection_task is None or self._reconnection_task.done()
        return self._state == Client.CLOSED

    @property
    def knows_others(self) -> bool:
        """Whether another server is known, from the configuration or from the cluster itself."""
        return len(self._server_pool) > 1

    def reconnect_forever(self) -> None:
        """Reconnect by itself from now on; the first connect is one attempt."""
        self.options["allow_reconnect"] = True
        self.options["max_reconnect_attempts"] = -1

    def leave_server(self) -> None:
        """Drop the connection as if it had broken: nats-py then tries the servers that it knows."""
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]

    @property
    def server_info(self) -> dict[str, Any]:
        """The server's INFO."""
        return self._server_info

    # --- sending ---

    def send(self, subject: str, payload: bytes, reply: str, headers: bytes) -> None:
        """Queue a message whose subject was checked and whose headers are encoded.

        Raises:
            PayloadTooLarge: payload and headers exceed the server's limit.
            Unavailable: disconnected, or more bytes wait than may.
        """
        size = len(payload) + len(headers)
        stats = self.stats_of_bus
        if size > self._max_payload:
            stats.publish_refused += 1
            raise PayloadTooLarge(size, self._max_payload)
        if not self.up:
            stats.publish_refused += 1
            raise Unavailable("not connected to NATS")
        if self._pending_data_size > MAX_PENDING_BYTES:
            stats.publish_refused += 1
            raise Unavailable("the connection to NATS does not keep up")
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode()
            command = b"%b%b%b\r\n" % (head, headers, payload)
        else:
            command = b"%b%b\r\n" % (f"PUB {subject} {reply} {size}\r\n".encode(), payload)
        stats.published += 1
        stats.published_bytes += size
        # As in `_queue_command`, without a call for each message.
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush_soon)

    def _queue_command(self, command: bytes) -> None:
        """Send with all that gathers until the loop's next turn."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_due = False
        if not self._pending or not self.up:
            return
        writer = self._transport._io_writer if isinstance(self._transport, AbortingTransport) else None
        if writer is not None and writer.transport.get_write_buffer_size() <= _BEHIND_BYTES:
            try:
                writer.transport.write(b"".join(self._pending))
            except (OSError, RuntimeError):
                writer = None  # closed: nats-py's flusher meets the same fault, and handles it
        else:
            writer = None  # the server is behind or gone: the flusher waits for it
        if writer is not None:
            self._pending = []
            self._pending_data_size = 0
        elif (queue := self._flush_queue) is not None and queue.empty():
            queue.put_nowait(self._loop.create_future())

    async def barrier(self, timeout_s: float) -> None:
        """Return when the server has processed everything sent before.

        Raises:
            Unavailable: disconnected, connection lost meanwhile, or no PONG in time.
        """
        if not self.up or self._transport is None:
            raise Unavailable("not connected to NATS")
        if self._pending:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        pong: asyncio.Future[bool] = self._loop.create_future()
        self._barriers.add(pong)
        self._pongs.append(pong)
        self._transport.write(PING_PROTO)
        try:
            await asyncio.wait((pong,), timeout=timeout_s)
            if not pong.done():
                raise Unavailable(f"NATS did not answer a ping within {timeout_s:g} s")
            if not pong.result():
                raise Unavailable("connection to NATS lost")
        finally:
            self._barriers.discard(pong)
            pong.cancel()  # when the caller gave up; `_process_pong` passes over it

    async def _process_pong(self) -> None:
        if self._pongs:
            future = self._pongs.pop(0)
            if not future.done():
                future.set_result(True)
            self._pongs_received += 1
            self._pings_outstanding = 0

    # --- receiving ---

    def attach(self, subscription: Subscription) -> None:
        """Subscribe now, or with the others once connected."""
        self._sid += 1
        subscription._id = self._sid
        self._subs[self._sid] = subscription  # type: ignore[assignment]  # has what nats-py reads of it
        if self.up:
            self._queue_command(f"SUB {subscription._subject} {subscription._queue} {self._sid}\r\n".encode())

    def detach(self, subscription: Subscription) -> None:
        """Unsubscribe; harmless when done before."""
        if self._subs.pop(subscription._id, None) is not None and self.up:
            self._queue_command(b"UNSUB %d\r\n" % subscription._id)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        subscription = self._subs.get(sid)
        if not isinstance(subscription, Subscription):
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        stats = self.stats_of_bus
        stats.received += 1
        stats.received_bytes += len(data)
        try:
            subscription.on_message(BusMessage(subject.decode(), reply.decode(), data, headers or b""))
        except Exception:  # noqa: BLE001  # a callback's fault must not end the read loop
            stats.callback_errors += 1
            _log.exception("bus callback failed", subscription=subscription._subject)

    # --- connecting and leaving ---

    async def _connect_to_server(self, server: Any) -> None:
        if self._transport is None and server.uri.scheme not in ("ws", "wss"):
            self._transport = AbortingTransport()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(server)

    def _connect_command(self) -> bytes:
        server = self._current_server
        if server is not None and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise errors.SecureConnRequiredError
        return super()._connect_command()

    async def close_now(self, timeout_s: float = 1.0) -> None:
        """Close without sending what is queued, within `timeout_s`. Never raises, never calls the watcher."""
        self.watcher = None
        self._pending = []
        self._pending_data_size = 0
        try:
            await asyncio.wait_for(self.close(), timeout_s)
        except (OSError, TimeoutError, errors.Error) as exc:
            _log.debug("bus close incomplete", error=repr(exc))
        finally:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
