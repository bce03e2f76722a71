"""The fleet's recent log lines, and those that applications add to them."""

import time
from collections.abc import Generator
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.body import read_body
from gateway.api.declarations import Access, Operation, Query, between
from gateway.api.deps import ApiDeps
from gateway.api.log_lines import LEVELS, Level, PushedLine, batches, entry_of
from gateway.api.metric_items import MAX_ITEMS, check_item, items_of
from gateway.api.push_result import PushResult, Rejection, push_answer
from gateway.api.query import integer
from gateway.api.responses import ApiError, JsonResponse, describe_bus_error
from gateway.api.slices import MAX_PUSHES_WAITING, Slices
from gateway.auth.api_keys import Scope
from gateway.limits import Limit
from services.bus.errors import BusError, Unavailable
from services.wire.codes import ErrorCode
from services.wire.events import LogReport
from services.wire.records import LogEntry
from services.wire.rpc import LOGS_RECENT, LogPage, LogQuery
from services.wire.subjects import LOGS_OF_APPLICATIONS

_MAX_LINES = 1000
_MAX_LINE_BYTES = 64 * 1024  # as JSON, in which a character may take twelve bytes


def log_routes(deps: ApiDeps) -> list[Route]:
    """Return the methods of `/api/logs`."""
    slices = Slices(MAX_PUSHES_WAITING, lambda: deps.on_limit(Limit.PUSHES))

    async def recent(request: Request) -> Response:
        """Answer an array of the newest `limit` log lines, oldest first."""
        await require_server(deps, request, Scope.LOGS)
        limit = integer(request, "limit", 100, low=1, high=_MAX_LINES)
        query = LogQuery(
            limit=limit, source=request.query_params.get("source", "")[:128], level=_level(request)
        )
        found: LogPage = await deps.asking.ask(LOGS_RECENT, query)
        return JsonResponse(found.entries)

    async def push(request: Request) -> Response:
        """Take one line or an array: 202 when any was handed to the bus, with the reasons for the rest."""
        await require_server(deps, request, Scope.LOGS)
        body = await read_body(request, deps.settings.max_body_bytes, deps.settings.body_timeout_s)
        return push_answer(await slices.run(_take(deps, items_of(body))))

    return [
        Route("/api/logs", recent, methods=["GET"]),
        Route("/api/logs", push, methods=["POST"]),
    ]


def _level(request: Request) -> str:
    level = request.query_params.get("level", "")
    if level and level not in LEVELS:
        raise ApiError(ErrorCode.INVALID_FIELD, f"`level` must be one of {', '.join(LEVELS)}")
    return level


def _take(deps: ApiDeps, items: list[msgspec.Raw]) -> Generator[None, None, PushResult]:
    """Hand the good lines to the bus, those of one source together, a step at a time.

    Raises:
        Unavailable: none was taken.
    """
    now_ms = int(time.time() * 1000)
    by_source: dict[str, list[tuple[int, LogEntry]]] = {}
    rejected: list[Rejection] = []
    for index, raw in enumerate(items):
        yield
        try:
            check_item(raw, _MAX_LINE_BYTES)
            entry = entry_of(raw, now_ms)
        except ApiError as fault:
            rejected.append(Rejection(index=index, code=fault.code.code, message=fault.message))
        else:
            by_source.setdefault(entry.source, []).append((index, entry))
    subject = deps.subjects.logs_report(LOGS_OF_APPLICATIONS)
    accepted = 0
    for source, lines in by_source.items():
        for some in batches(lines):
            yield
            report = LogReport(source=source, entries=[entry for _, entry in some])
            try:
                deps.bus.publish(subject, msgspec.json.encode(report))
            except BusError as fault:
                if isinstance(fault, Unavailable) and not accepted:
                    raise
                code, message = describe_bus_error(fault)
                rejected += [Rejection(index=index, code=code.code, message=message) for index, _ in some]
            else:
                accepted += len(some)
    return PushResult(accepted=accepted, rejected=sorted(rejected, key=lambda item: item.index))


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/logs",
        name="logs",
        summary="The newest log lines of the deployment, oldest first",
        access=Access.SERVER,
        answer=list[LogEntry],
        query=(
            Query("limit", between(1, _MAX_LINES), "Most lines answered; 100 when absent."),
            Query("source", str, "Only lines of this source."),
            Query("level", Level, "Only lines of this level and those above."),
        ),
    ),
    Operation(
        method="POST",
        path="/api/logs",
        name="pushLogs",
        summary="Add lines to the log stream",
        access=Access.SERVER,
        body=PushedLine | Annotated[list[PushedLine], msgspec.Meta(max_length=MAX_ITEMS)],
        answer=PushResult,
        status=202,
    ),
)
