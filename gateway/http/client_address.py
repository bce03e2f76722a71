"""Where a client is, and how many connections come from there. No I/O.

Behind proxies the peer is the last proxy, and the client's address is what the proxies wrote down. Anybody can write
such a header, so it is read only when the peer is a trusted proxy, only the one header that this deployment's proxies
set, and from the right: each proxy appends whom it heard from, and the first address that is no trusted proxy is
the client's. What stands to the left of it is the client's own word. Some proxies append to the line that came, others
add a line of their own (HAProxy): all lines count, in their order, as one list (RFC 9110 §5.3).
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_FOR = re.compile(r"(?:^|;)\s*for\s*=\s*(\"[^\"]*\"|[^;\s]+)", re.IGNORECASE)  # RFC 7239 §4
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[0-9.]+)(?::\d+)?")
_MAX_HOPS = 32
# Who is given a /64 has 2^64 addresses (RFC 6177), so that is what counts as one place.
_IPV6_PLACE_BITS = 64

UNKNOWN = "unknown"


class Proxies:
    """The proxies whose word is taken: addresses or networks, and the header that they set."""

    def __init__(self, networks: Iterable[str], header: str) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]
        self.header = header

    def client_of(self, peer: str, lines: Sequence[str]) -> str:
        """Return the address of the client as text; `UNKNOWN` where nothing can be said (a Unix socket).

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
                break  # obfuscated (`_hidden`), `unknown`, or nonsense: who spoke to that proxy is not known
            address = stated
            if not self._trusts(address):
                break
        return str(address)

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


def place_of(address: str) -> str:
    """Return what counts as one place: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = _parse(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, _IPV6_PLACE_BITS)))


class AddressLimit:
    """How many connections each place has; places without any are not remembered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def counts(self) -> bool:
        """Whether there is a limit."""
        return bool(self._limit)

    def enter(self, address: str) -> str | None:
        """Count a connection. Return what to give to `leave`, or None where the place has as many as it may.

        Without a limit nothing is counted, and the text is empty.
        """
        if not self._limit:
            return ""
        place = place_of(address)
        count = self._open.get(place, 0)
        if count >= self._limit:
            return None
        self._open[place] = count + 1
        return place

    def leave(self, place: str) -> None:
        """Count a connection no more."""
        if not place:
            return
        left = self._open.get(place, 0) - 1
        if left > 0:
            self._open[place] = left
        else:
            self._open.pop(place, None)
