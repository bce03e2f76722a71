"""Keeps one transport to the server open, and opens the next one when and only when it should."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidings_client.clock import Clock, Timer
from tidings_client.connection.backoff import Backoff, delay_before
from tidings_client.connection.codes import TOKEN_EXPIRED
from tidings_client.connection.fallback import Fallback, TransportKind
from tidings_client.connection.machine import Action, Input, State, advance
from tidings_client.connection.watchdog import TURN_S, Verdict, Watchdog
from tidings_client.errors import TidingsError
from tidings_client.generated.wire import ClientHeartbeat, ClientMessage, Position, ServerMessage, Welcome
from tidings_client.transport.base import End, Transport, TransportEvents

# A connection that lived so long has forgotten the failures before it: a server that sends all away is no success.
_STABLE_S = 5.0
_ANSWER_S = 5.0
_UPGRADE_S = 120.0


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How the connection stands."""

    state: State
    transport: TransportKind | None = None
    """Which transport carries, or last carried, the messages."""
    reason: str | None = None
    """Why the last connection ended, or could not be made."""
    code: int | None = None
    """The close code, where there was one."""
    retry_at: float | None = None
    """While suspended: when the next attempt is due, in seconds since 1970."""
    error: TidingsError | None = None
    """While failed: what was refused."""


class ConnectionOwner(Protocol):
    """Who has a connection, and hears of it."""

    def open(self, kind: TransportKind, events: TransportEvents) -> Transport: ...

    def on_message(self, message: ServerMessage) -> None: ...

    def on_status(self, status: ConnectionStatus) -> None: ...

    def on_up(self, welcome: Welcome) -> None: ...

    def on_down(self) -> None: ...

    def on_inbox_at(self, position: Position) -> None: ...

    def on_token_expired(self) -> None: ...


