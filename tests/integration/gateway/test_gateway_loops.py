"""A gateway ends with its critical loops: otherwise it would look healthy while its users go offline."""

import secrets
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry

from gateway import __main__ as process
from gateway.metrics import MetricsReporter
from gateway.presence.batch_queue import BatchQueue
from gateway.ws.timers import Keepalive
from services.lifecycle import Lifecycle, run_main
from services.settings import Settings
from tidings_cli.local.processes import free_port
from tidings_cli.local.servers import NatsServer


def _fail(*_: object) -> NoReturn:
    raise LookupError("broken")


@pytest.mark.parametrize(
    ("part", "step"),
    [(BatchQueue, "next"), (MetricsReporter, "tick"), (Keepalive, "tick")],
    ids=["presence", "reports", "keepalive"],
)
async def test_a_loop_that_ends_ends_the_process(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, part: type, step: str
) -> None:
    monkeypatch.setattr(process, "REGISTRY", CollectorRegistry())
    monkeypatch.setattr(part, step, _fail)
    settings = Settings(
        nats_url=nats_server.url, prefix=f"loops-{secrets.token_hex(4)}", port=free_port(), drain_s=1
    )
    lifecycle = Lifecycle(10)
    assert await run_main(process.main, settings, lifecycle) == 1
