"""Settings with which a process cannot work, though each alone is well formed: every rule, in one place.

`tidings config`, `check` and `up` check those of all processes before anything starts, each process its own.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from services.logs.redaction import clean_urls
from services.permissions import Role
from services.servers import parse_nats_url, parse_redis_url
from services.settings import Settings
from services.settings_sources import config_file
from services.settings_values import (
    MIN_SECRET_BYTES,
    Namespace,
    is_http_url,
    is_secure_url,
    normalize_origin,
    parse_api_key,
)

# Variables of the command line, which are no settings of processes.
_OTHER_VARIABLES = frozenset({"TIDINGS_CONFIG", "TIDINGS_URL", "TIDINGS_TOKEN"})
_ALIKE = 0.7
_UNREADABLE = re.compile(r'error parsing value for field "(\w+)"')


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a setting, why that matters, and what to do. Shows no secret."""

    setting: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.what}; {self.advice}"


def problems_of(settings: Settings, role: Role | None = None) -> list[Problem]:
    """Return the problems with which a process of that role, or with none any of them, cannot work."""
    found = list(_connections(settings))
    if role in (None, Role.GATEWAY):
        found += [
            *_access(settings),
            *_tokens(settings),
            *_api_keys(settings),
            *_gateway(settings),
            *_hooks(settings),
        ]
    if role in (None, Role.PRESENCE):
        found += _presence_webhooks(settings)
    if role in (None, Role.METRICS):
        found += [
            *_urls("TIDINGS_WEBHOOK_URLS", settings.webhook_urls),
            *_urls("TIDINGS_ALERTMANAGER_URLS", settings.alertmanager_urls),
        ]
    return found


def _connections(settings: Settings) -> Iterator[Problem]:
    if settings.nats_url:
        try:
            parse_nats_url(settings.nats_url)
        except ValueError as fault:
            advice = "put user:password@ before the host, with what is special in them percent-encoded"
            yield Problem("TIDINGS_NATS_URL", str(fault), advice)
    if settings.redis_url and not settings.redis_url.startswith("unix://"):
        try:
            parse_redis_url(settings.redis_url)
        except ValueError as fault:
            yield Problem("TIDINGS_REDIS_URL", str(fault), "write it like redis://host:6379/0")
    for kind in ("tls", "nats", "redis"):
        certificate, key = getattr(settings, f"{kind}_cert"), getattr(settings, f"{kind}_key")
        if (certificate is None) != (key is None):
            given, missing = ("CERT", "KEY") if key is None else ("KEY", "CERT")
            what = f"is not set, and TIDINGS_{kind.upper()}_{given} is"
            yield Problem(f"TIDINGS_{kind.upper()}_{missing}", what, "set both, or neither")
    if settings.traces_endpoint and not is_http_url(settings.traces_endpoint):
        advice = "give an OTLP/HTTP address, like http://collector:4318"
        yield Problem("TIDINGS_TRACES_ENDPOINT", "is no http or https URL", advice)


def _access(settings: Settings) -> Iterator[Problem]:
    if settings.is_exposed:
        yield Problem(
            "TIDINGS_HOST",
            f"{settings.host} would admit anyone on the network, because TIDINGS_AUTH is `open`",
            f"set TIDINGS_AUTH=jwt and TIDINGS_JWT_SECRETS to a secret of your own ({MIN_SECRET_BYTES} bytes or more), "
            "or listen on this machine only (127.0.0.1)",
        )
    for origin in settings.origins:
        try:
            normalize_origin(origin)
        except ValueError:
            what = f"{clean_urls(origin)!r} is no origin: scheme, host and port, without a path or a wildcard"
            yield Problem("TIDINGS_ORIGINS", what, "write it like https://app.example.com")


def _tokens(settings: Settings) -> Iterator[Problem]:
    has_keys = settings.jwt_secrets or settings.jwks_url or settings.jwks_issuers
    if settings.auth == "jwt" and not has_keys and "connect" not in settings.hooks:
        yield Problem(
            "TIDINGS_AUTH",
            "is `jwt`, and nothing says how tokens are signed",
            "set TIDINGS_JWT_SECRETS, or TIDINGS_JWKS_URL and TIDINGS_JWT_ISSUER, or have a `connect` hook decide",
        )
    for number, secret in enumerate(settings.jwt_secrets, 1):
        size = len(secret.get_secret_value().encode())
        if size < MIN_SECRET_BYTES:
            what = f"number {number} has {size} bytes, HS256 needs {MIN_SECRET_BYTES}"
            advice = 'make one with `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
            yield Problem("TIDINGS_JWT_SECRETS", what, advice)
    if settings.jwks_url and not settings.jwt_issuer:
        yield Problem(
            "TIDINGS_JWT_ISSUER",
            "is not set, and TIDINGS_JWKS_URL is: whose keys are there?",
            "name the `iss`",
        )
    urls = {"TIDINGS_JWKS_URL": [settings.jwks_url] if settings.jwks_url else []}
    urls["TIDINGS_JWKS_ISSUERS"] = list(settings.jwks_issuers.values())
    for setting, given in urls.items():
        if not all(map(is_secure_url, given)):
            what = "is not https (http is for loopback alone)"
            yield Problem(setting, what, "use https: anyone who can change the answer can sign tokens")


