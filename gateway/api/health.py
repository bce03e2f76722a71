"""For operators: health, readiness and Prometheus metrics of this gateway, and how all of them are doing.

The first three need no credentials, and show nothing secret.
"""

import re
from typing import Literal

from starlette.responses import Response

from gateway.api.endpoint import ANYONE, Call, endpoint, reads
from gateway.http.request_metrics import exclude_from_latency
from gateway.sse import endpoints as sse
from services import health, telemetry
from services.bus import rpc
from services.wire.records import GatewayStats, Record
from services.wire.rpc import GATEWAY_STATS, Empty

_VERSIONS = re.compile(rb"^(?:# (?:HELP|TYPE) )?(?:python_info|tidings_build_info)\b")
_NO_STORE = {"cache-control": "no-store"}


@endpoint("GET", "/api/gateways", reads("metrics"))
async def gateways(call: Call) -> list[GatewayStats]:
    """What every gateway says of itself, by name."""
    exclude_from_latency(call.request.scope)
    gateway = call.gateway
    answers = await rpc.call_all(gateway.bus, gateway.settings.subjects, GATEWAY_STATS, Empty())
    by_name = {stats.gateway: stats for stats in (*answers, gateway.reporter.stats())}
    return [by_name[name] for name in sorted(by_name)]


class Liveness(Record, frozen=True, kw_only=True):
    """That the process answers is the whole answer."""

    status: Literal["ok"]


class Readiness(Record, frozen=True, kw_only=True):
    """Whether new connections should come here (200) or not (503), and what each check says.

    `details` do not count: `breakers` says of each service whether it answers (`closed`) or not (`open`).
    """

    status: Literal["ready", "not ready"]
    checks: dict[str, bool]
    details: dict[str, dict[str, str]]


@endpoint("GET", "/healthz", ANYONE, answer=Liveness)
async def healthz(_call: Call) -> Response:
    """Whether the process answers."""
    return _plain(health.liveness())


@endpoint("GET", "/readyz", ANYONE, answer=Readiness)
async def readyz(call: Call) -> Response:
    """Whether new connections should come here."""
    checks = {name: holds.__bool__ for name, holds in call.gateway.readiness().items()}
    return _plain(health.readiness(checks, call.gateway.service_client.details))


@endpoint("GET", "/metrics", ANYONE, answer=str, media_type="text/plain")
async def prometheus_metrics(call: Call) -> Response:
    """Prometheus text; a stream of metrics records where `Accept` names `text/event-stream`."""
    headers = call.request.headers
    if "text/event-stream" in headers.get("accept", ""):
        stream: Response = await sse.metrics_events.handler(call)
        return stream
    text, content_type = telemetry.exposition()
    if not call.gateway.authenticator.is_operator(headers):
        text = _without_versions(text)
    return Response(text, headers={**_NO_STORE, "content-type": content_type, "vary": "Accept"})


def _without_versions(text: bytes) -> bytes:
    """Return the metrics without versions: an attacker would learn which faults to look for."""
    return b"\n".join(line for line in text.split(b"\n") if not _VERSIONS.search(line))


def _plain(answer: health.Response) -> Response:
    return Response(answer.body, int(answer.status), _NO_STORE, answer.content_type)
