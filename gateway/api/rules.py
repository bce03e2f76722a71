"""Alert rules by API: what holds, and rules beside those of the rules file."""

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_channel, require_server
from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.responses import JsonResponse
from gateway.auth.api_keys import Scope
from services.wire.alerting import RULES_END, RULES_LIST, RULES_SET, AlertRule, RuleId, RuleList
from services.wire.records import Record
from services.wire.rpc import Empty

_Word = Annotated[str, msgspec.Meta(max_length=256)]
_Words = Annotated[dict[_Word, _Word], msgspec.Meta(max_length=32)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)]


class RuleRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one metric is worth an alert; the keys of a rules file, in camelCase."""

    metric: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    source: Annotated[str, msgspec.Meta(max_length=2400)] = ""
    match: _Words = msgspec.field(default_factory=dict)
    aggregate: Literal["sum", "mean", "min", "max"] = "sum"
    warning: float | None = None
    critical: float | None = None
    op: Literal[">=", "<="] = ">="
    for_s: _Seconds = 0.0
    clear_for_s: _Seconds = 3.0
    warning_clear: float | None = None
    critical_clear: float | None = None
    no_data: Literal["keep", "resolve", "alert"] = "keep"
    no_data_for_s: _Seconds = 10.0
    forget_s: _Seconds = 86_400.0
    min_count: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1000
    labels: _Words = msgspec.field(default_factory=dict)


def rule_routes(deps: ApiDeps) -> list[Route]:
    """Return the paths under `/api/rules`."""

    async def rules(request: Request) -> Response:
        """Answer all rules, where each comes from, and what is wrong with the rules file."""
        await require_channel(deps, request, "alerts")
        found: RuleList = await deps.asking.ask(RULES_LIST, Empty())
        return JsonResponse(found)

    async def put(request: Request) -> Response:
        """Add a rule, or replace the one that watches the same; answer it with its `id`."""
        await require_server(deps, request, Scope.ALERTS)
        settings = deps.settings
        asked = await read_json(request, settings.max_body_bytes, RuleRequest, settings.body_timeout_s)
        rule = AlertRule(**msgspec.structs.asdict(asked))
        return JsonResponse(await deps.asking.ask(RULES_SET, rule))

    async def remove(request: Request) -> Response:
        """Forget a rule that was given by API."""
        await require_server(deps, request, Scope.ALERTS)
        await deps.asking.ask(RULES_END, RuleId(id=request.path_params["id"]))
        return Response(status_code=204)

    return [
        Route("/api/rules", rules, methods=["GET"]),
        Route("/api/rules", put, methods=["PUT"]),
        Route("/api/rules/{id:path}", remove, methods=["DELETE"]),
    ]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/rules",
        name="rules",
        summary="All alert rules, where each comes from, and what is wrong with the rules file",
        access=Access.READER,
        answer=RuleList,
    ),
    Operation(
        method="PUT",
        path="/api/rules",
        name="putRule",
        summary="Add an alert rule, or replace the one that watches the same",
        access=Access.SERVER,
        body=RuleRequest,
        answer=AlertRule,
    ),
    Operation(
        method="DELETE",
        path="/api/rules/{id}",
        name="removeRule",
        summary="Forget an alert rule that was given by API",
        access=Access.SERVER,
        status=204,
    ),
)
