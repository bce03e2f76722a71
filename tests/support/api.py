"""The HTTP API over fakes, without bus and services."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
from starlette.applications import Starlette

from gateway.api.pushes import Pushes
from gateway.api.responses import error_handlers
from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import Identity
from gateway.client.commands import HttpSenders
from gateway.contracts.openapi import ENDPOINTS
from gateway.dashboard import page_routes
from gateway.delivery.counters import Counters
from gateway.delivery.publisher import OnDone, PublishRefused, Sender
from gateway.delivery.streams import RoomRoute, route_of
from gateway.hooks.admission import Admitter
from gateway.http.app import BrowserGuard
from gateway.limits import Limit
from gateway.service_client import ServiceClient
from services.bus.errors import BusError
from services.settings import Settings
from services.wire import server
from services.wire.events import Revoked, SetPresence
from services.wire.grants import Grants
from services.wire.records import UNSET, GatewayStats, UnsetType
from services.wire.rpc import RpcEndpoint


def stats_of(name: str) -> GatewayStats:
    """Return the figures of an idle gateway."""
    return GatewayStats(
        gateway=name, boot="b", started_at=1, connections=0, sse_streams=0, rooms=0, users=0, memory=1, cpu=0.0,
        messages_in=0.0, messages_out=0.0, bytes_out=0.0, errors=0.0, slow_clients=0, draining=False,
    )  # fmt: skip


class FakeBus:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []
        self.fault: BusError | None = None
        self.flushed = 0

    def publish(self, subject: str, payload: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        self.published.append((subject, msgspec.json.decode(payload)))

    async def flush(self, timeout_s: float = 2.0) -> None:
        self.flushed += 1


class FakePublisher:
    """Acknowledges everything, or raises `fault`."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Sender, str, bytes, str | UnsetType]] = []
        self.echoes: list[bool] = []
        self.excluded: list[str] = []
        self.fault: Exception | None = None
        self.refused: dict[str, PublishRefused] = {}  # by target
        self.delay_s = 0.0
        self.open = self.most_open = 0

    def _publish(
        self, kind: str, sender: Sender, target: str, content: msgspec.Raw, id: str | UnsetType
    ) -> server.Ack:
        if self.fault is not None:
            raise self.fault
        if target in self.refused:
            raise self.refused[target]
        self.published.append((kind, sender, target, bytes(content), id))
        return server.Ack(id=id, epoch="e", seq=len(self.published), timestamp=1)

    def _publish_soon(
        self,
        kind: str,
        sender: Sender,
        target: str,
        content: msgspec.Raw,
        on_done: OnDone,
        id: str | UnsetType,
    ) -> None:
        def finish() -> None:
            self.open -= 1
            try:
                on_done(self._publish(kind, sender, target, content, id))
            except PublishRefused as refusal:
                on_done(refusal)

        self.open += 1
        self.most_open = max(self.most_open, self.open)
        asyncio.get_running_loop().call_later(self.delay_s, finish)

    def to_room(
        self,
        sender: Sender,
        route: RoomRoute,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        exclude: str = "",
    ) -> None:
        self.excluded.append(exclude)
        self._publish_soon("room", sender, route.room, content, on_done, id)

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
        self.excluded.append(exclude)
        self._publish_soon("user", sender, user_id, content, on_done, id)

    def to_all(
        self,
        sender: Sender,
        content: msgspec.Raw,
        on_done: OnDone,
        *,
        id: str | UnsetType = UNSET,
        exclude: str = "",
    ) -> None:
        self.excluded.append(exclude)
        self._publish_soon("all", sender, "", content, on_done, id)

    async def publish_room(
        self,
        sender: Sender,
        room: str,
        content: msgspec.Raw,
        id: str | UnsetType = UNSET,
        *,
        echo: bool = False,
    ) -> server.Ack:
        self.echoes.append(echo)
        return self._publish("room", sender, room, content, id)

    async def publish_user(
        self, sender: Sender, user_id: str, content: msgspec.Raw, id: str | UnsetType = UNSET
    ) -> server.Ack:
        return self._publish("user", sender, user_id, content, id)

    async def broadcast(
        self, sender: Sender, content: msgspec.Raw, id: str | UnsetType = UNSET
    ) -> server.Ack:
        return self._publish("all", sender, "", content, id)


