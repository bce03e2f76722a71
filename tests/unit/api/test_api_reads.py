"""Reading over HTTP, under `open`."""

import httpx
import pytest

from services.bus import rpc
from services.bus.errors import Misconfigured, NoAnswer, PayloadTooLarge, RequestRefused, Unavailable
from services.settings import Settings
from services.wire.records import MetricsRecord, Network, RoomSummary, Status, User
from services.wire.rpc import (
    HistoryQuery,
    LogPage,
    MetricsHistory,
    PresencePage,
    PresenceQuery,
    PresenceStats,
    RoomsPage,
)
from services.wire.server import RoomMessage
from tests.support.api import FakeDeps, stats_of


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> FakeDeps:
    deps = FakeDeps(Settings())
    monkeypatch.setattr(rpc, "call", deps.ask)
    monkeypatch.setattr(rpc, "call_all", deps.ask)
    return deps


def user(number: int) -> User:
    return User(user_id=f"u{number:03}", username=f"U {number}", status=Status.ONLINE, last_seen=number)


def paged(users: list[User], per_page: int) -> object:
    """Answer presence queries with at most `per_page` users each, whatever the limit."""

    def answer(query: PresenceQuery) -> PresencePage:
        start = int(query.cursor or 0)
        end = min(start + min(query.limit, per_page), len(users))
        cursor = str(end) if end < len(users) else ""
        return PresencePage(epoch="e", version=1, users=users[start:end], cursor=cursor)

    return answer


