"""One declaration for each HTTP operation: its route, who may call it, its parameters and limits, and its contract.

```python
@endpoint("GET", "/api/alerts", reads("alerts"))
async def active_alerts(call: Call) -> list[Alert]:
    \"""Alerts that are active.\"""
```

The handler's name is the operation's id, the first paragraph of its docstring the summary, its return type the answer's
type. What it returns is sent as JSON with the declared status, None as an empty body, and a `Response` as it is.

Access is checked in the route that a request has reached, never by comparing the URL's text: a proxy, a router and a
browser may read one URL in three ways.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.body import decode, read_body
from gateway.api.pushes import Pushes
from gateway.api.responses import ApiError, JsonResponse
from gateway.auth.authenticator import ServerCaller
from gateway.channels.channel_names import presence_room
from gateway.delivery.publisher import Sender
from gateway.gateway import Gateway
from gateway.hooks.admission import Admission
from gateway.hooks.messages import ClientRequest
from gateway.limits import Limit
from services.settings_values import Scope
from services.wire.codes import ErrorCode

T = TypeVar("T")

# int() alone would take other scripts' digits, underscores and blanks.
_DIGITS = re.compile(r"[0-9]{1,15}")
_CONVERTER = re.compile(r":\w+(?=\})")

MAX_TIME_MS = 253_402_300_799_999  # the year 9999


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query string, or a header. `type` is that of the parsed text."""

    name: str
    type: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class IntegerQuery:
    """A parameter from `low` to `high`, both included."""

    name: str
    low: int
    high: int
    meaning: str

    @property
    def type(self) -> Any:
        return Annotated[int, msgspec.Meta(ge=self.low, le=self.high)]

    def read(self, call: "Call") -> int | None:
        """Return the value, or None if the parameter is absent. Raises ApiError `invalid_field`."""
        text = call.query.get(self.name)
        if text is None:
            return None
        if not _DIGITS.fullmatch(text) or not self.low <= int(text) <= self.high:
            what = f"`{self.name}` must be an integer from {self.low} to {self.high}"
            raise ApiError(ErrorCode.INVALID_FIELD, what)
        return int(text)


# The connection of the user that a request belongs to.
CONNECTION = Query(
    "Tidings-Connection",
    str,
    "A connection of this user, by its `connectionId`: it gets no copy, and it is whose status and data are set.",
)
# The user of a request without credentials.
IDENTITY_QUERY = (
    Query("username", str, "Display name under `TIDINGS_AUTH=open`."),
    Query("session", str, "The `session` of an earlier `welcome` or `connected`: this is that user again."),
)


class Call:
    """One request to an endpoint of a gateway."""

    def __init__(self, endpoint: "HttpEndpoint", gateway: Gateway, pushes: Pushes, request: Request) -> None:
        self.gateway = gateway
        self.pushes = pushes
        self.request = request
        self._endpoint = endpoint

    @property
    def query(self) -> QueryParams:
        """Parameters of the query string."""
        return self.request.query_params

    @property
    def path(self) -> dict[str, str]:
        """Parameters of the path, decoded."""
        return self.request.path_params

    @property
    def client_request(self) -> ClientRequest:
        """The request as what decides about its user sees it."""
        gateway, request = self.gateway, self.request
        return ClientRequest(
            request.headers,
            self.query,
            lambda: gateway.connections.proxies.client_ip_of_request(request.scope),
            request.headers.get(CONNECTION.name, ""),
        )

    async def reader(self) -> Admission:
        """Return the user that reads, one without an id for an API key. Raises as `Admitter.admit_reader`."""
        return await self.gateway.admitter.admit_reader(self.client_request)

    async def server(self) -> ServerCaller:
        """Return the server that calls, or the administrator. Raises AuthRefused."""
        return await self.gateway.authenticator.server_caller(self.request.headers)

    async def json(self, type_: type[T]) -> T:
        """Return the body as `type_`; an empty body is an empty object. Raises ApiError."""
        return decode(await self.text() or b"{}", type_)

    async def text(self) -> bytes:
        """Return the body, which is UTF-8. Raises ApiError, also for a compressed body."""
        if self.request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(ErrorCode.BAD_MESSAGE, "compressed bodies are not accepted")
        data = await self.data()
        try:
            # msgspec.Raw passes bytes on unread; text frames made from them must be UTF-8 for every receiver.
            data.decode()
        except UnicodeDecodeError:
            raise ApiError(ErrorCode.BAD_MESSAGE, "the body is not UTF-8") from None
        return data

    async def data(self) -> bytes:
        """Return the body as it arrived. Raises ApiError."""
        settings, limit = self.gateway.settings, self._endpoint.body_limit
        max_bytes = self._endpoint.max_body_bytes or settings.max_body_bytes
        if limit is Limit.MESSAGE_BYTES:
            max_bytes = settings.max_message_bytes
        return await read_body(self.request, max_bytes, settings.body_timeout_s, limit)


Handler = Callable[[Call], Awaitable[Any]]


