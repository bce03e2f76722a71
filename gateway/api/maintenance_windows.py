"""Maintenance windows: times that come again, in which alerts that match are not notified."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel, require_server
from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.matchers import MatcherRequest, matchers_of
from gateway.api.responses import JsonResponse
from gateway.auth.api_keys import Scope
from services.wire.alerting import (
    WINDOWS_END,
    WINDOWS_LIST,
    WINDOWS_SET,
    Weekday,
    Window,
    WindowId,
    WindowList,
)
from services.wire.records import Record
from services.wire.rpc import Empty

_Word = Annotated[str, msgspec.Meta(max_length=128)]
_Remark = Annotated[str, msgspec.Meta(max_length=1000)]
_TimeOfDay = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class WindowRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When, each day or on some days, which alerts are kept quiet; with the `id` of one there is, it is replaced."""

    matchers: Annotated[list[MatcherRequest], msgspec.Meta(min_length=1, max_length=16)]
    days: Annotated[list[Weekday], msgspec.Meta(max_length=7)] = msgspec.field(default_factory=list)
    start: _TimeOfDay
    end: _TimeOfDay
    timezone: _Word = "UTC"
    comment: _Remark = ""
    created_by: _Word = ""
    id: _Word = ""


def window_routes(deps: ApiDeps) -> list[Route]:
    """Return the paths under `/api/windows`."""

    async def windows(request: Request) -> Response:
        """Answer an array of the maintenance windows."""
        await require_channel(deps, request, "alerts")
        found: WindowList = await deps.asking.ask(WINDOWS_LIST, Empty())
        return JsonResponse(found.windows)

    async def add(request: Request) -> Response:
        """Add or replace a window, and answer it with its `id`."""
        await require_server(deps, request, Scope.ALERTS)
        settings = deps.settings
        asked = await read_json(request, settings.max_body_bytes, WindowRequest, settings.body_timeout_s)
        fields = msgspec.structs.asdict(asked) | {"matchers": matchers_of(asked.matchers)}
        return JsonResponse(await deps.asking.ask(WINDOWS_SET, Window(**fields)), 201)

    async def remove(request: Request) -> Response:
        """Forget a window."""
        await require_server(deps, request, Scope.ALERTS)
        await deps.asking.ask(WINDOWS_END, WindowId(id=request.path_params["id"]))
        return Response(status_code=204)

    return [
        Route("/api/windows", windows, methods=["GET"]),
        Route("/api/windows", add, methods=["POST"]),
        Route("/api/windows/{id}", remove, methods=["DELETE"]),
    ]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/windows",
        name="windows",
        summary="Maintenance windows",
        access=Access.READER,
        answer=list[Window],
    ),
    Operation(
        method="POST",
        path="/api/windows",
        name="putWindow",
        summary="Add a maintenance window, or replace the one of that id",
        access=Access.SERVER,
        body=WindowRequest,
        answer=Window,
        status=201,
    ),
    Operation(
        method="DELETE",
        path="/api/windows/{id}",
        name="removeWindow",
        summary="Forget a maintenance window",
        access=Access.SERVER,
        status=204,
    ),
)
