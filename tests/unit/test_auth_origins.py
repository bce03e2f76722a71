"""Allowed origins of pages."""

import pytest
from structlog.testing import capture_logs

from gateway.auth.identity import AuthRefused
from gateway.auth.origins import OriginPolicy
from services.wire.codes import ErrorCode

closed = OriginPolicy([], local_names_only=False)
listed = OriginPolicy(["https://app.example", "http://Dev.example:3000/"], local_names_only=False)
local = OriginPolicy(["https://forwarded.example"], local_names_only=True)


def assert_refused(policy: OriginPolicy, headers: dict[str, str]) -> None:
    with pytest.raises(AuthRefused) as caught:
        policy.check(headers)
    assert caught.value.code is ErrorCode.FORBIDDEN


def test_programs_that_are_no_browsers_pass() -> None:
    assert closed.check({"host": "chat.example"}) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("https://chat.example", "chat.example"),
        ("https://chat.example", "chat.example:443"),
        ("https://CHAT.example", "chat.EXAMPLE"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_the_gateways_own_pages_pass(origin: str, host: str) -> None:
    assert closed.check({"origin": origin, "host": host}) is None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://chat.example.evil.example",
        "https://evilchat.example",
        "https://chat.example:8443",
        "https://chat.example@evil.example",
        "null",
        "",
        "chat.example",
        "https://",
        "https://chat.example/path",
    ],
)
def test_cross_site_websocket_hijack(origin: str) -> None:
    assert_refused(closed, {"origin": origin, "host": "chat.example"})


def test_listed_origins_pass_and_may_read_answers() -> None:
    assert listed.check({"origin": "https://app.example", "host": "api.example"}) == "https://app.example"
    assert listed.check({"origin": "http://dev.example:3000", "host": "api.example"}) is not None


@pytest.mark.parametrize("origin", ["http://app.example", "https://app.example:444", "https://x.app.example"])
def test_listed_origins_are_exact(origin: str) -> None:
    assert_refused(listed, {"origin": origin, "host": "api.example"})


def test_dns_rebinding_is_refused_under_open() -> None:
    assert_refused(local, {"host": "evil.example:8080"})
    assert_refused(local, {"host": "evil.example:8080", "origin": "http://evil.example:8080"})
    assert_refused(local, {"host": "localhost.evil.example"})
    assert_refused(local, {"host": "127.0.0.1.evil.example"})


@pytest.mark.parametrize(
    "host",
    ["localhost:8080", "app.localhost", "127.0.0.1:8080", "[::1]:8080", "192.0.2.7", "forwarded.example", ""],
)
def test_local_and_configured_names_pass_under_open(host: str) -> None:
    assert local.check({"host": host}) is None


def test_under_tls_the_own_page_has_its_scheme() -> None:
    own = OriginPolicy([], local_names_only=False, tls=True)
    assert own.check({"origin": "https://chat.example:8443", "host": "chat.example:8443"}) is None
    assert_refused(own, {"origin": "http://chat.example:8443", "host": "chat.example:8443"})
    # Behind a proxy that ends TLS, the gateway itself does not serve it.
    assert closed.check({"origin": "http://chat.example:8443", "host": "chat.example:8443"}) is None


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "http://127.0.0.1", "http://[::1]:3000", "http://a.localhost"]
)
def test_pages_of_this_machine_pass_where_only_it_can_connect(origin: str) -> None:
    machine = OriginPolicy([], local_names_only=True, local_pages=True)
    assert machine.check({"origin": origin, "host": "localhost:8080"}) == origin
    assert_refused(machine, {"origin": origin, "host": "evil.example:8080"})
    assert_refused(local, {"origin": origin, "host": "localhost:8080"})


@pytest.mark.parametrize(
    "origin",
    [
        "https://localhost:5173",
        "http://192.0.2.7",
        "http://localhost.evil.example",
        "http://evil.example",
        "null",
    ],
)
def test_no_other_pages_pass_there(origin: str) -> None:
    machine = OriginPolicy([], local_names_only=True, local_pages=True)
    assert_refused(machine, {"origin": origin, "host": "localhost:8080"})


def test_a_refused_origin_is_logged_once_a_minute_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.auth.origins.time.monotonic", lambda: now)
    policy = OriginPolicy([], local_names_only=False)
    with capture_logs() as lines:
        for _ in range(3):
            assert_refused(policy, {"origin": "http://localhost:5173", "host": "chat.example"})
        for number in range(1000):
            assert_refused(
                policy, {"origin": f"https://{number}.evil.example{'/' * 1000}", "host": "chat.example"}
            )
    assert [line["log_level"] for line in lines] == ["warning"] * 16
    assert lines[0]["origin"] == "http://localhost:5173"
    assert max(len(line["origin"]) for line in lines) == 100
    now += 61
    with capture_logs() as lines:
        assert_refused(policy, {"origin": "http://localhost:5173", "host": "chat.example"})
    assert len(lines) == 1


@pytest.mark.parametrize("bad", ["*", "https://*.example", "app.example", "https://a/b", "null", ""])
def test_a_configured_origin_must_be_one(bad: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        OriginPolicy([bad], local_names_only=False)
