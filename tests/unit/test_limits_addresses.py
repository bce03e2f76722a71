"""Client addresses, and the limit of connections per address."""

from typing import Any

import pytest

from gateway.connections import Connections
from gateway.delivery.counters import Counters
from gateway.http.client_address import TrustedProxies, ip_key_of
from services.settings import Settings
from services.tasks import TaskSet

PROXY = "10.0.0.1"
NO_BUS: Any = None
FORWARDED_FOR = TrustedProxies(["10.0.0.0/8", "fd00::/8"], "x-forwarded-for")
FORWARDED = TrustedProxies(["10.0.0.0/8"], "forwarded")


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),  # no proxy of ours: its word counts for nothing
        (PROXY, "", PROXY),
        (PROXY, "198.51.100.1", "198.51.100.1"),
        (PROXY, "203.0.113.9, 198.51.100.1", "198.51.100.1"),  # what stands left is the client's own word
        (PROXY, "198.51.100.1, 10.2.3.4", "198.51.100.1"),  # two proxies of ours
        (PROXY, "10.9.9.9, 10.2.3.4", "10.9.9.9"),  # all inside
        (PROXY, "198.51.100.1, unknown", PROXY),
        (PROXY, "198.51.100.1:4711", "198.51.100.1"),
        (PROXY, "[2001:db8::1]:4711", "2001:db8::1"),
        (PROXY, "2001:db8::1", "2001:db8::1"),
        (PROXY, "," * 10_000, PROXY),
        (PROXY, "1.2.3.4, " * 10_000 + "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("", "198.51.100.1", "unknown"),
    ],
)
def test_x_forwarded_for(peer: str, header: str, client: str) -> None:
    assert FORWARDED_FOR.client_ip(peer, [header]) == client


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], PROXY),
        (["203.0.113.9", "198.51.100.1"], "198.51.100.1"),  # the proxy's own line stands after the client's
        (["203.0.113.9, 203.0.113.8", "198.51.100.1, 10.2.3.4"], "198.51.100.1"),
        (["203.0.113.9", "10.2.3.4"], "203.0.113.9"),
    ],
)
def test_a_line_of_the_clients_own_does_not_hide_that_of_the_proxy(lines: list[str], client: str) -> None:
    assert FORWARDED_FOR.client_ip(PROXY, lines) == client


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("for=198.51.100.1", "198.51.100.1"),
        ('For="[2001:db8::1]:4711";proto=https', "2001:db8::1"),
        ("for=203.0.113.9, proto=http;for=198.51.100.1;by=10.0.0.1", "198.51.100.1"),
        ("for=_hidden", PROXY),
        ("before=198.51.100.1", PROXY),
        ("for=198.51.100.1, nonsense", PROXY),
    ],
)
def test_forwarded(header: str, client: str) -> None:
    assert FORWARDED.client_ip(PROXY, [header]) == client


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("unknown", "unknown"),
    ],
)
def test_addresses_that_count_as_one(address: str, place: str) -> None:
    assert ip_key_of(address) == place


def reserve(connections: Connections, address: str) -> str | None:
    return connections.reserve_ip(address, lambda _name: [])


def test_an_address_has_a_limit_and_gets_its_slot_back() -> None:
    connections = make_connections(2)
    network = reserve(connections, "2001:db8::1")
    assert network == ip_key_of("2001:db8::2")
    assert reserve(connections, "2001:db8::2") == network
    assert reserve(connections, "2001:db8::1") is None
    assert reserve(connections, "2001:db8:0:1::1")
    connections.release_ip(network)
    assert reserve(connections, "2001:db8::1") == network


def test_addresses_without_connections_are_not_remembered() -> None:
    connections = make_connections(2)
    for number in range(1000):
        key = reserve(connections, f"10.0.{number // 256}.{number % 256}")
        assert key
        connections.release_ip(key)
    connections.release_ip("")
    assert connections._by_ip == {}


def test_without_a_limit_nothing_is_counted() -> None:
    connections = make_connections(0)
    assert {reserve(connections, "192.0.2.7") for _ in range(100)} == {""}
    connections.release_ip("")


def make_connections(per_address: int) -> Connections:
    settings = Settings(connections_per_address=per_address)
    return Connections(NO_BUS, settings, "g", TaskSet(), Counters())
