"""Client addresses: the peer, or what trusted proxies forwarded. No I/O.

Behind proxies the peer is the last proxy, and the client's address is what the proxies wrote down. Any client can write
such a header, so it is read only when the peer is a trusted proxy, only the one header that this deployment's proxies
set, and from the right: each proxy appends the address of its peer, and the first address that is no trusted proxy is
the client's. What stands to the left of it is the client's own word. Some proxies append to the line that came, others
add a line of their own (HAProxy): all lines count, in their order, as one list (RFC 9110 §5.3).
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_FOR = re.compile(r"(?:^|;)\s*for\s*=\s*(\"[^\"]*\"|[^;\s]+)", re.IGNORECASE)  # RFC 7239 §4
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[0-9.]+)(?::\d+)?")
_MAX_HOPS = 32
# A customer with a /64 has 2^64 addresses (RFC 6177), so a /64 counts as one.
_IPV6_KEY_BITS = 64

UNKNOWN = "unknown"


class TrustedProxies:
    """Proxies whose header is trusted: addresses or networks, and the one header that they set."""

    def __init__(self, networks: Iterable[str], header: str) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]
        self.header = header

    def client_ip(self, peer: str, lines: Sequence[str]) -> str:
        """Return the address of the client as text; `UNKNOWN` where there is none (a Unix socket).

        `lines` are the values of every line of `header`, as they came.
        """
        address = _parse(peer)
        if address is None:
            return UNKNOWN
        if not self._trusts(address):
            return str(address)
        for hop in reversed(self._hops(lines)[-_MAX_HOPS:]):
            stated = _parse_hop(hop)
            if stated is None:
                break  # obfuscated (`_hidden`), `unknown`, or nonsense: that proxy's peer is not known
            address = stated
            if not self._trusts(address):
                break
        return str(address)

    def client_ip_of_request(self, scope: Scope) -> str:
        """Return the client's address of a request."""
        return self.client_ip(peer_of(scope), Headers(scope=scope).getlist(self.header))

    def ip_key_of_request(self, scope: Scope) -> str:
        """Return the key under which limits count a request."""
        return ip_key_of(self.client_ip_of_request(scope))

    def _trusts(self, address: IPAddress) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)

    def _hops(self, lines: Sequence[str]) -> list[str]:
        elements = [part.strip() for part in ",".join(lines).split(",") if part.strip()]
        if self.header != "forwarded":
            return elements
        found = [_FOR.search(element) for element in elements]
        return [match[1].strip('"') if match else UNKNOWN for match in found]


@lru_cache(maxsize=4096)  # the same few proxies, or the same clients coming back
def _parse(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # without the zone of a link-local address
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _parse_hop(text: str) -> IPAddress | None:
    match = _WITH_PORT.fullmatch(text)
    return _parse(match["v6"] or match["v4"] or "") if match else _parse(text)


def peer_of(scope: Scope) -> str:
    """Return the address of a request's peer; empty where there is none (a Unix socket)."""
    peer = scope.get("client")
    return peer[0] if peer else ""


def ip_key_of(address: str) -> str:
    """Return the key under which limits count an address: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = _parse(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, _IPV6_KEY_BITS)))