async def test_presence_is_an_array_over_all_pages(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["list"] = paged([user(n) for n in range(25)], per_page=10)
    answer = await client.get("/api/presence")

    assert [entry["userId"] for entry in answer.json()] == [f"u{n:03}" for n in range(25)]
    assert answer.json()[3] == {"userId": "u003", "username": "U 3", "status": "online", "lastSeen": 3}
    assert "link" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


async def test_a_link_leads_through_presence(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["list"] = paged([user(n) for n in range(25)], per_page=10)
    path, seen = "/api/presence?limit=12&room=den", []
    while path:
        answer = await client.get(path)
        seen.append([entry["userId"] for entry in answer.json()])
        link = answer.headers.get("link", "")
        path = link.split(">")[0].removeprefix("<")

    assert [len(page) for page in seen] == [12, 12, 1]
    assert [user_id for page in seen for user_id in page] == [f"u{n:03}" for n in range(25)]
    assert {query.room for query in deps.asked} == {"den"}


async def test_room_names_are_normalized(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["list"] = paged([], per_page=1)
    await client.get("/api/presence", params={"room": "cafe\u0301"})
    assert deps.asked[0].room == "caf\u00e9"


@pytest.mark.parametrize("room", ["", "x" * 129, "a\nb"])
async def test_names_that_are_none(client: httpx.AsyncClient, room: str) -> None:
    answer = await client.get("/api/presence", params={"room": room})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_name")


async def test_history_passes_its_window_on(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    row = MetricsRecord(
        cpu=1.0, memory=2.0, disk=3.0, network=Network(in_=4.0, out=5.0), requests=6.0, errors=7.0,
        latency_p50=8.0, latency_p95=9.0, latency_p99=10.0, timestamp=11,
    )  # fmt: skip
    deps.answers["history"] = MetricsHistory(rows=[row])
    answer = await client.get("/api/metrics/history?limit=5&from=1000&to=2000&step=60&source=web")

    assert deps.asked == [HistoryQuery(limit=5, start=1000, end=2000, step=60, source="web")]
    assert answer.json() == [
        {
            "cpu": 1.0, "memory": 2.0, "disk": 3.0, "network": {"in": 4.0, "out": 5.0}, "requests": 6.0,
            "errors": 7.0, "latencyP50": 8.0, "latencyP95": 9.0, "latencyP99": 10.0, "timestamp": 11,
        }
    ]  # fmt: skip


async def test_what_a_source_does_not_measure_is_absent(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    row = MetricsRecord(
        cpu=0.0, memory=0.0, disk=0.0, network=Network(in_=0.0, out=0.0), requests=0.0, errors=7.0,
        latency_p50=0.0, latency_p95=0.0, latency_p99=0.0, timestamp=11,
    )  # fmt: skip
    absent = ["cpu", "memory", "disk", "network", "latencyP50", "latencyP95", "latencyP99"]
    deps.answers["history"] = MetricsHistory(rows=[row], unmeasured=[absent])
    answer = await client.get("/api/metrics/history?source=shop")
    assert answer.json() == [{"requests": 0.0, "errors": 7.0, "timestamp": 11}]


async def test_history_gives_the_last_hundred_by_default(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["history"] = MetricsHistory(rows=[])
    await client.get("/api/metrics/history")
    assert deps.asked == [HistoryQuery(limit=100)]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=x", "limit=", "limit=1e3", "limit=1_0", "limit=٣", "limit=99999", "step=-5",
     "step=1.5", "step=99999999", "from=-1", "from=9999999999999999", "to=now", "from=2&to=1", "limit= 5"],
)  # fmt: skip
async def test_wrong_parameters_are_named(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/metrics/history?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert query.partition("=")[0] in answer.json()["message"]


async def test_rooms(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    rooms = [RoomSummary(room=f"r{n}", users=9 - n, connections=10) for n in range(3)]
    deps.answers["rooms"] = RoomsPage(rooms=rooms)
    answer = await client.get("/api/rooms?limit=2")
    assert answer.json() == [
        {"room": "r0", "users": 9, "connections": 10},
        {"room": "r1", "users": 8, "connections": 10},
    ]


@pytest.mark.parametrize("room", ["den", "a/b", "ü", "x/history"])
async def test_room_history(client: httpx.AsyncClient, deps: FakeDeps, room: str) -> None:
    message = RoomMessage(user_id="u", username="U", room=room, content={"a": 1}, timestamp=5, seq=7)
    deps.history.past.messages.append(message)
    escaped = httpx.QueryParams({"r": room}).__str__().removeprefix("r=")
    answer = await client.get(f"/api/rooms/{escaped}/history?limit=10&since=3")

    assert deps.history.asked == [(room, 10, None, 3)]
    assert answer.json() == {
        "room": room,
        "epoch": "e",
        "seq": 7,
        "messages": [
            {"type": "room_message", "userId": "u", "username": "U", "room": room, "content": {"a": 1}, "timestamp": 5, "seq": 7}
        ],
    }  # fmt: skip


async def test_an_ephemeral_room_has_no_past(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    assert (await client.get("/api/rooms/live:cursor/history")).json() == {
        "room": "live:cursor",
        "messages": [],
    }
    assert deps.history.asked == []


async def test_before_and_since_exclude_each_other(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/rooms/den/history?before=5&since=2")).status_code == 400


async def test_gateways_always_lists_the_one_that_answers(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["stats"] = [stats_of("gw-z"), stats_of("gw-a")]
    answer = await client.get("/api/gateways")
    assert [entry["gateway"] for entry in answer.json()] == ["gw-a", "gw-self", "gw-z"]


async def test_logs(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["logs"] = LogPage(entries=[])
    assert (await client.get("/api/logs?limit=7")).json() == []
    assert deps.asked[0].limit == 7


@pytest.mark.parametrize(
    ("fault", "status", "code", "retryable"),
    [
        (NoAnswer("s", "no responders"), 503, "unavailable", True),
        (Unavailable("gone"), 503, "unavailable", True),
        (RequestRefused("not_found", "no such alert"), 404, "not_found", False),
        (RequestRefused("conflict", "already"), 409, "conflict", False),
        (RequestRefused("10059", "stream secret-name not found"), 500, "internal", True),
        (PayloadTooLarge(10, 5), 413, "too_large", False),
        (Misconfigured("password secret-name"), 500, "internal", True),
    ],
)
async def test_faults_of_the_bus(
    client: httpx.AsyncClient, deps: FakeDeps, fault: Exception, status: int, code: str, *, retryable: bool
) -> None:
    deps.answers["alerts"] = fault
    answer = await client.get("/api/alerts")

    body = answer.json()
    assert (answer.status_code, body["code"], body["retryable"]) == (status, code, retryable)
    assert ("retryAfterMs" in body) == ("retry-after" in answer.headers) == (code == "unavailable")
    assert "secret-name" not in answer.text


async def test_internal_errors_have_no_details(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["alerts"] = ZeroDivisionError("secret-name in a traceback")
    answer = await client.get("/api/alerts")

    assert answer.status_code == 500
    assert answer.json() == {"code": "internal", "message": "an internal error occurred", "retryable": True}
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("PUT", "/api/publish", 405), ("POST", "/api/alerts", 405)],
)
async def test_paths_and_methods_that_are_none(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, "not_found")
    assert ("allow" in answer.headers) == (status == 405)


async def test_users_can_be_asked_for_by_name(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["list"] = PresencePage(epoch="e", version=1, users=[user(1)], count=9)
    answer = await client.get("/api/presence?user=u001&user=u,%202&room=den&limit=1")
    assert [one["userId"] for one in answer.json()] == ["u001"]
    assert "link" not in answer.headers
    assert (deps.asked[0].users, deps.asked[0].room) == (["u001", "u, 2"], "den")
    many = "&".join(f"user=u{n}" for n in range(1001))
    assert (await client.get(f"/api/presence?{many}")).json()["code"] == "invalid_field"


async def test_presence_counts_name_no_users(client: httpx.AsyncClient, deps: FakeDeps) -> None:
    deps.answers["stats"] = PresenceStats(users=3, connections=5, rooms=2, gateways=1)
    deps.answers["list"] = PresencePage(epoch="e", version=1, users=[user(1)], count=7)
    assert (await client.get("/api/presence/stats")).json() == {
        "users": 3, "connections": 5, "rooms": 2, "gateways": 1,
    }  # fmt: skip
    assert (await client.get("/api/presence/stats?room=den")).json() == {"users": 7}