def _api_keys(settings: Settings) -> Iterator[Problem]:
    for number, key in enumerate(settings.api_keys, 1):
        try:
            parse_api_key(key.get_secret_value())
        except ValueError as fault:
            advice = "make one with `tidings key --scopes publish+metrics`"
            yield Problem("TIDINGS_API_KEYS", f"number {number} {fault}", advice)


def _gateway(settings: Settings) -> Iterator[Problem]:
    if settings.presence_lease_s <= settings.presence_renew_s:
        what = f"{settings.presence_lease_s:g} s are over before a lease is renewed ({settings.presence_renew_s:g} s)"
        advice = "make it at least twice TIDINGS_PRESENCE_RENEW_S, or all users go offline in between"
        yield Problem("TIDINGS_PRESENCE_LEASE_S", what, advice)


def _hooks(settings: Settings) -> Iterator[Problem]:
    if not settings.hooks:
        return
    url = settings.hooks_url
    if not url:
        yield Problem("TIDINGS_HOOKS_URL", "is not set, and TIDINGS_HOOKS is", "say where hooks are answered")
    elif not is_secure_url(url):
        advice = "use https: cookies and tokens of users are sent there"
        yield Problem("TIDINGS_HOOKS_URL", "is not https (http is for loopback alone)", advice)
    elif "@" in urlsplit(url).netloc:
        advice = "leave it out: requests are signed with TIDINGS_HOOKS_SECRETS"
        yield Problem("TIDINGS_HOOKS_URL", "has a login, which is not sent", advice)
    secrets = [secret.get_secret_value() for secret in settings.hooks_secrets]
    if not (secrets and all(secrets)):
        what = "is not set, and TIDINGS_HOOKS is: requests of hooks are signed"
        yield Problem("TIDINGS_HOOKS_SECRETS", what, "give a secret that your application knows")


def _presence_webhooks(settings: Settings) -> Iterator[Problem]:
    secrets = [secret.get_secret_value() for secret in settings.presence_webhook_secrets]
    if settings.presence_webhook_urls and not (secrets and all(secrets)):
        what = "is not set, and TIDINGS_PRESENCE_WEBHOOK_URLS is: webhooks are signed"
        yield Problem("TIDINGS_PRESENCE_WEBHOOK_SECRETS", what, "give a secret that the receivers know")
    yield from _urls("TIDINGS_PRESENCE_WEBHOOK_URLS", settings.presence_webhook_urls)


def _urls(setting: str, urls: list[str]) -> Iterator[Problem]:
    for number, url in enumerate(urls, 1):
        if not is_http_url(url):
            advice = "write it like https://host"
            yield Problem(setting, f"number {number} is no http or https URL", advice)


# --- values that are not well formed --------------------------------------------------------------------------------


def describe_fault(wrong: ValidationError | SettingsError | OSError | ValueError) -> list[str]:
    """Return one line for each fault found while reading the settings: its source, what it is, a suggestion."""
    if isinstance(wrong, ValidationError):
        return [_describe_error(error) for error in wrong.errors(include_input=False, include_url=False)]
    # pydantic-settings names the field, and Python's cause is the fault of the JSON.
    if isinstance(wrong, SettingsError) and (found := _UNREADABLE.search(str(wrong))):
        return [f"{_spelled(found[1])}: is not JSON: {wrong.__cause__ or wrong}"]
    source = config_file() if isinstance(wrong, tomllib.TOMLDecodeError) else "configuration"
    return [f"{source}: {wrong}"]


def _describe_error(error: ErrorDetails) -> str:
    loc = [str(part) for part in error["loc"]]
    if not loc:
        return f"configuration: {error['msg']}"
    if error["type"] != "extra_forbidden":
        return f"{_spelled(loc[0], loc[1:])}: {error['msg']}"
    meant = did_you_mean(loc[-1], _known_beside(loc))
    return f"{_spelled(loc[0], loc[1:])} is no setting{f'; did you mean {meant}?' if meant else ''}"


def _known_beside(loc: list[str]) -> Iterable[str]:
    if len(loc) == 1:
        return Settings.model_fields
    return Namespace.model_fields if loc[0] == "namespaces" else ()


def _spelled(field: str, below: Iterable[str] = ()) -> str:
    """Spell a setting as in its source: the environment, or the file."""
    variable = f"TIDINGS_{field.upper()}"
    given = {name.upper() for name in os.environ}
    path = config_file()
    if path is None or given & {variable, f"{variable}_FILE"} or not _stands_in(path, field):
        return ".".join((variable, *below))
    return f"{path}: `{'.'.join((field, *below))}`"


def _stands_in(path: Path, field: str) -> bool:
    try:
        return field in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


# --- names --------------------------------------------------------------------------------------------------------


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables that look like settings and are none, each with what it may have been meant as, or nothing."""
    known = {f"TIDINGS_{name.upper()}" for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known} | _OTHER_VARIABLES
    return {
        name: did_you_mean(name.upper(), known)
        for name in sorted(environment)
        if name.upper().startswith("TIDINGS_") and name.upper() not in known
    }


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most alike, or nothing."""
    return next(iter(difflib.get_close_matches(name, sorted(known), 1, _ALIKE)), "")


def describe_unknown(variables: Mapping[str, str]) -> list[str]:
    """Return one sentence for each unknown variable."""
    return [
        f"{name} is no setting and is ignored{f'; did you mean {meant}?' if meant else ''}"
        for name, meant in variables.items()
    ]
