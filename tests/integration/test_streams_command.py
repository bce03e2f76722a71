"""`tidings streams`: shows differences, and shrinks nothing without the option."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.bus.client import Bus
from services.settings import Settings
from services.settings_values import Namespace
from tests.support.bus import room_log, store
from tidings_cli import CommandFailed
from tidings_cli.local.processes import free_port
from tidings_cli.streams import compare


async def test_limits_are_lowered_by_an_explicit_act_alone(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    small = {"default": Namespace(history_size=5, history_ttl_s=60, max_bytes=1_048_576)}
    settings = make_settings(namespaces=small)
    bus = await Bus.connect(settings, "test")
    log = room_log(bus, settings, max_bytes=2_097_152)  # a hundred messages, for ten minutes
    await log.open()
    for number in range(20):
        await store(log, settings.subjects.room_in("default", "a"), b"%d" % number)

    async def kept() -> int:
        return len((await log.read_from(settings.subjects.room_in("default", "a"), 1, 100)).messages)

    said: list[str] = []
    name = log.spec.name
    assert not await compare(settings, said.append)
    assert f"{name}: max_msgs_per_subject 100 -> 5 (deletes what exceeds it: --allow-shrink)" in said
    assert f"{name}: max_age 600 s -> 60 s (deletes what exceeds it: --allow-shrink)" in said
    assert any("does not exist yet" in line for line in said)
    assert not await compare(settings, said.append, apply=True)
    assert await kept() == 20

    said.clear()
    assert await compare(settings, said.append, apply=True, allow_shrink=True)
    assert f"{name}: max_bytes 2097152 -> 1048576" in said
    assert any(line.startswith(f"{name}: changed, 5 messages") for line in said)
    assert await kept() == 5
    said.clear()
    assert await compare(settings, said.append)
    assert any(line.startswith(f"{name}: as the settings say") for line in said)
    await bus.close()


async def test_unreachable_servers_are_reported() -> None:
    away = Settings(nats_url=f"nats://127.0.0.1:{free_port()}", bus_connect_s=0.3)
    with pytest.raises(CommandFailed, match="tidings check"):
        await compare(away, lambda _: None)
