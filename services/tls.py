"""TLS towards NATS and Redis, from the settings. Certificates are always verified; nothing switches that off."""

import ssl
from pathlib import Path
from typing import Any

from services.settings import Settings


def nats_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how NATS is spoken to with TLS, or None where no URL asks for it and nothing is configured.

    Raises:
        OSError: a file cannot be read.
        ssl.SSLError: a file is no certificate or key.
    """
    if not (settings.nats_ca or settings.nats_cert or "tls://" in settings.nats_url):
        return None
    context = ssl.create_default_context(cafile=_text(settings.nats_ca))
    if settings.nats_cert is not None:
        context.load_cert_chain(settings.nats_cert, settings.nats_key)
    return context


def redis_options(settings: Settings) -> dict[str, Any]:
    """Return what redis-py needs beside a `rediss://` URL; nothing for `redis://`."""
    server, _, _ = settings.redis_url.partition("://")[0].partition("+")  # rediss+cluster, rediss+sentinel
    if server not in ("rediss", "valkeys"):
        return {}
    files = {
        "ssl_ca_certs": settings.redis_ca,
        "ssl_certfile": settings.redis_cert,
        "ssl_keyfile": settings.redis_key,
    }
    return {name: str(path) for name, path in files.items() if path is not None}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
