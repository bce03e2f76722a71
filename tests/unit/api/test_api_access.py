"""Permissions under `jwt`: one table for all paths."""

import time

import httpx
import jwt
import pytest

from services.bus import rpc
from services.settings import Settings
from services.wire.rpc import (
    AlertList,
    AlertLog,
    Empty,
    LogPage,
    MetricsHistory,
    PresencePage,
    RoomsPage,
    SilenceList,
)
from tests.support.api import FakeDeps, api_client

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEY = "the-api-key"

# What a path needs: a channel's grant, a room's, or a server.
READS = {
    "/api/presence": {"channels": ["presence"]},
    "/api/presence?room=den": {"channels": ["presence:den"]},
    "/api/metrics/history": {"channels": ["metrics"]},
    "/api/gateways": {"channels": ["metrics"]},
    "/api/alerts": {"channels": ["alerts"]},
    "/api/alerts/history": {"channels": ["alerts"]},
    "/api/silences": {"channels": ["alerts"]},
    "/api/rooms/den/history": {"join": ["den"]},
}
SERVER_CALLS = [
    ("POST", "/api/publish"),
    ("POST", "/api/metrics"),
    ("POST", "/api/alerts/cpu-alert/ack"),
    ("POST", "/api/silences"),
    ("DELETE", "/api/silences/s1"),
    ("DELETE", "/api/users/ada/connections"),
    ("GET", "/api/logs"),
    ("GET", "/api/revocations"),
    ("POST", "/api/revocations"),
]
OPEN_PATHS = ["/", "/healthz", "/readyz", "/metrics"]


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> FakeDeps:
    deps = FakeDeps(Settings(auth="jwt", jwt_secrets=[SECRET], api_keys=[KEY]))  # type: ignore[arg-type]
    deps.answers = {
        "list": PresencePage(epoch="e", version=1, users=[]),
        "rooms": RoomsPage(rooms=[]),
        "history": MetricsHistory(rows=[]),
        "alerts": AlertList(alerts=[]),
        "alert_log": AlertLog(entries=[]),
        "silences": SilenceList(silences=[]),
        "unsilence": Empty(),
        "logs": LogPage(entries=[]),
        "stats": [],
    }
    monkeypatch.setattr(rpc, "call", deps.ask)
    monkeypatch.setattr(rpc, "call_all", deps.ask)
    return deps


def bearer(**tidings: object) -> dict[str, str]:
    claims = {"sub": "ada", "aud": "tidings", "exp": int(time.time()) + 60, "tidings": tidings}
    return {"authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}


@pytest.mark.parametrize("path", [*READS, "/api/rooms"])
async def test_reading_without_credentials(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize(("path", "grant"), READS.items())
async def test_reading_needs_the_matching_grant(
    client: httpx.AsyncClient, path: str, grant: dict[str, list[str]]
) -> None:
    others = {"join": ["lobby"], "channels": ["logs", "presence:lobby"], "broadcast": True, "direct": True}
    refused = await client.get(path, headers=bearer(**others))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await client.get(path, headers=bearer(**grant))).status_code == 200
    assert (await client.get(path, headers=bearer(admin=True))).status_code == 200
    assert (await client.get(path, headers={"x-api-key": KEY})).status_code == 200


async def test_a_ticket_reads_once(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/tickets", headers=bearer(channels=["alerts"]))
    ticket = answer.json()["ticket"]

    assert (await client.get(f"/api/alerts?ticket={ticket}")).status_code == 200
    assert (await client.get(f"/api/alerts?ticket={ticket}")).status_code == 401


@pytest.mark.parametrize(("method", "path"), SERVER_CALLS)
async def test_the_server_api(client: httpx.AsyncClient, deps: FakeDeps, method: str, path: str) -> None:
    everything_but_admin = bearer(join=["*"], publish=["*"], channels=["*"], broadcast=True, direct=True)

    assert (await client.request(method, path)).status_code == 401
    assert (await client.request(method, path, headers={"x-api-key": "wrong"})).status_code == 401
    assert (await client.request(method, path, headers=everything_but_admin)).status_code == 403
    assert deps.bus.published == []
    assert deps.asked == []
    for allowed in ({"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}, bearer(admin=True)):
        assert (await client.request(method, path, headers=allowed)).status_code not in (401, 403)


@pytest.mark.parametrize("path", OPEN_PATHS)
async def test_the_page_and_probes_need_nothing(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("name", ["token", "access_token", "jwt"])
async def test_token_in_url(client: httpx.AsyncClient, name: str) -> None:
    token = bearer(admin=True)["authorization"].removeprefix("Bearer ")
    answer = await client.get("/api/alerts", params={name: token})
    assert answer.status_code == 401
    assert token not in answer.text


async def test_a_ticket_begets_no_ticket(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    ticket = (await client.post("/api/tickets", headers=bearer())).json()["ticket"]
    assert (await client.post(f"/api/tickets?ticket={ticket}")).status_code == 401
    assert ticket in deps.tickets.kept  # not even spent


async def test_ticket_flood(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.tickets.wait = 0.2
    answer = await client.post("/api/tickets", headers=bearer())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["code"] == "rate_limited"
    assert answer.json()["retryAfterMs"] == 200
    assert deps.limited == ["ticket_rate"]
    assert deps.tickets.kept == {}


async def test_tickets_need_a_token(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/tickets")).status_code == 401
    assert (await client.post("/api/tickets", headers={"x-api-key": KEY})).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1/api/../..", "a b", "x@y"])
async def test_poisoned_host_opens_no_door(deps: FakeDeps, host: str) -> None:
    async with api_client(deps) as client:
        answer = await client.get("/api/alerts", headers={"host": host})
        assert answer.status_code == 401
        assert (await client.request("GET", "/healthz", headers={"host": "h/api/alerts?"})).json() == {
            "status": "ok"
        }
