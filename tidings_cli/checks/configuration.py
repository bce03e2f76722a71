"""Contradictory settings, and the files that settings name."""

import ssl
import time
import tomllib
from pathlib import Path

from cryptography import x509

from services.permissions import Role
from services.settings import Settings
from services.settings_problems import describe_unknown, problems_of, unknown_variables
from services.settings_sources import config_file
from services.settings_values import is_loopback
from tidings_cli.checks.outcome import Outcome, bad, good, warning

_EXPIRES_SOON_DAYS = 14
_DAY_S = 86_400


def check_configuration(settings: Settings, role: Role | None) -> list[Outcome]:
    """Check the settings themselves; their types and ranges are valid already."""
    outcomes = [good("configuration", str(config_file() or "environment only"))]
    outcomes += [
        warning("configuration", sentence, "correct the name, or remove it")
        for sentence in describe_unknown(unknown_variables())
    ]
    if problems := problems_of(settings, role):
        return [*outcomes, *(bad(one.setting, one.what, one.advice) for one in problems)]
    if role in (None, Role.GATEWAY):
        outcomes.append(_access(settings))
        outcomes += _certificates(settings)
    outcomes += [
        _expiry(f"TIDINGS_{name.upper()}", path, "replace it (`tidings secrets`), and restart")
        for name in ("nats_ca", "nats_cert", "redis_ca", "redis_cert")
        if (path := getattr(settings, name)) is not None
    ]
    if role in (None, Role.METRICS) and settings.rules_file is not None:
        outcomes.append(_rules(settings.rules_file))
    return outcomes


def _access(settings: Settings) -> Outcome:
    name = "access"
    if settings.auth == "jwt":
        if not settings.api_keys:
            advice = "make one with `tidings key` and put its hash into TIDINGS_API_KEYS"
            return warning(name, "jwt; no API key, so only admin tokens reach the server API", advice)
        return good(name, f"jwt; {len(settings.api_keys)} API keys")
    if not is_loopback(settings.host):
        detail = f"open on {settings.host}: every client that reaches the port has all rights"
        return warning(name, detail, "publish the port on loopback alone, or set TIDINGS_AUTH=jwt")
    if settings.nats_url and not settings.session_secret.get_secret_value():
        advice = "set the same TIDINGS_SESSION_SECRET on all gateways, at least 32 random characters"
        return warning(name, "open; each gateway generates its own session secret", advice)
    return good(name, "open: every client has all rights")


def _certificates(settings: Settings) -> list[Outcome]:
    if settings.tls_cert is None or settings.tls_key is None:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError, ValueError) as fault:
        advice = "TIDINGS_TLS_CERT is the chain, TIDINGS_TLS_KEY its private key, both PEM and readable"
        return [bad("certificate", f"cannot be used: {fault}", advice)]
    return [
        _expiry("certificate", settings.tls_cert, "renew it, and restart the gateways one after the other")
    ]


def _expiry(name: str, path: Path, advice: str) -> Outcome:
    """Report the first expiry of the certificates in a file (PEM)."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as fault:
        return bad(name, f"{path} cannot be used: {fault}", "it holds certificates, PEM and readable")
    ends = min(one.not_valid_after_utc for one in found)
    left_days = (ends.timestamp() - time.time()) / _DAY_S
    until = f"{ends:%Y-%m-%d}"
    if left_days <= 0:
        return bad(name, f"expired on {until}", advice)
    if left_days < _EXPIRES_SOON_DAYS:
        return warning(name, f"expires on {until}", advice)
    return good(name, f"valid until {until}")


def _rules(path: Path) -> Outcome:
    """Check that the file is TOML. metrics_svc validates its rules, after each change of the file."""
    name = "rules file"
    try:
        rules = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        advice = "correct it; until then the rules before it hold, at a start the built-in ones"
        return bad(name, f"{path} cannot be read: {fault}", advice)
    return good(name, f"{path} has {', '.join(rules) or 'nothing'}")
