"""`tidings streams`: the streams in NATS against the settings, and the only way to shrink one.

Gateways create and enlarge streams. Only this command deletes messages or copies.
"""

from collections.abc import Callable
from typing import Any

from services.bus.client import Bus
from services.bus.specs import StreamSpec, changes, disk_specs
from services.settings import Settings
from tidings_cli.backup import StreamAnswer, ask, connected

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
    async with connected(
        settings, "streams", "the streams cannot be compared (`tidings check` says more)"
    ) as bus:
        matches = [await _one(bus, spec, say, apply, allow_shrink) for spec in disk_specs(settings)]
    return all(matches)


async def _one(
    bus: Bus, spec: StreamSpec, say: Callable[[str], None], apply: bool, allow_shrink: bool
) -> bool:
    info = await ask(bus, f"STREAM.INFO.{spec.name}")
    if not info.exists:
        say(f"{spec.name}: does not exist yet; the first gateway creates it")
        return True
    info.require(f"stream {spec.name}")
    needed = changes(info.config, spec, info.state.get("bytes", 0))
    update, lowered = dict(needed.update), needed.lowered
    if not update and not lowered:
        say(f"{spec.name}: as the settings say, {_held(info)}")
        return True
    for name, wanted in update.items():
        say(f"{spec.name}: {name} {_shown(name, info.config.get(name))} -> {_shown(name, wanted)}")
    for name, (found, wanted) in lowered.items():
        note = "" if allow_shrink else " (deletes what exceeds it: --allow-shrink)"
        say(f"{spec.name}: {name} {_shown(name, found)} -> {_shown(name, wanted)}{note}")
    if not apply:
        return False
    if allow_shrink:
        update |= {name: wanted for name, (_, wanted) in lowered.items()}
    if update:
        changed = await ask(bus, f"STREAM.UPDATE.{spec.name}", info.config | update)
        say(f"{spec.name}: changed, {_held(changed.require(f'stream {spec.name} cannot be changed'))}")
    return allow_shrink or not lowered


def _held(stream: StreamAnswer) -> str:
    return f"{stream.state.get('messages', 0)} messages, {stream.state.get('bytes', 0)} bytes"


def _shown(name: str, value: Any) -> str:
    return f"{value / _NS:g} s" if name in _TIMES and isinstance(value, int) else str(value)
