"""Policy for the pages that may talk to this gateway.

A browser sends `Origin` with every WebSocket upgrade and every cross-origin request, and a page cannot forge it: a
foreign page cannot use a visitor's network position (cross-site WebSocket hijacking, RFC 6455 §10.2). Other programs
send none and are admitted: they need credentials.

Requests for embedded resources (an image, a script) have no `Origin`, but `Sec-Fetch-Site: cross-site`. A link to the
dashboard has that too, so the dashboard is admitted.

Under `open` there are no credentials, so DNS rebinding must be prevented: a foreign name that resolves to a loopback
address arrives in `Host`, which therefore must be an address, `localhost` or configured. If only this machine can
connect, pages that it serves itself may: a developer's own.
"""

import ipaddress
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache

import structlog

from gateway.auth.identity import AuthRefused
from services.settings_values import DEFAULT_PORT, is_loopback, normalize_origin
from services.wire.codes import ErrorCode

_LOGGED_A_MINUTE = 16
_LOGGED_LENGTH = 100

log = structlog.get_logger(__name__)


class ForeignOrigin(AuthRefused):
    """A page of `origin` may not talk to this gateway. It may read this refusal, so that its developer sees why."""

    def __init__(self, origin: str) -> None:
        super().__init__(ErrorCode.FORBIDDEN, "pages of this origin may not connect; see TIDINGS_ORIGINS")
        self.origin = origin


class OriginPolicy:
    """Decides by `Origin`, `Sec-Fetch-Site` and `Host`. `origins` are exact: scheme, host and port.

    `tls`: the gateway itself serves TLS, so pages of its own have `https`. Behind a proxy both schemes count as its own.
    `local_pages`: pages that a loopback address serves over http may connect.

    Raises:
        ValueError: a configured origin is not `SCHEME://HOST[:PORT]`.
    """

    def __init__(
        self, origins: Iterable[str], *, local_names_only: bool, local_pages: bool = False, tls: bool = False
    ) -> None:
        self._allowed = frozenset(normalize_origin(origin) for origin in origins)
        self._allowed_hosts = frozenset(origin.partition("://")[2] for origin in self._allowed)
        self._local_names_only = local_names_only
        self._local_pages = local_pages
        self._own_schemes = ("https",) if tls else ("http", "https")
        self._logged: dict[str, float] = {}

    def check(self, headers: Mapping[str, str], path: str = "") -> str | None:
        """Return the foreign origin that may read the answer (for CORS headers), or None for the gateway's own pages.

        Raises:
            AuthRefused: `forbidden`.
        """
        host = headers.get("host", "").lower()
        if self._local_names_only and host and not self._is_local(host):
            text = "this host name is not served here; add its origin to TIDINGS_ORIGINS"
            raise AuthRefused(ErrorCode.FORBIDDEN, text)
        origin = headers.get("origin")
        if origin is None:
            visits_page = path == "/" and headers.get("sec-fetch-mode") == "navigate"
            if headers.get("sec-fetch-site") == "cross-site" and not visits_page:
                raise AuthRefused(ErrorCode.FORBIDDEN, "pages of other origins may not embed this")
            return None
        try:
            normal = normalize_origin(origin)
        except ValueError:  # `null` (sandboxed pages, files) among others
            normal = ""
        scheme, _, authority = normal.partition("://")
        own = authority and authority == host.removesuffix(DEFAULT_PORT.get(scheme, ""))
        if own and scheme in self._own_schemes:
            return None
        if normal in self._allowed or (self._local_pages and scheme == "http" and _is_loopback(authority)):
            return origin
        self._log(origin, time.monotonic())
        raise ForeignOrigin(origin)

    def _log(self, origin: str, now: float) -> None:
        """Log a refused origin once a minute, and a limited number of them: untrusted clients choose the names."""
        origin = origin[:_LOGGED_LENGTH]
        if self._logged.get(origin, 0.0) > now:
            return
        self._logged = {known: until for known, until in self._logged.items() if until > now}
        if len(self._logged) < _LOGGED_A_MINUTE:
            self._logged[origin] = now + 60
            log.warning("pages of this origin may not connect; see TIDINGS_ORIGINS", origin=origin)

    def _is_local(self, host: str) -> bool:
        return host in self._allowed_hosts or _names_this_machine(host)


@lru_cache(maxsize=1024)
def _names_this_machine(host: str) -> bool:
    """Return True for a `Host` that is a loopback name, or an address, which no foreign name can be."""
    try:
        ipaddress.ip_address(_name(host))
    except ValueError:
        return _is_loopback(host)
    return True


def _is_loopback(host: str) -> bool:
    name = _name(host)
    return is_loopback(name) or name.endswith(".localhost")


def _name(host: str) -> str:
    return re.sub(r":\d+$", "", host).removeprefix("[").removesuffix("]")
