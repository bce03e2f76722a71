"""Send our lines and those of libraries through the same processors to standard error.

structlog passes its lines to stdlib logging, so one handler renders everything; libraries' records run through the
same chain first.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import Processor

from services import telemetry
from services.logs.redaction import redact
from services.logs.shipper import LogShipper
from services.settings import Settings
from services.telemetry import MetricName

_LEVELS = logging.getLevelNamesMapping()
# They announce each request with its URL, which may carry a ticket, or say what our own lines say already.
_TALKATIVE = ("httpx", "httpcore", "uvicorn")
_LEADING = ("timestamp", "level", "service", "instance", "logger", "event")


def _count(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: count lines by level."""
    telemetry.counter(MetricName.LOG_LINES).labels(line["level"]).inc()
    return line


def _to_json(line: Any, **_: Any) -> str:
    """Render a line, what every line has first."""
    leading = {key: line[key] for key in _LEADING if key in line}
    return msgspec.json.encode(leading | line, enc_hook=str).decode()


def configure_logging(
    settings: Settings, service: str, instance: str, stream: TextIO | None = None
) -> LogShipper:
    """Configure structlog and stdlib logging for this process, replacing what was configured before.

    Args:
        settings: `log_level` and `log_format` count.
        service: gateway, presence, metrics or agent.
        instance: the name of this process.
        stream: standard error unless given.

    Returns:
        The shipper that keeps lines until it is given a bus.
    """
    stream = stream or sys.stderr
    level = _LEVELS[settings.log_level.upper()]
    on_terminal = stream.isatty()
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not on_terminal)
    shipper = LogShipper(instance, service)
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S.%f", utc=as_json),
        structlog.processors.format_exc_info,
        redact,
        _count,
    ]
    if as_json:  # on a terminal there is one process, or the supervisor's prefix says which
        chain.append(lambda _logger, _method, line: {**line, "service": service, "instance": instance})
    chain.append(shipper.collect)
    renderer: Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=on_terminal, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return shipper
