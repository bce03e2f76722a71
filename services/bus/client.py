"""The connection to NATS, as the rest of the platform sees it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog

from services.bus.connection import BusConnection
from services.bus.errors import BusError, Misconfigured, NoAnswer, Unavailable
from services.bus.message import BusMessage, check_publishable, check_subscribable, encode_headers
from services.bus.nats_client import LeanClient, Subscription
from services.bus.reply_inbox import HandlerT, PendingRequest, ReplyInbox
from services.bus.stats import BusStats, Probe
from services.permissions import OPERATOR, Role
from services.permissions.nats import answerer_of, inbox_prefix, prove_nats
from services.settings import Settings, random_suffix
from services.tasks import TaskSet

__all__ = ["Bus", "BusMessage", "Subscription"]

_log = structlog.get_logger(__name__)
_TRY_S = 2.0

_NOTHING = nullcontext()


class Bus:
    """One connection, for one event loop. Made by `connect`; it reconnects by itself."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        role: Role | None,
        probe_interval_s: float,
        probe_stale_s: float,
        ping_interval_s: float,
    ) -> None:
        self.stats = BusStats()
        self.inbox_prefix = inbox_prefix(role)  # where the server answers: JetStream
        self.connection = BusConnection(
            settings,
            self.stats,
            on_lost=self._on_lost,
            on_return=self._on_return,
            on_violation=self._on_violation,
            name=name,
            ping_interval_s=ping_interval_s,
        )
        self._detach = self.connection.detach  # one bound method for all subscriptions
        self._loop = asyncio.get_running_loop()
        self._role = role
        self._prefix = settings.prefix
        # One for each role that answers, so that none can answer for another.
        self._reply_inboxes: dict[str, ReplyInbox[PendingRequest]] = {}
        self._inboxes: dict[ReplyInbox[Any], Subscription] = {}
        self._violation = ""  # the last one
        self._disconnect_callbacks: list[Callable[[], None]] = []
        self._reconnect_callbacks: list[Callable[[], Awaitable[None]]] = []
        self._tasks = TaskSet()
        self._closed = False
        self._probe = Probe(probe_stale_s, self._loop.time())
        self._probe_interval_s = probe_interval_s
        self._refused: set[tuple[str, str]] | None = None
        instance = f"{name}-{random_suffix()}-{id(self):x}"
        self._probe_subject = settings.subjects.probe(role or OPERATOR, instance)
        self._trace_subject = settings.subjects.probe(role or OPERATOR, f"{instance}-trace")

    @classmethod
    async def connect(
        cls,
        settings: Settings,
        name: str,
        *,
        probe_interval_s: float = 2.0,
        probe_stale_s: float = 5.0,
        ping_interval_s: float = 10.0,
        role: Role | None = None,
    ) -> "Bus":
        """Connect, trying for `settings.bus_connect_s`. `name` is shown in the server's monitoring.

        A silent server is left for another after `probe_stale_s` and two probes; a single one is given up after two to
        three `ping_interval_s`. With a `role`, replies come to that role's inboxes, and its permissions are checked.

        Raises:
            Misconfigured: bad credentials, missing permissions, too old a server.
            Unavailable: no server answered in time.
        """
        bus = cls(settings, name, role, probe_interval_s, probe_stale_s, ping_interval_s)
        await bus.connection.open(settings.bus_connect_s)
        try:
            bus._inbox_for("$")
            bus.subscribe(bus._probe_subject, bus._on_probe)
            await bus.flush()
            bus._probe.on_echo(bus._loop.time())
            bus._tasks.spawn(bus._keep_probing(), "bus probe")
            if role is not None:
                await prove_nats(bus.refused, role, settings)
        except (BusError, asyncio.CancelledError):
            await bus.close()
            raise
        return bus

    # --- state ---

    @property
    def healthy(self) -> bool:
        """Whether a probe came through the bus lately (not only the client's own state)."""
        return not self._closed and self._probe.healthy(self._loop.time())

    @property
    def connected(self) -> bool:
        """Whether the client would accept a publish now."""
        return self._client.up

    @property
    def max_payload(self) -> int:
        """The most bytes of payload and headers that the server takes."""
        return self._client.max_payload

    @property
    def _client(self) -> LeanClient:
        return self.connection.client

    # --- publishing ---

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Queue a message.

        Raises:
            ValueError: wildcards, white space or control characters where they must not be.
            PayloadTooLarge: payload and headers exceed `max_payload`.
            Unavailable: disconnected (never sends late), or too much waits to be sent.
        """
        check_publishable(subject)
        if reply:
            check_publishable(reply)
        self.connection.client.send(subject, payload, reply, encode_headers(headers) if headers else b"")

    def publish_encoded(self, subject: str, payload: bytes, reply: str, headers: bytes) -> None:
        """Queue a message with an encoded header block; subjects were checked. Raises as `publish`, but ValueError."""
        self.connection.client.send(subject, payload, reply, headers)

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the server has processed all before (PING/PONG).

        Raises:
            Misconfigured: the server reported a permission violation meanwhile.
            Unavailable: disconnected, or no answer in time.
        """
        reported_before = self.stats.permission_violations
        await self._client.barrier(timeout_s)
        if self.stats.permission_violations > reported_before:
            raise Misconfigured(f"NATS: {self._violation}")

    # --- subscribing ---

    def subscribe(
        self,
        subject: str,
        on_message: Callable[[BusMessage], None],
        *,
        queue: str = "",
        optional: bool = False,
    ) -> Subscription:
        """Call `on_message` synchronously, in order, for each message, also after reconnects; its errors are logged.

        An `optional` subscription ends where the server does not permit it.

        Raises:
            ValueError: malformed subject or queue group.
        """
        check_subscribable(subject)
        if queue:
            check_publishable(queue)
        subscription = Subscription(subject, queue, on_message, self._detach)
        self.connection.attach(subscription, subject if optional else "")
        return subscription

    def add_inbox(self, inbox: ReplyInbox[HandlerT]) -> None:
        """Deliver replies to an inbox; its requests fail when the connection is lost."""
        self._inboxes[inbox] = self.subscribe(inbox.subject, inbox.on_message)

    def remove_inbox(self, inbox: ReplyInbox[HandlerT]) -> None:
        """Stop delivering to an inbox. Idempotent."""
        subscription = self._inboxes.pop(inbox, None)
        if subscription is not None:
            subscription.close()

    # --- requests ---

    async def request(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> BusMessage:
        """Send a request and wait for one reply.

        Raises:
            NoAnswer: no responders (at once), or no answer in time.
            Unavailable: disconnected, or the connection was lost meanwhile (at once).
            Misconfigured: this user may not publish there.
            PayloadTooLarge: over `max_payload`.
        """
        answers = await self.request_many(
            subject, payload, timeout_s=timeout_s, until=_first, headers=headers
        )
        if not answers:
            raise NoAnswer(subject, f"not within {timeout_s:g} s")
        return answers[0]

    def answering(
        self,
        endpoint: str,  # noqa: ARG002  # for a bus that traces
        headers: Mapping[str, str] | None,  # noqa: ARG002  # as above
    ) -> AbstractContextManager[object, bool | None]:
        """Return the context that a service's handler runs in; empty unless the bus traces (`services.tracing`)."""
        return _NOTHING

    async def request_many(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float,
        until: Callable[[BusMessage], bool] | None = None,
        stall_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> list[BusMessage]:
        """Gather replies until `until` returns True for one, none comes for `stall_s`, or the time is up.

        Raises as `request`, but returns an empty list when the time is up without a reply; replies that came before
        the connection was lost are dropped.
        """
        check_publishable(subject)
        encoded = encode_headers(headers) if headers else b""
        inbox, request = self._inbox_for(subject), PendingRequest(subject, until)
        reply = inbox.open(request)
        try:
            self._client.send(subject, payload, reply, encoded)
            self.stats.requests += 1
            try:
                answers = await request.answers(timeout_s, stall_s)
            except BusError:
                self.stats.unanswered += 1
                raise
            self.stats.unanswered += not answers
            return answers
        finally:
            inbox.close(reply)

    def _inbox_for(self, subject: str) -> ReplyInbox[PendingRequest]:
        """Return the inbox for replies of the role that answers on a subject."""
        answerer = answerer_of(subject, self._prefix)
        inbox = self._reply_inboxes.get(answerer)
        if inbox is None:
            inbox = self._reply_inboxes[answerer] = ReplyInbox(prefix=inbox_prefix(self._role, answerer))
            self.add_inbox(inbox)
        return inbox

    # --- permissions ---

    async def refused(self, publish: Collection[str], subscribe: Collection[str]) -> set[tuple[str, str]]:
        """Try subjects without delivery (`Nats-Trace-Only`, NATS ADR-41).

        Returns those refused, as (`publish` or `subscription`, subject in lower case).

        Raises:
            Unavailable: disconnected, or no answer in time.
        """
        self._refused = set()
        subscriptions = [self.subscribe(subject, _ignore) for subject in subscribe]
        try:
            for subject in publish:
                headers = {"Nats-Trace-Only": "true", "Nats-Trace-Dest": self._trace_subject}
                self.publish(subject, b"", headers=headers)
            await self._client.barrier(_TRY_S)
            return self._refused
        finally:
            self._refused = None
            for subscription in subscriptions:
                subscription.close()

    # --- coming and going ---

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time the connection is lost, before anything of a new one arrives; it must not raise."""
        self._disconnect_callbacks.append(callback)

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run `callback` after each reconnect (in a new task, errors logged), with all subscriptions active."""
        self._reconnect_callbacks.append(callback)

    async def close(self) -> None:
        """Flush what is queued, briefly, and disconnect. Idempotent; never raises."""
        if self._closed:
            return
        self._closed = True
        await self._tasks.close()
        await self.connection.close()
        self._fail_waiting(Unavailable("the bus was closed"))

    # --- events of the connection ---

    def _on_lost(self) -> None:
        self._fail_waiting(Unavailable("connection to NATS lost"))
        for callback in self._disconnect_callbacks:
            callback()

    def _on_return(self) -> None:
        self._send_probe()
        for callback in self._reconnect_callbacks:
            self._tasks.spawn(_logged(callback), "bus reconnect callback")

    def _on_violation(self, operation: str, subject: str) -> None:
        """Fail pending requests to that subject at once instead of at their deadline."""
        if self._refused is not None:
            self._refused.add((operation, subject))
        self._violation = f"permissions violation for {operation} to {subject}"
        error = Misconfigured(f"NATS: {self._violation}")
        for inbox in self._inboxes:
            if operation == "publish":
                inbox.fail_subject(subject, error)
            elif inbox.subject.lower() == subject:
                inbox.fail_all(error)

    def _fail_waiting(self, error: BusError) -> None:
        for inbox in self._inboxes:
            inbox.fail_all(error)

    # --- the probe ---

    def _on_probe(self, _message: BusMessage) -> None:
        self._probe.on_echo(self._loop.time())

    def _send_probe(self) -> None:
        try:
            self._client.send(self._probe_subject, b"", "", b"")
        except Unavailable:
            self.stats.probes_lost += 1

    async def _keep_probing(self) -> None:
        silent = 0
        while True:
            self._send_probe()
            await asyncio.sleep(self._probe_interval_s)
            # Twice: a loop of ours that hung sees the first time only that it has not read for long.
            silent = silent + 1 if self.connected and not self.healthy else 0
            self.connection.check(silent=silent > 1)


def _ignore(_message: BusMessage) -> None:
    """Nothing is sent on subjects that are only tried."""


def _first(_message: BusMessage) -> bool:
    return True


async def _logged(callback: Callable[[], Awaitable[None]]) -> None:
    try:
        await callback()
    except NoAnswer as exc:
        _log.warning("bus reconnect callback unanswered", error=str(exc))
    except Exception:  # noqa: BLE001  # one callback's fault must not keep the others from running, nor go unseen
        _log.exception("bus reconnect callback failed")
