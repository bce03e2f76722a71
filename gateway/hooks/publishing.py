"""Publishing with the `publish` hook: users' messages wait for the application's answer, and keep their order."""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog

from gateway.delivery.publisher import OnDone, Publisher, PublishRefused, Sender
from gateway.delivery.streams import RoomRoute, Streams
from gateway.hooks.hooks import Hooks, PublishDecision
from gateway.hooks.messages import HookRefused, HookUnavailable
from gateway.limits import Limit
from services.bus.client import Bus
from services.clock import now_ms
from services.settings import Settings
from services.tasks import TaskSet
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.records import UNSET, UnsetType

log = structlog.get_logger(__name__)

# An answer takes milliseconds; only one that is slow, or an attack, makes so many wait.
MAX_WAITING_PER_TARGET = 100
MAX_WAITING_BYTES = 67_108_864
_RETRY_MS = 1000

# User, connection, kind of target, target.
_Line = tuple[str, str, str, str]
_Decide = Callable[[], Awaitable[PublishDecision]]


class _Waiting:
    """A message whose request is under way, or whose turn has not come."""

    __slots__ = ("decision", "id", "on_done", "publish", "size")

    def __init__(
        self, publish: Callable[[msgspec.Raw], None], on_done: OnDone, id: str | UnsetType, size: int
    ) -> None:
        self.decision: PublishDecision | PublishRefused | None = None
        self.publish = publish
        self.on_done = on_done
        self.id = id
        self.size = size


class HookedPublisher(Publisher):
    """Publishes what the application allows, as it says.

    The requests of one connection are under way at the same time. What it sent to one room (or one user, or everyone) is
    published and answered in the order in which it came, so a slow answer delays what came after it.
    """

    def __init__(
        self,
        publisher: Publisher,
        bus: Bus,
        streams: Streams,
        settings: Settings,
        on_limit: Callable[[Limit], object],
        hooks: Hooks,
        tasks: TaskSet,
    ) -> None:
        super().__init__(bus, streams, settings, on_limit)
        self._publisher = publisher
        self._hooks = hooks
        self._tasks = tasks
        self._lines: dict[_Line, deque[_Waiting]] = {}
        self._waiting_bytes = 0

    def to_room(
        self,
        sender: Sender,
        route: RoomRoute,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        echo: bool | UnsetType = False,
        exclude: str = "",
    ) -> None:
        """Publish JSON content to a room, if the application allows it."""

        def publish(allowed: msgspec.Raw) -> None:
            self._publisher.to_room(sender, route, allowed, on_done, id=id, echo=echo, exclude=exclude)

        line = (sender.user_id, sender.connection_id, "room", route.room)
        decide = partial(self._hooks.publish, sender, content, room=route.room)
        self._ask(line, decide, _Waiting(publish, on_done, id, len(bytes(content))))

    def to_user(
        self,
        sender: Sender,
        user_id: str,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        exclude: str = "",
    ) -> None:
        """Publish JSON content to a user's inbox, if the application allows it."""

        def publish(allowed: msgspec.Raw) -> None:
            self._publisher.to_user(sender, user_id, allowed, on_done, id=id, exclude=exclude)

        line = (sender.user_id, sender.connection_id, "user", user_id)
        decide = partial(self._hooks.publish, sender, content, target_user_id=user_id)
        self._ask(line, decide, _Waiting(publish, on_done, id, len(bytes(content))))

    def to_all(
        self,
        sender: Sender,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        echo: bool = False,
        exclude: str = "",
    ) -> None:
        """Publish JSON content to every connection, if the application allows it."""

        def publish(allowed: msgspec.Raw) -> None:
            self._publisher.to_all(sender, allowed, on_done, id=id, echo=echo, exclude=exclude)

        line = (sender.user_id, sender.connection_id, "all", "")
        decide = partial(self._hooks.publish, sender, content)
        self._ask(line, decide, _Waiting(publish, on_done, id, len(bytes(content))))

    def _ask(self, line: _Line, decide: _Decide, waiting: _Waiting) -> None:
        queue = self._lines.setdefault(line, deque())
        if len(queue) >= MAX_WAITING_PER_TARGET or self._waiting_bytes + waiting.size > MAX_WAITING_BYTES:
            text = "too many messages wait for the application"
            waiting.on_done(PublishRefused(ErrorCode.UNAVAILABLE, text, _RETRY_MS))
            if not queue:
                del self._lines[line]
            return
        queue.append(waiting)
        self._waiting_bytes += waiting.size
        self._tasks.spawn(self._decide(line, decide, waiting), "publish hook")

    async def _decide(self, line: _Line, decide: _Decide, waiting: _Waiting) -> None:
        try:
            waiting.decision = await decide()
        except HookRefused as refused:
            waiting.decision = PublishRefused(refused.spec, refused.message)
        except HookUnavailable as fault:
            waiting.decision = PublishRefused(ErrorCode.UNAVAILABLE, fault.message, fault.retry_after_ms)
        except Exception:
            log.exception("a publish hook failed")
            waiting.decision = PublishRefused(ErrorCode.INTERNAL, "an internal error occurred")
        self._carry_out(line)

    def _carry_out(self, line: _Line) -> None:
        """Carry out what is decided, as far as its turn has come."""
        queue = self._lines[line]
        while queue and (decision := queue[0].decision) is not None:
            waiting = queue.popleft()
            self._waiting_bytes -= waiting.size
            if isinstance(decision, PublishRefused):
                waiting.on_done(decision)
            elif decision.skip:
                waiting.on_done(server.Ack(id=waiting.id, timestamp=now_ms()))
            else:
                waiting.publish(decision.content)
        if not queue:
            self._lines.pop(line, None)
