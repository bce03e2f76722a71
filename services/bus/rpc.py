"""Typed requests and replies over NATS micro services (NATS ADR-32)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from nats import errors as nats_errors
from nats import micro
from nats.micro.request import Request
from nats.micro.service import EndpointStats
from nats.micro.service import Service as MicroService

from services import __version__
from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer, RequestRefused
from services.bus.message import BusMessage
from services.bus.nats_client import LeanClient, Subscription
from services.settings import Settings
from services.wire.codes import ErrorCode
from services.wire.rpc import ReplyT, RequestT, RpcEndpoint
from services.wire.subjects import Subjects

_log = structlog.get_logger(__name__)

CODE_HEADER = "Tidings-Error-Code"
MAX_RUNNING = 64
MAX_WAITING = 1024
_STOP_S = 3.0
_MICRO_ERROR = "Nats-Service-Error"
_MICRO_ERROR_CODE = "Nats-Service-Error-Code"
_QUEUE_BEFORE = "q"  # nats.micro's own


class RpcRefusal(Exception):
    """Raised by a handler to refuse a request, for a reason that may be shown."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code.code}: {message}")
        self.code = code
        self.message = message


# --- calling ----------------------------------------------------------------------------------------------


async def call(
    bus: Bus,
    subjects: Subjects,
    endpoint: RpcEndpoint[RequestT, ReplyT],
    request: RequestT,
    *,
    timeout_s: float | None = None,
) -> ReplyT:
    """Send a request to a service, and return its reply.

    Raises:
        RequestRefused: it refused; `code` is the wire code of an ErrorCode.
        NoAnswer: no replica runs, or none answered in time.
        Unavailable, Misconfigured, PayloadTooLarge: as `Bus.request`.
    """
    subject, payload = subjects.service(endpoint.service, endpoint.name), msgspec.json.encode(request)
    within_s = endpoint.timeout_s if timeout_s is None else timeout_s
    if endpoint.tries == 1:
        return _read(endpoint, await bus.request(subject, payload, timeout_s=within_s))
    return _read(endpoint, await _first_answer(bus, subject, payload, within_s, endpoint.tries))


async def _first_answer(bus: Bus, subject: str, payload: bytes, within_s: float, tries: int) -> BusMessage:
    """Send the request again after each part of the time; return the first reply. Raises as `Bus.request`."""
    asked: set[asyncio.Task[BusMessage]] = set()
    try:
        for left in range(tries, 0, -1):
            asked.add(asyncio.ensure_future(bus.request(subject, payload, timeout_s=within_s * left / tries)))
            patience_s = within_s / tries if left > 1 else None
            done, _ = await asyncio.wait(asked, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
        return min(done, key=lambda task: task.exception() is not None).result()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)  # none may end unretrieved


async def call_all(
    bus: Bus,
    subjects: Subjects,
    endpoint: RpcEndpoint[RequestT, ReplyT],
    request: RequestT,
    *,
    until: Callable[[BusMessage], bool] | None = None,
) -> list[ReplyT]:
    """Send a request to every replica of an endpoint with `queue=False`; return the replies within `endpoint.timeout_s`.

    It always takes that time, since the number of replicas is unknown, unless `until` returns True for a reply. Refusals are logged and left out; with no
    replica the list is empty.

    Raises:
        Unavailable, Misconfigured, PayloadTooLarge: as `Bus.request`.
    """
    subject = subjects.service(endpoint.service, endpoint.name)
    try:
        answers = await bus.request_many(
            subject, msgspec.json.encode(request), timeout_s=endpoint.timeout_s, until=until
        )
    except NoAnswer:
        return []
    replies = []
    for answer in answers:
        try:
            replies.append(_read(endpoint, answer))
        except RequestRefused as exc:
            _log.warning("rpc replica refused", subject=subject, code=exc.code, reason=exc.message)
    return replies


