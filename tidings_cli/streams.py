"""`tidings streams`: the streams in NATS against the settings, and the only way to shrink one.

Gateways create and enlarge streams. Only this command deletes messages or copies.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError
from services.bus.jsapi import STREAM_NOT_FOUND, StreamInfo, decode_answer
from services.bus.specs import StreamSpec, changes, disk_specs
from services.settings import Settings
from tidings_cli import CommandFailed
from tidings_cli.backup import connected

_ASK_S = 10.0
_NS = 1_000_000_000
_TIMES = frozenset({"max_age", "duplicate_window"})


async def compare(
    settings: Settings, say: Callable[[str], None], *, apply: bool = False, allow_shrink: bool = False
) -> bool:
    """Print how each stream differs, and with `apply` change it; with `allow_shrink` even if that deletes messages.

    Return whether all streams then match the settings.

    Raises:
        CommandFailed: NATS is unreachable, or refuses.
    """
    async with connected(settings, "streams") as bus:
        try:
            matches = [await _one(bus, spec, say, apply, allow_shrink) for spec in disk_specs(settings)]
        except BusError as fault:
            raise CommandFailed(f"{fault} (`tidings check` says more)") from fault
    return all(matches)


async def _one(
    bus: Bus, spec: StreamSpec, say: Callable[[str], None], apply: bool, allow_shrink: bool
) -> bool:
    info = await _ask(bus, f"STREAM.INFO.{spec.name}", None)
    if info.error is not None and info.error.err_code == STREAM_NOT_FOUND:
        say(f"{spec.name}: does not exist yet; the first gateway creates it")
        return True
    if info.error is not None:
        raise CommandFailed(f"stream {spec.name}: {info.error.description}")
    needed = changes(info.config, spec, info.state.bytes)
    raised = {name: (info.config.get(name), wanted) for name, wanted in needed.update.items()}
    if not raised and not needed.lowered:
        say(f"{spec.name}: as the settings say, {info.state.messages} messages, {info.state.bytes} bytes")
        return True
    for name, (found, wanted) in raised.items():
        say(f"{spec.name}: {name} {_shown(name, found)} -> {_shown(name, wanted)}")
    for name, (found, wanted) in needed.lowered.items():
        note = "" if allow_shrink else " (deletes what exceeds it: --allow-shrink)"
        say(f"{spec.name}: {name} {_shown(name, found)} -> {_shown(name, wanted)}{note}")
    if not apply:
        return False
    update = dict(needed.update)
    if allow_shrink:
        update |= {name: wanted for name, (_, wanted) in needed.lowered.items()}
    if update:
        changed = await _ask(bus, f"STREAM.UPDATE.{spec.name}", info.config | update)
        if changed.error is not None:
            raise CommandFailed(f"stream {spec.name} cannot be changed: {changed.error.description}")
        say(f"{spec.name}: changed, {changed.state.messages} messages, {changed.state.bytes} bytes")
    return allow_shrink or not needed.lowered


def _shown(name: str, value: Any) -> str:
    return f"{value / _NS:g} s" if name in _TIMES and isinstance(value, int) else str(value)


async def _ask(bus: Bus, verb: str, config: dict[str, Any] | None) -> StreamInfo:
    payload = b"" if config is None else msgspec.json.encode(config)
    return decode_answer((await bus.request(f"$JS.API.{verb}", payload, timeout_s=_ASK_S)).data, StreamInfo)
