"""Which pages may talk to this gateway.

A browser sends `Origin` with every WebSocket upgrade and every cross-origin request and a page cannot forge
it: this is what keeps a foreign page from using a visitor's network position (cross-site WebSocket
hijacking, RFC 6455 §10.2). Programs that are no browsers send none and are let through; they prove
themselves by credentials.

Under `open` there are no credentials, so a second door is closed: a foreign name that is made to resolve to
a loopback address (DNS rebinding) arrives with itself in `Host`, which then has to be an address,
`localhost` or configured.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from gateway.auth.refusal import AuthRefused
from services.settings_values import DEFAULT_PORT, normalize_origin
from services.wire.codes import ErrorCode


class OriginPolicy:
    """Decides by `Origin` and `Host`. `origins` are exact: scheme, host and port.

    Raises:
        ValueError: a configured origin is not `SCHEME://HOST[:PORT]`.
    """

    def __init__(self, origins: Iterable[str], *, local_names_only: bool) -> None:
        self._allowed = frozenset(normalize_origin(origin) for origin in origins)
        self._allowed_hosts = frozenset(origin.partition("://")[2] for origin in self._allowed)
        self._local_names_only = local_names_only

    def check(self, headers: Mapping[str, str]) -> str | None:
        """Return the foreign origin that may read the answer (for CORS headers), or None if there is none.

        Raises:
            AuthRefused: `forbidden`.
        """
        host = headers.get("host", "").lower()
        if self._local_names_only and host and not self._is_local(host):
            raise AuthRefused(
                ErrorCode.FORBIDDEN,
                "this host name is not served here; name its origin in TIDINGS_ORIGINS",
            )
        origin = headers.get("origin")
        if origin is None:
            return None
        try:
            normal = normalize_origin(origin)
        except ValueError:  # `null` (sandboxed pages, files) among others
            normal = ""
        scheme, _, authority = normal.partition("://")
        if authority and authority == host.removesuffix(DEFAULT_PORT.get(scheme, "")):
            return None
        if normal in self._allowed:
            return origin
        raise AuthRefused(ErrorCode.FORBIDDEN, "pages of this origin may not connect; see TIDINGS_ORIGINS")

    def _is_local(self, host: str) -> bool:
        return host in self._allowed_hosts or _names_this_machine(host)


@lru_cache(maxsize=1024)
def _names_this_machine(host: str) -> bool:
    """Whether a `Host` is a loopback name, or an address, which no foreign name can be."""
    name = re.sub(r":\d+$", "", host).removeprefix("[").removesuffix("]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