def _read(endpoint: RpcEndpoint[RequestT, ReplyT], answer: BusMessage) -> ReplyT:
    if answer.headers_raw and (description := answer.header(_MICRO_ERROR)) is not None:
        code = answer.header(CODE_HEADER) or ErrorCode.INTERNAL.code
        raise RequestRefused(code, description.removeprefix(f"{code}: "))
    try:
        return msgspec.json.decode(answer.data, type=endpoint.reply)
    except (msgspec.DecodeError, RecursionError) as exc:
        message = f"{endpoint.service}.{endpoint.name} answered what this version does not understand: {exc}"
        raise RequestRefused(ErrorCode.INTERNAL.code, message) from exc


# --- answering --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Served:
    """One endpoint and its statistics. nats.micro would measure the dispatch only."""

    endpoint: RpcEndpoint[Any, Any]
    handler: Callable[[Any], Awaitable[Any]]
    queue: bool
    errors: int = 0
    last_error: str = ""
    busy_ns: int = 0
    finished: int = 0


@dataclass(frozen=True, slots=True)
class _LeanRequest:
    """A request of a lean subscription, as nats.micro's."""

    bus: Bus
    message: BusMessage
    headers: None = None

    @property
    def data(self) -> bytes:
        return self.message.data

    async def respond(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.bus.publish(self.message.reply, data, headers=headers)


class Service:
    """A NATS micro service `tidings-NAME`: `$SRV.PING/INFO/STATS` see it.

    ```
    service = Service(bus, settings, "presence")
    service.endpoint(PRESENCE_LIST, list_users)  # async def list_users(query: PresenceQuery) -> PresencePage
    await service.start()
    ...
    await service.stop()
    ```

    At most `MAX_RUNNING` handlers run at once; when `MAX_WAITING` more wait, further requests are refused as
    `unavailable`. A handler raises `RpcRefusal` to refuse; anything else is logged and answered `internal`.
    """

    def __init__(self, bus: Bus, settings: Settings, name: str) -> None:
        self._bus = bus
        self._subjects = settings.subjects
        self._name = name
        self._served: dict[str, _Served] = {}
        self._micro: MicroService | None = None
        self._running = asyncio.Semaphore(MAX_RUNNING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._before: Subscription | None = None

    def endpoint(
        self,
        endpoint: RpcEndpoint[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        *,
        queue: bool = True,
    ) -> None:
        """Answer `endpoint` with `handler` once started. `queue=False` makes every replica answer."""
        if self._micro is not None:
            raise RuntimeError("endpoints are declared before the service starts")
        if endpoint.service != self._name:
            raise ValueError(f"{endpoint.service}.{endpoint.name} is no endpoint of {self._name}")
        self._served[endpoint.name] = _Served(endpoint, handler, queue)

    async def start(self) -> None:
        """Start to answer; requests of other clients arrive once this returns.

        Raises:
            BusError: the bus is not there, or forbids it.
        """
        try:
            await self._bus.connection.add_hook(self._attach)
        except nats_errors.Error as exc:
            raise BusError(f"service {self._name} cannot start: {exc}") from exc
        self._answer_version_before()
        await self._bus.flush()

    async def stop(self) -> None:
        """Accept no more requests, and let running handlers finish, for at most `_STOP_S`. Never raises."""
        self._bus.connection.drop_hook(self._attach)
        if self._before is not None:
            self._before.close()
        if self._micro is not None:
            micro_service, self._micro = self._micro, None
            with suppress(nats_errors.Error, OSError):  # gone with the connection, then
                await asyncio.wait_for(micro_service.stop(), _STOP_S / 2)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S / 2)
            for task in late:
                task.cancel()

    async def _attach(self, client: LeanClient) -> None:
        """Register with this nats-py client (again after a rebuild, under a new id)."""
        self._micro = await micro.add_service(
            client,
            name=f"tidings-{self._name}",
            version=__version__,
            description=f"Tidings {self._name}",
            stats_handler=self._correct_stats,
        )
        for name, served in self._served.items():
            await self._micro.add_endpoint(
                name=name,
                subject=self._subjects.service(self._name, name),
                handler=self._dispatcher(served),
                # nats.micro knows no endpoint without queue group; a group of one is the same.
                queue_group=None if served.queue else self._micro.id,
            )

    def _dispatcher(self, served: _Served) -> "Callable[[Request | _LeanRequest], Awaitable[None]]":
        async def dispatch(request: "Request | _LeanRequest") -> None:
            # nats.micro awaits one request of an endpoint after the other: a slow one would hold up the rest.
            if len(self._tasks) >= MAX_RUNNING + MAX_WAITING:
                await self._refuse(served, request, ErrorCode.UNAVAILABLE, "too many requests wait")
                return
            task = asyncio.ensure_future(self._answer(served, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return dispatch

    def _answer_version_before(self) -> None:
        """Answer processes of version 0.1 too, where NATS permits it: while its users have the rights of both versions."""
        dispatchers = {name: self._dispatcher(served) for name, served in self._served.items()}

        def on_message(message: BusMessage) -> None:
            dispatch = dispatchers.get(message.subject.rpartition(".")[2])
            if dispatch is not None:
                task = asyncio.ensure_future(dispatch(_LeanRequest(self._bus, message)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        subject = self._subjects.service_before(self._name, "*")
        queue = _QUEUE_BEFORE if all(served.queue for served in self._served.values()) else ""
        self._before = self._bus.subscribe(subject, on_message, queue=queue, optional=True)

    async def _answer(self, served: _Served, request: "Request | _LeanRequest") -> None:
        async with self._running:
            began = time.perf_counter_ns()
            try:
                message = msgspec.json.decode(request.data, type=served.endpoint.request)
                with self._bus.answering(f"{self._name}.{served.endpoint.name}", request.headers):
                    answer = msgspec.json.encode(await served.handler(message))
                if len(answer) > self._bus.max_payload:
                    reason = f"the answer has {len(answer)} bytes"
                    await self._refuse(served, request, ErrorCode.TOO_LARGE, reason)
                else:
                    await self._send(request, answer)
            except RpcRefusal as exc:
                await self._refuse(served, request, exc.code, exc.message)
            except (msgspec.DecodeError, RecursionError) as exc:
                await self._refuse(served, request, ErrorCode.INVALID_FIELD, str(exc))
            except Exception as exc:  # noqa: BLE001  # the caller gets an answer whatever the handler does
                _log.exception("rpc handler failed", endpoint=f"{self._name}.{served.endpoint.name}")
                await self._refuse(served, request, ErrorCode.INTERNAL, type(exc).__name__)
            finally:
                served.finished += 1
                served.busy_ns += time.perf_counter_ns() - began

    async def _refuse(
        self, served: _Served, request: "Request | _LeanRequest", code: ErrorCode, message: str
    ) -> None:
        served.errors += 1
        served.last_error = f"{code.code}: {message}"
        headers = {
            _MICRO_ERROR: served.last_error,
            _MICRO_ERROR_CODE: str(code.value.http_status),
            CODE_HEADER: code.code,
        }
        await self._send(request, b"", headers)

    async def _send(
        self, request: "Request | _LeanRequest", data: bytes, headers: dict[str, str] | None = None
    ) -> None:
        try:
            await request.respond(data, headers)
        except (BusError, nats_errors.Error, ValueError) as exc:  # ValueError: the caller wants no answer
            _log.info("rpc answer undeliverable", asked=self._name, error=str(exc))

    def _correct_stats(self, stats: EndpointStats) -> None:
        """Replace nats.micro's figures by those of the handlers."""
        served = self._served.get(stats.name)
        if served is None:
            return
        stats.num_errors = served.errors
        stats.last_error = served.last_error or None
        stats.processing_time = served.busy_ns
        stats.average_processing_time = served.busy_ns // served.finished if served.finished else 0
