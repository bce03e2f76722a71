"""Settings that contradict each other, and the files that settings name."""

import ipaddress
import ssl
import time
import tomllib
from pathlib import Path

from cryptography import x509

from services.cli.checks.outcome import Outcome, bad, good, warning
from services.permissions.roles import Role
from services.settings import Settings, config_file

_EXPIRES_SOON_DAYS = 14
_DAY_S = 86_400


def check_configuration(settings: Settings, role: Role | None) -> list[Outcome]:
    """Look at the settings themselves; their types and limits hold already."""
    outcomes = [good("configuration", str(config_file() or "environment only"))]
    if role in (None, Role.GATEWAY):
        outcomes += _access(settings)
        outcomes += _certificates(settings)
    if role in (None, Role.METRICS) and settings.rules_file is not None:
        outcomes.append(_rules(settings.rules_file))
    return outcomes


def _access(settings: Settings) -> list[Outcome]:
    name = "access"
    if settings.auth == "jwt":
        if not (settings.jwt_secrets or settings.jwks_url or settings.jwks_issuers):
            return [
                bad(
                    name,
                    "TIDINGS_AUTH=jwt, and nothing says how tokens are signed",
                    "set TIDINGS_JWT_SECRETS or TIDINGS_JWKS_URL",
                )
            ]
        if not settings.api_keys:
            advice = "make one with `tidings key` and put its hash into TIDINGS_API_KEYS"
            return [warning(name, "jwt; no server key, so only admin tokens reach the server API", advice)]
        return [good(name, f"jwt; {len(settings.api_keys)} server keys")]
    if not _is_loopback(settings.host) and not settings.open_beyond_loopback:
        return [
            bad(
                name,
                f"TIDINGS_AUTH=open lets anybody in, and TIDINGS_HOST={settings.host} is no loopback address",
                "set TIDINGS_AUTH=jwt; a gateway does not start like this",
            )
        ]
    if settings.nats_url and not settings.session_secret.get_secret_value():
        advice = "set the same TIDINGS_SESSION_SECRET on all gateways, at least 32 random characters"
        return [warning(name, "open; each gateway makes up its own session secret", advice)]
    return [good(name, "open: anybody may do anything")]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _certificates(settings: Settings) -> list[Outcome]:
    if settings.tls_cert is None and settings.tls_key is None:
        return []
    name = "certificate"
    if settings.tls_cert is None or settings.tls_key is None:
        return [bad(name, "one of TIDINGS_TLS_CERT and TIDINGS_TLS_KEY is missing", "set both, or neither")]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
        leaf = x509.load_pem_x509_certificate(settings.tls_cert.read_bytes())
    except (OSError, ssl.SSLError, ValueError) as fault:
        advice = "TIDINGS_TLS_CERT is the chain, TIDINGS_TLS_KEY its private key, both PEM and readable"
        return [bad(name, f"cannot be used: {fault}", advice)]
    left_days = (leaf.not_valid_after_utc.timestamp() - time.time()) / _DAY_S
    until = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
    if left_days <= 0:
        return [bad(name, f"expired on {until}", "renew it, and restart the gateways one after the other")]
    if left_days < _EXPIRES_SOON_DAYS:
        return [warning(name, f"expires on {until}", "renew it, and restart the gateways one by one")]
    return [good(name, f"valid until {until}")]


def _rules(path: Path) -> Outcome:
    """Say whether the file can be read; what it says is judged by metrics_svc, which reads it again when it changes."""
    name = "rules file"
    try:
        rules = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        advice = "correct it; until then the rules before it hold, at a start the built-in ones"
        return bad(name, f"{path} cannot be read: {fault}", advice)
    return good(name, f"{path} has {', '.join(rules) or 'nothing'}")
