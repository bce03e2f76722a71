"""Keeps one transport to the server open, and decides when to open the next one."""

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

# Age from which a connection resets the backoff. A server that accepts and disconnects at once must not reset it.
_STABLE_S = 5.0
_ANSWER_S = 5.0
# Time after which the second transport is tried beside the first.
_RACE_S = 3.0
# How long the old transport stays open beside the new one, so that other users do not see this user leave.
_RETIRE_S = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """State of the connection."""

    state: State
    transport: TransportKind | None = None
    """The current transport, or the last one."""
    reason: str | None = None
    """Why the last connection ended or failed."""
    code: int | None = None
    """The close code, where there was one."""
    retry_at: float | None = None
    """While suspended: time of the next attempt, in seconds since 1970."""
    error: TidingsError | None = None
    """While failed: the server's refusal."""

    def __str__(self) -> str:
        carried = f" over {self.transport}" if self.state == "connected" else ""
        return f"{self.state}{carried}: {self.reason}" if self.reason else f"{self.state}{carried}"


class ConnectionOwner(Protocol):
    """Opens transports, and is notified of messages and changes."""

    def open(self, kind: TransportKind, events: TransportEvents) -> Transport: ...

    def on_message(self, message: ServerMessage) -> None: ...

    def on_status(self, status: ConnectionStatus) -> None: ...

    def on_up(self, welcome: Welcome) -> None: ...

    def on_down(self) -> None: ...

    def on_inbox_at(self, position: Position) -> None: ...

    def on_token_expired(self) -> None: ...