@dataclass
class FakePast:
    """A piece of history."""

    epoch: str = "e"
    last_seq: int = 7
    messages: list[server.RoomMessage] = field(default_factory=list)


class FakeHistory:
    """Remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int | None, int | None]] = []
        self.past = FakePast()

    async def room_history(self, room: str, *, limit: int, before: int | None, since: int | None) -> FakePast:
        self.asked.append((room, limit, before, since))
        return self.past


class FakeTickets:
    """Tickets in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Identity, str]] = {}
        self.wait = 0.0

    def wait_s(self, _user_id: str) -> float:
        return self.wait

    async def issue(self, identity: Identity, origin: str) -> tuple[str, float]:
        ticket = f"ticket-{len(self.kept)}"
        self.kept[ticket] = (identity, origin)
        return ticket, 1_000.5

    async def redeem(self, ticket: str, origin: str | None) -> Identity | None:
        kept = self.kept.pop(ticket, None)
        return kept[0] if kept else None


class FakeRevocationLog:
    """Keeps what is revoked."""

    def __init__(self) -> None:
        self.published: list[Revoked] = []

    async def publish(self, revoked: Revoked) -> None:
        self.published.append(revoked)


class FakeUserPresence:
    """Keeps the orders. `online` are the users whose presence is known; orders find a connection while `present`."""

    def __init__(self) -> None:
        self.online: dict[str, bool] = {}
        self.orders: list[SetPresence] = []
        self.present = True

    async def is_online(self, user_id: str, _asker: Grants) -> bool | UnsetType:
        return self.online.get(user_id, UNSET)

    async def order(self, order: SetPresence) -> bool:
        self.orders.append(order)
        return self.present


class FakeDeps:
    """All that the handlers need. `answers` maps an endpoint's name to a reply or a function of the request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bus = FakeBus()
        self.service_client = ServiceClient(self.bus, settings.subjects)  # type: ignore[arg-type]
        self.tickets = FakeTickets()
        self.authenticator = Authenticator(settings, self.tickets)
        self.revocation_log = FakeRevocationLog()
        self.admitter = Admitter(self.authenticator, None)
        self.publisher = self.user_publisher = FakePublisher()
        self.history = FakeHistory()
        self.checks = {"bus": True}
        self.limited: list[Limit] = []
        self.streams = SimpleNamespace(route=partial(route_of, settings, {}))
        self.senders = HttpSenders(settings, self.streams.route, self.on_limit, time.monotonic())
        self.counters = Counters()
        self.connections: dict[str, Any] = {}
        self.active: list[str] = []
        self.presence = SimpleNamespace(active=self.active.append)
        self.user_presence = FakeUserPresence()
        self.reporter = SimpleNamespace(stats=lambda: stats_of("gw-self"))
        self.answers: dict[str, Any] = {}
        self.asked: list[Any] = []

    def on_limit(self, limit: Limit) -> None:
        self.limited.append(limit)

    async def require_join(self, _sender: Sender, _room: str) -> None:
        """Without hooks everyone may."""

    def readiness(self) -> dict[str, bool]:
        return self.checks

    async def ask(
        self, _bus: object, _subjects: object, endpoint: RpcEndpoint[Any, Any], request: Any, **_: Any
    ) -> Any:
        """Stand in for `rpc.call` and `rpc.call_all`."""
        self.asked.append(request)
        answer = self.answers[endpoint.name]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]


def api_client(deps: FakeDeps, *, host: str = "127.0.0.1:8080", **options: Any) -> httpx.AsyncClient:
    """Return a client of an application that has the HTTP surface and nothing else."""
    pushes = Pushes(deps.on_limit)
    app = Starlette(
        routes=[*(endpoint.route(deps, pushes) for endpoint in ENDPOINTS), *page_routes()],  # type: ignore[arg-type]
        exception_handlers=error_handlers(),
    )
    transport = httpx.ASGITransport(
        app=BrowserGuard(app, deps.authenticator.origins, credentials=False), raise_app_exceptions=False
    )
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", **options)
