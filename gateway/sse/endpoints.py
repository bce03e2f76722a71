"""`/events` and `/events/metrics`."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec
import structlog
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.endpoint import IDENTITY_QUERY, READER, Call, Query, endpoint
from gateway.api.responses import ApiError, too_many, too_many_from_there
from gateway.channels import channel_names
from gateway.client.commands import CommandError, check_history
from gateway.delivery.encoded_message import EncodedMessage, sse_event
from gateway.delivery.inbox import INBOX_TOPIC
from gateway.gateway import Gateway
from gateway.hooks.admission import Admission
from gateway.http.client_address import peer_of
from gateway.http.request_metrics import already_counted
from gateway.sse.event_id import MAX_ID_LENGTH, BadPosition, decode_id, longest_id
from gateway.sse.stream import EventStream, MetricsStream, Stream
from gateway.sse.subscriptions import EventSubscriptions
from services.settings import Settings
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.grants import Grants
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType

log = structlog.get_logger(__name__)

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise collect events before it passes them on
]
_LAST_BYTES_S = 5.0
_MAX_DIGITS = 9
_HEAD_SPARE_BYTES = 128  # the request line's words, and the name of the header with the id


class StreamResponse(Response):
    """Sends a stream's buffer until the stream ends or the client leaves; the stream receives from `start` to `leave`."""

    def __init__(
        self, gateway: Gateway, stream: Stream, start: Callable[[], None], leave: Callable[[], None]
    ) -> None:
        super().__init__()
        self._gateway = gateway
        self._stream = stream
        self._start = start
        self._leave = leave
        self._left_by_client = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the response."""
        gateway, stream = self._gateway, self._stream
        ip_key = gateway.connections.reserve_ip(peer_of(scope), Headers(scope=scope).getlist)
        if ip_key is None:
            already_counted(scope)
            await too_many_from_there()(scope, receive, send)
            return
        stream.ip_key = ip_key
        proxies = gateway.connections.proxies
        stream.address = proxies.client_ip(peer_of(scope), Headers(scope=scope).getlist(proxies.header))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            await self._run(scope, receive, send)
        finally:
            gateway.connections.discard(stream)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, stream = self._gateway, self._stream
        loop, opened_at = asyncio.get_running_loop(), time.monotonic()
        gateway.counters.sse_streams += 1
        client_gone = asyncio.ensure_future(self._wait_for_disconnect(receive))
        try:
            gateway.connections.add(stream)
            self._start()
            # An ended stream has a few seconds to leave: a client that does not read would keep it for ever.
            async with asyncio.timeout(None) as limit:
                stream.buffer.on_end = lambda: limit.reschedule(loop.time() + _LAST_BYTES_S)
                if stream.buffer.ended:
                    stream.buffer.on_end()
                await self._pump(send)
        except TimeoutError:
            pass  # uvicorn closes the connection of an unfinished response
        finally:
            gateway.counters.sse_streams -= 1
            client_gone.cancel()
            stream.buffer.on_end = bool
            stream.buffer.end()
            self._leave()
            log.info(
                "stream closed",
                path=scope["path"],
                connection=stream.connection_id,
                user=stream.user_id,
                by_client=self._left_by_client,
                bytes_out=stream.bytes_out,
                seconds=round(time.monotonic() - opened_at, 1),
            )

    async def _pump(self, send: Send) -> None:
        stream, now = self._stream, asyncio.get_running_loop().time
        keepalive_at = now() + stream.keepalive_s
        while True:
            data = await stream.buffer.get(max(0.0, keepalive_at - now()))
            if not data and stream.buffer.ended:
                break
            if now() >= keepalive_at:
                data += stream.keepalive()
                keepalive_at = now() + stream.keepalive_s
            if data:
                stream.bytes_out += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left_by_client = not self._stream.buffer.ended
        self._stream.abort()


class Greeting(Record, frozen=True, kw_only=True):
    """The event `connected`: the stream's user, and the id by which other requests name the stream."""

    status: str = "connected"
    connection_id: str
    user_id: str
    username: str
    session: str | UnsetType = UNSET


