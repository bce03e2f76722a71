"""Which pages may talk to the gateway."""

import pytest

from gateway.auth.origins import OriginPolicy
from gateway.auth.refusal import AuthRefused
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


@pytest.mark.parametrize("bad", ["*", "https://*.example", "app.example", "https://a/b", "null", ""])
def test_a_configured_origin_must_be_one(bad: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        OriginPolicy([bad], local_names_only=False)