class Connection:
    """One connection, over one transport after another."""

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
        # A second transport: one that may be faster or better, or the previous one until it retires.
        self._side: Transport | None = None
        # The `welcome` of a better transport, while the old one's last answers are awaited.
        self._better: Welcome | None = None
        self._is_probing = False
        self._watchdog: Watchdog | None = None
        self._end = End("")
        self._attempts = 0
        self._up_at = 0.0
        self._not_before = 0.0
        self._due_at = 0.0
        self._probe_at: float | None = None
        self._due_timer: Timer | None = None
        self._watch_timer: Timer | None = None
        self._limit_timer: Timer | None = None
        self._side_timer: Timer | None = None
        self._probe_timer: Timer | None = None
        self._going: list[Transport] = []

    @property
    def heard_at(self) -> float:
        """When the last byte arrived from the server, in seconds since 1970."""
        return self._watchdog.heard_at if self._watchdog else 0.0

    def connect(self) -> None:
        """Connect, and stay connected."""
        self._attempts = 0
        self._input("connect")

    def close(self) -> None:
        """Disconnect, and stay disconnected."""
        self._input("close")

    async def closed(self) -> None:
        """Wait until all closed transports have ended."""
        while self._going:
            await self._going.pop().closed()

    def wake(self) -> None:
        """The network or machine is back: reconnect now, or probe the connection."""
        if self._clock.now() >= self._not_before or self.status.state == "connected":
            self._input("wake")

    def suspect(self) -> None:
        """Probe the connection: a request was not answered."""
        if self.status.state == "connected" and self._watchdog is not None:
            self._judge(self._watchdog.probe(self._clock.now()))

    def send(self, message: ClientMessage) -> None:
        """Send now, if connected. Raises a TidingsError for what the server would not accept."""
        if self.status.state == "connected" and self._transport is not None:
            self._transport.send(message)

    def _input(self, given: Input) -> None:
        before = self.status.state
        step = advance(before, given)
        if step is None:
            return
        went_down = before == "connected" and step.next != "connected"
        if went_down:
            self._stop_timers()
        for action in step.actions:
            self._perform(action)
        self._set_state(step.next)
        if went_down:
            self._owner.on_down()

    def _perform(self, action: Action) -> None:
        match action:
            case "open":
                self._open()
            case "drop" | "leave":
                _cancel(self._limit_timer)
                self._let_go(self._transport, left=action == "leave")
                self._transport = None
                self._close_side()
            case "wait":
                self._wait()
            case "cancel":
                _cancel(self._due_timer)
            case "probe":
                self.suspect()
            case "try":
                self._open_beside(self._fallback.best)
                self._is_probing = True
            case "switch":
                self._switch()

    def _open(self) -> None:
        kind = self._fallback.choose()
        self._transport = self._new(kind)
        self._limit()
        rival = self._fallback.rival(kind)
        if rival is not None:
            self._side_timer = self._clock.call_later(_RACE_S, lambda: self._open_beside(rival))

    def _limit(self) -> None:
        self._limit_timer = self._clock.call_later(
            self._connect_timeout, lambda: self._on_end(End("the server did not answer in time"))
        )

    def _new(self, kind: TransportKind) -> Transport:
        link = _Link(self)
        link.transport = self._owner.open(kind, link)
        return link.transport

    def _let_go(self, transport: Transport | None, *, left: bool) -> None:
        if transport is not None:
            transport.close(left=left)
            self._going = [*self._going[-8:], transport]  # older ones have ended long ago

    # A second transport, beside the current one.

    def _open_beside(self, kind: TransportKind) -> None:
        self._close_side()
        self._side = self._new(kind)
        self._limit_side(self._connect_timeout)

    def _limit_side(self, seconds: float) -> None:
        _cancel(self._side_timer)
        self._side_timer = self._clock.call_later(seconds, lambda: self._on_side_end(End("")))

    def _close_side(self) -> None:
        _cancel(self._side_timer)
        self._let_go(self._side, left=False)
        self._side = self._better = None
        self._is_probing = False

    def _on_side_end(self, end: End) -> None:
        if self.status.state == "connecting" and not end.reconnect:
            self._on_end(end)
            return
        if self._is_probing:
            self._fallback.on_probed()
        self._close_side()
        if self._is_second_best:
            self._probe_at = None
            self._probe_later()

    def _on_side_welcome(self, welcome: Welcome, side: Transport) -> None:
        if self.status.state == "connecting":
            # It was faster. The preferred one may still open, and then replaces it.
            self._transport, self._side = side, self._transport
            self._limit_side(self._connect_timeout)
            self._on_main_message(welcome, side)
        else:
            self._better = welcome
            self._switch_when_settled(welcome)

    def _switch_when_settled(self, welcome: Welcome) -> None:
        if self._better is not welcome or self._transport is None:
            return  # it ended meanwhile
        work = self._transport.settled()
        if work is None:
            self._input("upgraded")
        else:
            work.add_done_callback(lambda _: self._switch_when_settled(welcome))

    def _switch(self) -> None:
        welcome, side = self._better, self._side
        if welcome is None or side is None:
            return
        self._better = None
        self._is_probing = False  # it succeeded
        self._stop_timers()
        self._owner.on_down()
        self._transport, self._side = side, self._transport
        self._limit_side(_RETIRE_S)
        self._begin(welcome, side)
        self._owner.on_up(welcome)
        self._owner.on_message(welcome)

    def _probe_later(self) -> None:
        now = self._clock.now()
        if self._probe_at is None:
            self._probe_at = now + self._fallback.pause
        _cancel(self._probe_timer)
        self._probe_timer = self._clock.call_later(
            max(0.0, self._probe_at - now), lambda: self._input("upgrade")
        )

    @property
    def _is_second_best(self) -> bool:
        """Whether the client is connected over the fallback."""
        return (
            self.status.state == "connected"
            and self._transport is not None
            and self._fallback.is_fallback(self._transport.kind)
        )

    # Reports of transports. Those of a transport that is not used any more are ignored.

    def on_heard(self, transport: Transport | None) -> None:
        """Something arrived."""
        if transport is self._transport and self._watchdog is not None:
            self._watchdog.on_heard(self._clock.now())

    def on_message(self, message: ServerMessage, transport: Transport | None) -> None:
        """Handle a message."""
        if transport is None:
            return
        if transport is self._transport:
            self._on_main_message(message, transport)
        elif transport is self._side and isinstance(message, Welcome):
            self._on_side_welcome(message, transport)

    def on_inbox_at(self, position: Position, transport: Transport | None) -> None:
        """The inbox's position, from an SSE stream."""
        if transport is self._transport:
            self._owner.on_inbox_at(position)

    def on_ended(self, end: End, transport: Transport | None) -> None:
        """A transport ended."""
        if transport is None:
            return
        if transport is self._side:
            self._on_side_end(end)
        elif transport is self._transport:
            self._on_main_end(end)

    def _on_main_message(self, message: ServerMessage, transport: Transport) -> None:
        if isinstance(message, Welcome) and self.status.state == "connecting":
            if not self._fallback.is_fallback(transport.kind):
                self._close_side()
            self._begin(message, transport)
            self._end = End("")
            self._input("welcomed")
            self._owner.on_up(message)
        self._owner.on_message(message)

    def _on_main_end(self, end: End) -> None:
        connected = self.status.state == "connected"
        if self._side is None or not end.reconnect or (connected and not self._is_second_best):
            self._on_end(end)
            return
        if self._better is not None:
            self._input("upgraded")
            return
        # The other one may still open: a server that allows one connection per user disconnects the older one.
        _cancel(self._side_timer)
        self._let_go(self._transport, left=False)
        self._transport, self._side = self._side, None
        self._is_probing = False
        if connected:
            self._end = end
            self._input("replaced")
            self._limit()
        else:
            self._fallback.on_failed()

    def _begin(self, welcome: Welcome, transport: Transport) -> None:
        """A transport is open: start the watchdog, and probes of a better transport."""
        _cancel(self._limit_timer)
        self._up_at = self._clock.now()
        self._not_before = 0.0
        self._fallback.on_worked(transport.kind)
        interval = welcome.heartbeat_interval / 1000
        self._watchdog = Watchdog(self._up_at, interval, _ANSWER_S, probes=transport.probes)
        self._watch()
        if not self._fallback.is_fallback(transport.kind):
            self._probe_at = None
        elif self._side is None:
            _cancel(self._side_timer)
            self._probe_later()

    def _stop_timers(self) -> None:
        for timer in (self._watch_timer, self._limit_timer, self._probe_timer):
            _cancel(timer)

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
            self._on_end(End("the server fell silent"))

    def _on_end(self, end: End) -> None:
        """End the connection, or the attempt to open one."""
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

    def _set_state(self, state: State) -> None:
        known = self.status
        transport = self._transport.kind if self._transport else known.transport
        if (known.state, known.transport) == (state, transport):
            return
        end = self._end
        self.status = ConnectionStatus(
            state,
            transport=transport,
            reason=end.reason or None,
            code=end.code if end.reason else None,
            retry_at=self._due_at if state == "suspended" else None,
            error=end.error if state == "failed" else None,
        )
        self._owner.on_status(self.status)


class _Link:
    """Passes on the reports of one transport, with the transport."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.transport: Transport | None = None  # None until the transport is constructed

    def message(self, message: ServerMessage) -> None:
        self._connection.on_message(message, self.transport)

    def heard(self) -> None:
        self._connection.on_heard(self.transport)

    def inbox_at(self, position: Position) -> None:
        self._connection.on_inbox_at(position, self.transport)

    def ended(self, end: End) -> None:
        self._connection.on_ended(end, self.transport)


def _cancel(timer: Timer | None) -> None:
    if timer is not None:
        timer.cancel()
