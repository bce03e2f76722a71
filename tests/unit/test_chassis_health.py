"""The health server: its answers, and slow clients that cannot block it."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services import health
from services.bus.stats import BusStats
from services.health import HealthServer, ProcessCollector
from services.settings import Settings
from tests.support.deadline import PATIENCE_S


@pytest.fixture
async def checks() -> dict[str, bool]:
    return {"bus": True, "store": True}


@pytest.fixture
async def server(checks: dict[str, bool]) -> AsyncIterator[HealthServer]:
    server = HealthServer(
        Settings(),
        "presence",
        {"bus": lambda: checks["bus"], "store": lambda: checks["store"]},
        details=lambda: {"leader": True},
    )
    await server.start()
    yield server
    await server.close()
    await server.close()


@pytest.fixture
async def client(server: HealthServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


async def test_liveness_depends_on_nothing(client: httpx.AsyncClient, checks: dict[str, bool]) -> None:
    checks["bus"] = False
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_readiness_names_each_check(client: httpx.AsyncClient, checks: dict[str, bool]) -> None:
    answer = await client.get("/readyz?verbose")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "checks": {"bus": True, "store": True},
        "details": {"leader": True},
    }
    checks["store"] = False
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"bus": True, "store": False})


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'tidings_build_info{service="presence"' in answer.text


async def test_head_has_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", 404),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /healthz HTTP/2\r\n\r\n", 400),
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_odd_requests_get_a_status(server: HealthServer, request_head: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request_head)
    assert int((await reader.readline()).split()[1]) == status
    writer.close()


async def test_a_silent_client_is_hung_up(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_REQUEST_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /hea")
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    writer.close()


async def test_a_body_is_json() -> None:
    answer = health.readiness({"bus": lambda: False})
    assert (answer.status, json.loads(answer.body)) == (
        503,
        {"status": "not ready", "checks": {"bus": False}},
    )


def test_readiness_and_the_counts_of_the_bus_are_metrics() -> None:
    checks = {"bus": True}
    stats = BusStats(stored=3, not_stored=1, disconnects=2)
    registry = CollectorRegistry()
    registry.register(ProcessCollector({"bus": lambda: checks["bus"]}, stats))
    assert registry.get_sample_value("tidings_ready", {"check": "bus"}) == 1
    checks["bus"] = False
    assert registry.get_sample_value("tidings_ready", {"check": "bus"}) == 0
    assert registry.get_sample_value("tidings_bus_publishes_total", {"outcome": "stored"}) == 3
    assert registry.get_sample_value("tidings_bus_publishes_total", {"outcome": "not_stored"}) == 1
    assert registry.get_sample_value("tidings_bus_faults_total", {"fault": "disconnects"}) == 2
