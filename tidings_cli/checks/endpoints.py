"""HTTP endpoints of our processes: public keys, receivers of webhooks and alerts, the collector of traces."""

import asyncio
import ssl
from importlib.util import find_spec
from time import perf_counter
from urllib.parse import urlsplit

import httpx

from services.permissions import Role
from services.settings import Settings
from services.tracing.exporting import traces_url
from tidings_cli.checks.outcome import Outcome, bad, good, reason_of, warning

REACH_S = 5.0
_RECEIVER_ADVICE = "events wait for it and are dropped in the end; make sure that it runs and can be reached"
_HOOKS_ADVICE = "hooks fail, and TIDINGS_HOOKS_ON_FAILURE decides; make sure that it runs and can be reached"
_USABLE = {"RSA", "EC", "OKP"}


async def check_endpoints(settings: Settings, role: Role | None) -> list[Outcome]:
    """Reach each URL in the settings. Nothing is delivered to receivers: the check only connects."""
    tries = []
    if role in (None, Role.GATEWAY):
        issuers = dict(settings.jwks_issuers)
        if settings.jwks_url:
            issuers[settings.jwt_issuer] = settings.jwks_url
        tries += [_keys(issuer, url) for issuer, url in issuers.items()]
        if settings.hooks:
            tries.append(_receiver("hooks", settings.hooks_url, _HOOKS_ADVICE))
    if role in (None, Role.PRESENCE):
        tries += [_receiver("presence webhook", url) for url in settings.presence_webhook_urls]
    if role in (None, Role.METRICS):
        tries += [_receiver("alert webhook", url) for url in settings.webhook_urls]
        tries += [_alertmanager(url) for url in settings.alertmanager_urls]
    if settings.traces_endpoint:
        tries.append(_traces(settings))
    outcomes = list(await asyncio.gather(*tries))
    if role in (None, Role.METRICS) and settings.notify_urls and find_spec("apprise") is None:
        advice = "install tidings[notify]"
        outcomes.append(bad("notifications", "TIDINGS_NOTIFY_URLS needs apprise, which is not there", advice))
    return outcomes


async def _keys(issuer: str, url: str) -> Outcome:
    name = f"public keys of {issuer or 'the issuer'}"
    since = perf_counter()
    answer = await _fetched(url)
    if isinstance(answer, str):
        advice = "gateways answer 503 to tokens of this issuer while they have no keys"
        return bad(name, f"{url} {answer}", advice)
    if answer.status_code != httpx.codes.OK:
        advice = "correct TIDINGS_JWKS_URL; redirects are not followed"
        return bad(name, f"{url} answers {answer.status_code}", advice)
    try:
        keys = [key for key in answer.json()["keys"] if key.get("kty") in _USABLE]
    except (ValueError, KeyError, TypeError, AttributeError):
        return bad(name, f"{url} is not a set of keys (JWKS)", "correct TIDINGS_JWKS_URL")
    if not keys:
        advice = "the issuer must sign with RS256, ES256 or EdDSA"
        return bad(name, f"{url} has no key that could verify a token", advice)
    return good(name, f"{len(keys)} at {url}", since)


async def _receiver(name: str, url: str, advice: str = _RECEIVER_ADVICE) -> Outcome:
    """Connect, with TLS for https, and send nothing: a receiver would process it as an event."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    since = perf_counter()
    context = ssl.create_default_context() if secure else None
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=context
            )
            writer.close()
    except (OSError, TimeoutError) as fault:
        return bad(name, f"{_shown(url)} cannot be reached: {_reason(fault)}", advice)
    return good(name, f"{_shown(url)} accepts connections", since)


async def _alertmanager(url: str) -> Outcome:
    name, since = "Alertmanager", perf_counter()
    answer = await _fetched(f"{url.rstrip('/')}/-/ready")
    if isinstance(answer, str):
        advice = "alerts are pushed again until they end; make sure that it runs and can be reached"
        return bad(name, f"{_shown(url)} {answer}", advice)
    if answer.status_code != httpx.codes.OK:
        advice = "TIDINGS_ALERTMANAGER_URLS is where Alertmanager's own page is, without a path"
        return bad(name, f"{_shown(url)} answers {answer.status_code} to /-/ready", advice)
    return good(name, f"{_shown(url)} is ready", since)


async def _traces(settings: Settings) -> Outcome:
    """Send an empty list of spans, which a collector answers like any other."""
    name, since = "traces", perf_counter()
    url = traces_url(settings.traces_endpoint)
    if find_spec("opentelemetry.exporter") is None:
        return bad(name, "OpenTelemetry is not installed", "install tidings[tracing]")
    answer = await _fetched(url, "POST", {"Content-Type": "application/x-protobuf"})
    if isinstance(answer, str):
        advice = "spans are dropped meanwhile, and nothing else is affected"
        return warning(name, f"{_shown(url)} {answer}", advice)
    if answer.is_success:
        return good(name, f"{_shown(url)} takes spans", since)
    advice = "is it OTLP over HTTP? Credentials go into OTEL_EXPORTER_OTLP_HEADERS"
    return warning(name, f"{_shown(url)} answers {answer.status_code}", advice)


async def _fetched(
    url: str, method: str = "GET", headers: dict[str, str] | None = None
) -> httpx.Response | str:
    """Return the answer, or why there is none."""
    try:
        async with httpx.AsyncClient(timeout=REACH_S) as client:
            return await client.request(method, url, headers=headers)
    except httpx.HTTPError as fault:
        return f"cannot be reached: {_reason(fault)}"


def _shown(url: str) -> str:
    """Return a URL without its secrets: login, query, and a path that is a capability."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _reason(fault: Exception) -> str:
    if isinstance(fault, TimeoutError | httpx.TimeoutException):
        return f"no answer within {REACH_S:g} s"
    return reason_of(fault)
