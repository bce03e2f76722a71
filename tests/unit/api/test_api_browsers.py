"""Answers to browsers: the page, foreign origins, headers."""

from dataclasses import replace

import httpx
import pytest
from starlette.responses import Response

from gateway.api.endpoint import Call
from gateway.sse import endpoints as sse
from services.settings import Settings
from tests.support.api import FakeDeps, api_client

ALLOWED = "https://app.example"


@pytest.fixture
def deps() -> FakeDeps:
    return FakeDeps(Settings(origins=[ALLOWED]))


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/presence", "/nothing"])
async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/publish"), ("GET", "/healthz"), ("OPTIONS", "/api/publish")]
)
async def test_foreign_pages_are_refused(
    client: httpx.AsyncClient, deps: FakeDeps, origin: str, method: str, path: str
) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST", "content-type": "text/plain"}
    answer = await client.request(method, path, headers=headers, content=b'{"broadcast":true,"content":1}')

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    # The page may read why, and nothing else.
    assert "TIDINGS_ORIGINS" in answer.json()["message"]
    assert answer.headers["access-control-allow-origin"] == origin
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-methods" not in answer.headers
    assert deps.publisher.published == []


@pytest.mark.parametrize("path", ["/events?rooms=lobby", "/api/presence", "/healthz"])
async def test_other_sites_embed_nothing(client: httpx.AsyncClient, path: str) -> None:
    """`<img src>` and the like send no `Origin`."""
    embedding = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    answer = await client.get(path, headers=embedding)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in answer.headers


async def test_other_sites_link_to_the_page(client: httpx.AsyncClient) -> None:
    following = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert (await client.get("/", headers=following)).status_code == 200
    assert (await client.get("/healthz", headers=following)).status_code == 403
    assert (await client.get("/", headers=following | {"sec-fetch-mode": "no-cors"})).status_code == 403


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
async def test_what_no_other_site_asks_for_passes(client: httpx.AsyncClient, site: str) -> None:
    assert (await client.get("/healthz", headers={"sec-fetch-site": site})).status_code == 200


async def test_an_allowed_page_may_ask_and_read(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    preflight = await client.options(
        "/api/publish", headers={"origin": ALLOWED, "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE"
    assert "Authorization" in preflight.headers["access-control-allow-headers"]

    answer = await client.post("/api/publish", headers={"origin": ALLOWED}, json={"room": "r", "content": 1})
    assert answer.status_code == 200
    for headers in (preflight.headers, answer.headers):
        assert headers["access-control-allow-origin"] == ALLOWED
        assert "Origin" in headers["vary"]
        assert "access-control-allow-credentials" not in headers


async def test_the_own_page_needs_no_cors(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz", headers={"origin": "http://127.0.0.1:8080"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_dns_rebinding(deps: FakeDeps) -> None:
    async with api_client(deps, host="rebound.evil.example:8080") as client:
        assert (await client.get("/api/presence")).status_code == 403
        assert (await client.get("/")).status_code == 403


async def test_readiness_names_what_is_missing(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert (ready.json()["status"], ready.json()["checks"]) == ("ready", {"bus": True})

    deps.checks = {"bus": False, "streams": True}
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"bus": False, "streams": True})
    assert (await client.get("/healthz")).status_code == 200


async def test_metrics_are_text_or_a_stream(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stream(_call: Call) -> Response:
        return Response("data: {}\n\n", media_type="text/event-stream")

    monkeypatch.setattr(sse, "metrics_events", replace(sse.metrics_events, handler=stream))
    text = await client.get("/metrics")
    events = await client.get("/metrics", headers={"accept": "text/event-stream"})

    assert text.headers["content-type"].startswith("text/plain")
    assert "# HELP" in text.text
    assert events.headers["content-type"].startswith("text/event-stream")
