"""Which requests are timed."""

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.delivery.traffic import Traffic
from gateway.timing import RequestTiming, takes_its_time


async def test_what_waits_on_purpose_counts_but_is_no_latency() -> None:
    async def gather(request: Request) -> Response:
        takes_its_time(request.scope)
        return Response()

    async def plain(_request: Request) -> Response:
        return Response()

    traffic = Traffic()
    app = RequestTiming(Starlette(routes=[Route("/gather", gather), Route("/plain", plain)]), traffic)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
        await client.get("/gather")
        assert (traffic.requests, traffic.latency.count) == (1, 0)
        await client.get("/plain")
        assert (traffic.requests, traffic.latency.count) == (2, 1)