# --- access ---


@dataclass(frozen=True, slots=True)
class Access:
    """Access to an endpoint: in words, as security schemes of the contract, and as the check before the handler.

    An empty scheme means that no credentials are needed under `open`.
    """

    rule: str
    security: tuple[dict[str, list[str]], ...] = ()
    check: Callable[[Call], Awaitable[None]] | None = None


ANYONE = Access("Needs no credentials.")
# The handlers of these check: what they need depends on the request, or they need the identity.
READER = Access(
    "Needs a token or ticket with the grant, or an API key; nothing under `TIDINGS_AUTH=open`.",
    ({}, {"token": []}, {"ticket": []}, {"apiKey": []}),
)
BEARER = Access("Needs a token.", ({}, {"token": []}))
TICKETS = Access(
    "Needs a token; with `userId` an API key of scope `tickets`, or a token with `admin`.",
    ({}, {"token": []}, {"apiKey": []}),
)
USER = Access(
    "Needs a token or ticket, and the grant; under `TIDINGS_AUTH=open` a `session` says which user it is.",
    ({}, {"token": []}, {"ticket": []}),
)


def reads(channel: str) -> Access:
    """Access for readers who may follow the channel that shows the same."""
    return Access(READER.rule, READER.security, partial(require_channel, channel=channel))


def server(*scopes: Scope) -> Access:
    """Access for servers with an API key of one of the scopes, and for administrators."""

    async def check(call: Call) -> None:
        await call.gateway.authenticator.require_api_key(call.request.headers, *scopes)

    return Access(
        "Needs an API key or a token with `admin`; nothing under `TIDINGS_AUTH=open`.",
        ({}, {"apiKey": []}, {"token": []}),
        check,
    )


async def require_channel(call: Call, channel: str) -> None:
    """Refuse a reader who may not follow a channel. Raises ApiError, AuthRefused, HookRefused, HookUnavailable."""
    reader = (await call.reader()).identity
    if not reader.grants.may_follow(channel):
        raise forbidden()
    if room := presence_room(channel):
        await call.gateway.require_join(Sender(reader.user_id, reader.username), room)


def forbidden() -> ApiError:
    """Return the refusal that does not reveal whether the thing exists."""
    return ApiError(ErrorCode.FORBIDDEN, "not allowed, or no such thing")


# --- endpoints ---


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEndpoint:
    """One method of one path.

    `answers` are the types of a successful answer's body: parameters of the query select one of several. `body_limit`
    names the limit on the body's size, which `max_body_bytes` lowers.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    route_path: str
    name: str
    summary: str
    access: Access
    handler: Handler
    answers: tuple[Any, ...] = ()
    status: int = 200
    media_type: str = "application/json"
    body: Any = None
    body_required: bool = True
    body_limit: Limit = Limit.BODY_BYTES
    max_body_bytes: int = 0
    query: tuple[Query | IntegerQuery, ...] = ()
    headers: tuple[Query, ...] = ()

    @property
    def path(self) -> str:
        """The path as OpenAPI writes it, without the router's converters."""
        return _CONVERTER.sub("", self.route_path)

    def route(self, gateway: Gateway, pushes: Pushes) -> Route:
        """Return the route of a gateway. `pushes` is the state that all its endpoints share."""
        check, handler = self.access.check, self.handler

        async def respond(request: Request) -> Response:
            call = Call(self, gateway, pushes, request)
            if check is not None:
                await check(call)
            answer = await handler(call)
            if isinstance(answer, Response):
                return answer
            return Response(status_code=self.status) if answer is None else JsonResponse(answer, self.status)

        return Route(self.route_path, respond, methods=[self.method], name=self.name)


def endpoint(
    method: Literal["GET", "POST", "PUT", "DELETE"],
    path: str,
    access: Access,
    *,
    answer: Any = None,
    **declared: Any,
) -> Callable[[Handler], HttpEndpoint]:
    """Declare the endpoint of a handler. `path` has the router's converters; `declared` are fields of HttpEndpoint.

    `answer` is the type of the answer of a handler that returns a `Response`.
    """

    def declare(handler: Handler) -> HttpEndpoint:
        found = answer or get_type_hints(handler)["return"]
        answers = get_args(found) if isinstance(found, UnionType) else (found,)
        summary = " ".join((handler.__doc__ or "").partition("\n\n")[0].split()).removesuffix(".")
        return HttpEndpoint(
            method=method,
            route_path=path,
            summary=summary,
            access=access,
            handler=handler,
            answers=tuple(each for each in answers if each is not NoneType),
            **{"name": re.sub(r"_([a-z])", lambda found: found[1].upper(), handler.__name__)} | declared,
        )

    return declare


def endpoints_of(*modules: ModuleType) -> tuple[HttpEndpoint, ...]:
    """Return the endpoints that modules declare, in the order of their declaration."""
    return tuple(
        value for module in modules for value in vars(module).values() if isinstance(value, HttpEndpoint)
    )
