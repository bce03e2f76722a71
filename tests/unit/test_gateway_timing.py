"""Timed requests, and the counters of their refusals."""

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.api.body import read_body
from gateway.api.responses import ApiError, error_handlers
from gateway.delivery.counters import Counters
from gateway.http.request_metrics import RequestMetrics, already_counted, exclude_from_latency
from gateway.limits import Limit
from services.wire.codes import ErrorCode


async def test_what_waits_on_purpose_counts_but_is_no_latency() -> None:
    async def gather(request: Request) -> Response:
        exclude_from_latency(request.scope)
        return Response()

    async def plain(_request: Request) -> Response:
        return Response()

    counters = Counters()
    app = RequestMetrics(Starlette(routes=[Route("/gather", gather), Route("/plain", plain)]), counters)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
        await client.get("/gather")
        assert (counters.requests, counters.latency.count) == (1, 0)
        await client.get("/plain")
        assert (counters.requests, counters.latency.count) == (2, 1)


async def test_a_refusal_counts_under_the_limit_that_was_met() -> None:
    async def small(request: Request) -> Response:
        return PlainTextResponse(await read_body(request, 10, 30.0, Limit.BODY_BYTES))

    async def items(_request: Request) -> Response:
        raise ApiError(ErrorCode.TOO_LARGE, "too many items")

    async def elsewhere(request: Request) -> Response:
        already_counted(request.scope)
        return Response(status_code=503)

    routes = [
        Route("/small", small, methods=["POST"]),
        Route("/items", items),
        Route("/elsewhere", elsewhere),
    ]
    counters = Counters()
    app = RequestMetrics(Starlette(routes=routes, exception_handlers=error_handlers()), counters)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
        assert (await client.post("/small", content="x" * 11)).status_code == 413
        assert (await client.get("/items")).status_code == 413
        assert (await client.get("/elsewhere")).status_code == 503
    assert dict(counters.limited) == {Limit.BODY_BYTES: 1}
    assert dict(counters.refusals) == {"http_413": 2}
    assert (counters.requests, counters.errors) == (2, 0)
