"""What an attempt to connect to NATS needs, and why it fails: address, TLS, the server's version. A pure leaf."""

import re
import ssl

from nats import errors

from services.bus.errors import Misconfigured, Unavailable
from services.servers import NATS_MINIMUM, NatsAddress, parse_nats_url, parse_version, spell_version
from services.settings import Settings

_CREDENTIALS_REFUSED = re.compile(r"authorization violation|authentication", re.IGNORECASE)


def nats_address(settings: Settings) -> NatsAddress:
    """Return the address in `nats_url`. Raises Misconfigured."""
    try:
        return parse_nats_url(settings.nats_url)
    except ValueError as fault:
        raise Misconfigured(f"TIDINGS_NATS_URL {fault}") from None


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS options, or None without a `tls://` URL and TLS settings. Certificates are always verified.

    Raises:
        Misconfigured: a file cannot be read, or is no certificate or key.
    """
    if not (settings.nats_ca or settings.nats_cert or "tls://" in settings.nats_url):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca)
        if settings.nats_cert is not None:
            context.load_cert_chain(settings.nats_cert, settings.nats_key)
    except (OSError, ssl.SSLError) as fault:
        raise Misconfigured(f"TIDINGS_NATS_CA, TIDINGS_NATS_CERT or TIDINGS_NATS_KEY: {fault}") from fault
    return context


def check_version(version: str) -> None:
    """Raise Misconfigured if the server is too old."""
    found = parse_version(version)
    if found < NATS_MINIMUM:
        raise Misconfigured(
            f"NATS server {spell_version(found)} is too old: {spell_version(NATS_MINIMUM)} or newer is needed"
        )


def explain_failure(error: Exception, address: NatsAddress) -> Misconfigured | Unavailable:
    """Return why an attempt to connect failed: what to change, or that the server cannot be reached."""
    text = str(error) or type(error).__name__
    if isinstance(error, errors.AuthorizationError) or _CREDENTIALS_REFUSED.search(text):
        return Misconfigured(f"NATS at {address.shown} refuses the credentials in TIDINGS_NATS_URL")
    if isinstance(error, errors.SecureConnRequiredError):
        return Misconfigured(f"NATS at {address.shown} does not offer TLS, which the tls:// URL asks for")
    if isinstance(error, ssl.SSLError):
        return Misconfigured(f"TLS with NATS at {address.shown} fails: {text}")
    return Unavailable(f"NATS at {address.shown} cannot be reached: {text}")