@endpoint(
    "GET",
    "/events",
    READER,
    query=(
        Query("channels", str, "Channels, comma-separated or repeated; `inbox` adds direct messages."),
        Query("rooms", str, "Rooms to be a member of, comma-separated or repeated."),
        Query(
            "history",
            int,
            "Most stored messages of each room to begin with, where no event id has its position.",
        ),
        Query("last_event_id", str, "Resume, where the `Last-Event-ID` header cannot be set."),
        *IDENTITY_QUERY,
    ),
    answer=str,
    media_type="text/event-stream",
)
async def events(call: Call) -> Response:
    """A stream of messages, as `event: TYPE`; resumed by `Last-Event-ID`."""
    # Checked in full before the first byte: a browser's EventSource never reconnects after any status but 200.
    gateway, request = call.gateway, call.request
    if wait_s := gateway.connections.accept_wait_s():
        already_counted(request.scope)
        return too_many(wait_s)
    query, settings = request.query_params, gateway.settings
    connection_id = secrets.token_hex(8)
    admission = await gateway.admitter.admit(replace(call.client_request, connection_id=connection_id))
    identity = admission.identity
    rooms = _rooms(_listed(query, "rooms"), admission, settings.max_rooms_per_connection)
    names = [_channel(name, identity.grants) for name in _listed(query, "channels")]
    history = _history(query, settings)
    topics = [*rooms, INBOX_TOPIC] if channel_names.INBOX in names else rooms
    if topics:
        _require_resumable(topics, settings, request.scope)
    joins = await gateway.admitter.request_joins(admission, connection_id, rooms, names, history)
    stream = EventStream(identity, settings.write_buffer_bytes, gateway.counters, connection_id=connection_id)
    greeting = Greeting(
        connection_id=stream.connection_id,
        user_id=identity.user_id,
        username=identity.username,
        session=identity.session or UNSET,
    )
    stream.write(sse_event("connected", msgspec.json.encode(greeting)))
    if last := request.headers.get("last-event-id") or query.get("last_event_id"):
        try:
            stream.positions = decode_id(last, topics)
        except BadPosition as fault:
            stream.reset([topic or channel_names.INBOX for topic in topics], str(fault))
    subscriptions = EventSubscriptions(gateway, stream, joins, names, admission.custom_data)
    return StreamResponse(gateway, stream, subscriptions.start, subscriptions.leave)


@endpoint("GET", "/events/metrics", READER, answer=str, media_type="text/event-stream")
async def metrics_events(call: Call) -> Response:
    """A stream of bare metrics records, the latest at once and then one a second."""
    gateway, request = call.gateway, call.request
    if wait_s := gateway.connections.accept_wait_s():
        already_counted(request.scope)
        return too_many(wait_s)
    identity = (await gateway.admitter.admit_reader(call.client_request)).identity
    if not identity.grants.may_follow(channel_names.METRICS):
        raise ApiError(ErrorCode.FORBIDDEN, "no such stream, or not for this user")
    stream = MetricsStream(identity, gateway.settings.write_buffer_bytes, gateway.counters)
    if (latest := gateway.channels.metrics.latest) is not None:
        stream.accept_messages([EncodedMessage(server.MetricsUpdate(data=latest))])
    fanout = gateway.channels.metrics.streams
    leave = partial(fanout.discard, stream.connection_id)
    return StreamResponse(gateway, stream, partial(fanout.add, stream), leave)


def _listed(query: QueryParams, name: str) -> list[str]:
    """Return a parameter's values, comma-separated or repeated, each once."""
    values = [part for value in query.getlist(name) for part in value.split(",") if part]
    return list(dict.fromkeys(values))


def _rooms(names: list[str], admission: Admission, limit: int) -> list[str]:
    """Return the rooms that the application names, and those of the request."""
    wanted = [normalize_name(name, "room") for name in names]
    rooms = list(dict.fromkeys([*admission.rooms, *wanted]))
    if limit and len(rooms) > limit:
        raise ApiError(ErrorCode.TOO_MANY_ROOMS, f"a stream may have {limit} rooms")
    if not all(map(admission.identity.grants.may_join, rooms[len(admission.rooms) :])):
        raise ApiError(ErrorCode.FORBIDDEN, "no such room, or not for this user")
    return rooms


def _history(query: QueryParams, settings: Settings) -> int | UnsetType:
    text = query.get("history")
    if text is None:
        return UNSET
    # Negative and longer numbers are out of range too.
    number = int(text) if len(text) < _MAX_DIGITS and text.isascii() and text.isdigit() else -1
    try:
        check_history(number, settings)
    except CommandError as error:
        raise ApiError(error.code, error.message) from None
    return number


def _channel(text: str, grants: Grants) -> str:
    name = channel_names.parse_channel(text)
    if name is None or not grants.may_follow(name):
        raise ApiError(ErrorCode.UNKNOWN_CHANNEL, channel_names.refusal(text))
    return name


def _require_resumable(topics: list[str], settings: Settings, scope: Scope) -> None:
    """Refuse a stream that could never be resumed: its id would not fit beside the names of its topics.

    Raises:
        ApiError: the request that resumes it would be answered 431.
    """
    namespaces = {settings.namespace_of(topic) for topic in topics}
    longest = longest_id(len(topics), len(namespaces) + 1)
    head = len(scope["path"]) + len(scope.get("query_string", b""))
    head += sum(len(name) + len(value) + 4 for name, value in scope["headers"] if name != b"last-event-id")
    room = min(MAX_ID_LENGTH, settings.max_head_bytes - head - _HEAD_SPARE_BYTES)
    if longest > room:
        raise ApiError(
            ErrorCode.TOO_MANY_ROOMS,
            f"with these rooms the stream could not be resumed: its id may take {longest} bytes, and the head of "
            f"this request leaves {max(0, room)}; name fewer rooms, or open several streams",
        )