class Connection:
    """The connection over all transports there will be."""

    def __init__(
        self,
        owner: ConnectionOwner,
        *,
        clock: Clock,
        fallback: Fallback,
        backoff: Backoff,
        connect_timeout: float,
    ) -> None:
        self._owner = owner
        self._clock = clock
        self._fallback = fallback
        self._backoff = backoff
        self._connect_timeout = connect_timeout
        self.status = ConnectionStatus("closed")
        self._transport: Transport | None = None
        self._watchdog: Watchdog | None = None
        self._end = End("")
        self._attempts = 0
        self._up_at = 0.0
        self._not_before = 0.0
        self._due_at = 0.0
        self._due_timer: Timer | None = None
        self._watch_timer: Timer | None = None
        self._limit_timer: Timer | None = None
        self._going: list[Transport] = []

    @property
    def heard_at(self) -> float:
        """When anything last came from the server."""
        return self._watchdog.heard_at if self._watchdog else 0.0

    def connect(self) -> None:
        """Want a connection."""
        self._attempts = 0
        self._input("connect")

    def close(self) -> None:
        """Want none."""
        self._input("close")

    async def closed(self) -> None:
        """Wait until nothing is left of the transports that were let go."""
        while self._going:
            await self._going.pop().closed()

    def wake(self) -> None:
        """The world outside has changed: try now, or look whether the connection still lives."""
        if self._clock.now() >= self._not_before or self.status.state == "connected":
            self._input("wake")

    def suspect(self) -> None:
        """Doubt the connection: something was not answered."""
        if self.status.state == "connected" and self._watchdog is not None:
            self._judge(self._watchdog.probe(self._clock.now()))

    def send(self, message: ClientMessage) -> None:
        """Send now. Raises a TidingsError for what the server would not take; nothing is sent while not connected."""
        if self.status.state == "connected" and self._transport is not None:
            self._transport.send(message)

    def _input(self, given: Input) -> None:
        before = self.status.state
        step = advance(before, given)
        if step is None:
            return
        went_down = before == "connected" and step.next != "connected"
        if went_down:
            _cancel(self._watch_timer)
            _cancel(self._limit_timer)
        for action in step.actions:
            self._perform(action)
        self._tell(step.next)
        if went_down:
            self._owner.on_down()

    def _perform(self, action: Action) -> None:
        match action:
            case "open":
                self._open()
            case "drop" | "leave":
                _cancel(self._limit_timer)
                self._let_go(left=action == "leave")
            case "wait":
                self._wait()
            case "cancel":
                _cancel(self._due_timer)
            case "probe":
                self.suspect()

    def _open(self) -> None:
        kind = self._fallback.choose()
        link = _Link(self, kind)
        self._transport = link.transport = self._owner.open(kind, link)
        self._limit_timer = self._clock.call_later(
            self._connect_timeout, lambda: self.on_ended(End("the server did not answer in time"))
        )

    def _let_go(self, *, left: bool) -> None:
        if self._transport is not None:
            self._transport.close(left=left)
            self._going = [*self._going[-8:], self._transport]  # older ones have long had their time
        self._transport = None

    def is_mine(self, transport: Transport | None) -> bool:
        """Say whether a transport is the one in use: what others report concerns nobody."""
        return transport is not None and self._transport is transport

    def on_heard(self) -> None:
        """Take a sign of life from the transport in use."""
        if self._watchdog is not None:
            self._watchdog.on_heard(self._clock.now())

    def on_message(self, message: ServerMessage, kind: TransportKind) -> None:
        """Take a message from the transport in use."""
        if isinstance(message, Welcome) and self.status.state == "connecting":
            self._welcomed(message, kind)
        self._owner.on_message(message)

    def on_inbox_at(self, position: Position) -> None:
        """Take the inbox's position from the transport in use."""
        self._owner.on_inbox_at(position)

    def _welcomed(self, welcome: Welcome, kind: TransportKind) -> None:
        _cancel(self._limit_timer)
        self._up_at = self._clock.now()
        self._not_before = 0.0
        self._fallback.on_worked(kind)
        probes = self._transport is not None and self._transport.probes
        self._watchdog = Watchdog(self._up_at, welcome.heartbeat_interval / 1000, _ANSWER_S, probes=probes)
        self._watch()
        if self._fallback.is_fallback(kind):
            self._limit_timer = self._clock.call_later(_UPGRADE_S, lambda: self._input("upgrade"))
        self._end = End("")
        self._input("welcomed")
        self._owner.on_up(welcome)

    def _watch(self) -> None:
        self._watch_timer = self._clock.call_later(TURN_S, self._turn)

    def _turn(self) -> None:
        self._watch()
        if self._watchdog is not None:
            self._judge(self._watchdog.turn(self._clock.now()))

    def _judge(self, verdict: Verdict) -> None:
        if verdict == "probe" and self._transport is not None:
            self._transport.send(ClientHeartbeat())
        elif verdict == "dead":
            self.on_ended(End("the server fell silent"))

    def on_ended(self, end: End) -> None:
        """Take the end of the transport in use."""
        now = self._clock.now()
        if self.status.state != "connected":
            self._fallback.on_failed()
        elif now - self._up_at >= _STABLE_S:
            self._attempts = 0
        self._end = end
        if end.code == TOKEN_EXPIRED:
            self._owner.on_token_expired()
        self._not_before = now + (end.retry_after or 0.0)
        self._input("lost" if end.reconnect else "refused")

    def _wait(self) -> None:
        after = self._end.retry_after or 0.0
        delay = delay_before(self._attempts, after, self._backoff, self._clock.random)
        self._attempts += 1
        self._due_timer = self._clock.call_later(delay, lambda: self._input("due"))
        self._due_at = self._clock.now() + delay

    def _tell(self, state: State) -> None:
        known = self.status
        if known.state == state:
            return
        end = self._end
        self.status = ConnectionStatus(
            state,
            transport=self._transport.kind if self._transport else known.transport,
            reason=end.reason or None,
            code=end.code if end.reason else None,
            retry_at=self._due_at if state == "suspended" else None,
            error=end.error if state == "failed" else None,
        )
        self._owner.on_status(self.status)


class _Link:
    """What one transport reports, passed on while it is the one in use."""

    def __init__(self, connection: Connection, kind: TransportKind) -> None:
        self._connection = connection
        self._kind = kind
        self.transport: Transport | None = None

    def message(self, message: ServerMessage) -> None:
        self._pass(lambda: self._connection.on_message(message, self._kind))

    def heard(self) -> None:
        self._pass(self._connection.on_heard)

    def inbox_at(self, position: Position) -> None:
        self._pass(lambda: self._connection.on_inbox_at(position))

    def ended(self, end: End) -> None:
        self._pass(lambda: self._connection.on_ended(end))

    def _pass(self, take: Callable[[], None]) -> None:
        if self._connection.is_mine(self.transport):
            take()


def _cancel(timer: Timer | None) -> None:
    if timer is not None:
        timer.cancel()
