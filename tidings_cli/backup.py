"""`tidings backup` and `tidings restore`: the streams in NATS, as files.

Each stream becomes a folder with `backup.json` (its configuration and state) and `stream.tar.s2` (its messages, as the
server packs them), by JetStream's own snapshots. A restored stream begins a new epoch: what was stored after the
backup is gone, its sequences will be used again, and a client must not take the new messages for those it has.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer
from services.bus.jsapi import STREAM_NOT_FOUND, JetStreamError
from services.bus.message import BusMessage
from services.bus.specs import disk_specs
from services.bus.streams import EPOCH_KEY
from services.settings import Settings

_ASK_S = 10.0
_SILENCE_S = 30.0  # a server that packs a large stream says nothing for a while
_CHUNK_BYTES = 128 * 1024
_FIRST_FAULT = 400
_META = "backup.json"
_DATA = "stream.tar.s2"


class CannotBackUp(RuntimeError):
    """It does not work, and the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one stream. `size` is that of the file, in bytes."""

    stream: str
    messages: int
    size: int


class _Begun(msgspec.Struct):
    """Answer to STREAM.SNAPSHOT and STREAM.RESTORE."""

    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    deliver_subject: str = ""
    error: JetStreamError | None = None


class _Meta(msgspec.Struct):
    """`backup.json`. The configuration stays raw: what a newer server has in it is kept.

    `size` in bytes and `sha256` in hex are those of the file beside it.
    """

    config: dict[str, Any]
    state: dict[str, Any]
    size: int
    sha256: str


def streams_of(settings: Settings) -> list[str]:
    """Return the streams whose content outlives a restart: not the tickets, which live for seconds in memory."""
    return [spec.name for spec in disk_specs(settings)]


async def back_up(settings: Settings, folder: Path) -> list[Copied]:
    """Write every stream that there is into `folder`; gateways may go on meanwhile.

    Raises:
        CannotBackUp: a server does not answer, refuses, or breaks off; or the folder has a backup already.
    """
    _require_empty(folder)
    bus = await _connected(settings)
    try:
        copied = [await _snapshot(bus, name, folder / name) for name in streams_of(settings)]
    except (BusError, OSError, msgspec.DecodeError) as fault:
        raise CannotBackUp(f"the backup is not whole: {fault}") from fault
    finally:
        await bus.close()
    found = [one for one in copied if one is not None]
    if not found:
        raise CannotBackUp("there is no stream yet: the first gateway makes them")
    return found


async def restore(settings: Settings, folder: Path, *, replace: bool) -> list[Copied]:
    """Make the streams of a backup again. `replace` deletes those that are there. No gateway may run meanwhile.

    The whole backup is read before anything is deleted.

    Raises:
        CannotBackUp: the backup is damaged, a stream is there and may not be replaced, gateways run (or it cannot be
            known), or a server refuses.
    """
    names = [name for name in streams_of(settings) if (folder / name / _META).is_file()]
    if not names:
        raise CannotBackUp(
            f"{folder} has no stream of the prefix {settings.prefix!r}: is TIDINGS_PREFIX the same?"
        )
    for name in names:
        _verify(folder / name)
    bus = await _connected(settings)
    try:
        await _require_no_gateway(bus)
        await _make_room(bus, names, replace=replace)
        return [await _restored(bus, name, folder / name) for name in names]
    except (BusError, OSError, msgspec.DecodeError, msgspec.ValidationError) as fault:
        raise CannotBackUp(f"the restore is not whole; run it again with --replace: {fault}") from fault
    finally:
        await bus.close()


def _require_empty(folder: Path) -> None:
    """Make the folder; what people said to each other is in it, so nobody else may read it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken = any(folder.iterdir())
    except OSError as fault:
        raise CannotBackUp(f"{folder}: {fault.strerror}") from fault
    if taken:
        raise CannotBackUp(f"{folder} is not empty: give a new folder")


async def _connected(settings: Settings) -> Bus:
    try:
        return await Bus.connect(settings, "backup")
    except BusError as fault:
        raise CannotBackUp(f"{fault} (`tidings check` says more)") from fault


# --- out ----------------------------------------------------------------------------------------------------------


async def _snapshot(bus: Bus, stream: str, folder: Path) -> Copied | None:
    """Write one stream; None where there is none (a cluster does not answer a snapshot of such a stream at all)."""
    there = await _ask(bus, f"$JS.API.STREAM.INFO.{stream}", b"")
    if there.error is not None and there.error.err_code == STREAM_NOT_FOUND:
        return None
    chunks: asyncio.Queue[BusMessage] = asyncio.Queue()
    inbox = f"{bus.inbox_prefix}.backup.{secrets.token_hex(8)}"
    subscription = bus.subscribe(inbox, chunks.put_nowait)
    try:
        asked = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": _CHUNK_BYTES}
        begun = await _ask(bus, f"$JS.API.STREAM.SNAPSHOT.{stream}", msgspec.json.encode(asked))
        if begun.error is not None:
            raise CannotBackUp(f"stream {stream}: {begun.error.description}")
        size, digest = await _written(bus, chunks, folder / _DATA)
        # Last: a folder without it is no backup.
        (folder / _META).write_bytes(msgspec.json.encode(_Meta(begun.config, begun.state, size, digest)))
        return Copied(stream, int(begun.state.get("messages", 0)), size)
    finally:
        subscription.close()


async def _written(bus: Bus, chunks: "asyncio.Queue[BusMessage]", path: Path) -> tuple[int, str]:
    """Write a stream's messages; return how many bytes they are, and their SHA-256 in hex."""
    size, digest = 0, hashlib.sha256()
    path.parent.mkdir(mode=0o700)  # nothing else runs in this process
    with path.open("wb") as file:
        while True:
            try:
                chunk = await asyncio.wait_for(chunks.get(), _SILENCE_S)
            except TimeoutError:
                raise CannotBackUp(f"the server went silent after {size} bytes") from None
            if not chunk.data:
                if chunk.status >= _FIRST_FAULT:
                    raise CannotBackUp(f"the server broke off: {chunk.description}")
                return size, digest.hexdigest()
            file.write(chunk.data)
            digest.update(chunk.data)
            size += len(chunk.data)
            if chunk.reply:  # the server sends no more than a window ahead
                bus.publish(chunk.reply, b"")


# --- in -----------------------------------------------------------------------------------------------------------


def _verify(folder: Path) -> None:
    """Read one stream of the backup through, and compare it with what was written."""
    try:
        meta = msgspec.json.decode((folder / _META).read_bytes(), type=_Meta)
        with (folder / _DATA).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (OSError, msgspec.DecodeError) as fault:
        raise CannotBackUp(f"{folder} cannot be read, and nothing was changed: {fault}") from fault
    if (size, digest) != (meta.size, meta.sha256):
        raise CannotBackUp(
            f"{folder / _DATA} is not what was backed up ({size} bytes of {meta.size}); nothing was changed"
        )


async def _require_no_gateway(bus: Bus) -> None:
    """Refuse while gateways run: they would make the streams anew between our steps, and know the old epoch.

    That NATS knows of no responder is the only proof that none runs: a frozen gateway does not answer either.
    """
    try:
        answers = await bus.request_many("$SRV.PING.tidings-gateway", b"", timeout_s=0.5)
    except NoAnswer:
        return
    running = f"{len(answers)} gateway(s) run" if answers else "a gateway is there, and does not answer"
    raise CannotBackUp(f"{running}: stop them, and start them after the restore")


async def _make_room(bus: Bus, names: list[str], *, replace: bool) -> None:
    there = [name for name in names if (await _ask(bus, f"$JS.API.STREAM.INFO.{name}", b"")).error is None]
    if there and not replace:
        raise CannotBackUp(f"{', '.join(there)} is there already: with --replace it is deleted first")
    for name in there:
        gone = await _ask(bus, f"$JS.API.STREAM.DELETE.{name}", b"")
        if gone.error is not None:
            raise CannotBackUp(f"stream {name} cannot be deleted: {gone.error.description}")


async def _restored(bus: Bus, stream: str, folder: Path) -> Copied:
    meta = msgspec.json.decode((folder / _META).read_bytes(), type=_Meta)
    # What was known of the old epoch must not be taken for this one.
    metadata = {**meta.config.get("metadata", {}), EPOCH_KEY: secrets.token_hex(8)}
    asked = {"config": {**meta.config, "metadata": metadata}, "state": meta.state}
    begun = await _ask(bus, f"$JS.API.STREAM.RESTORE.{stream}", msgspec.json.encode(asked))
    if begun.error is not None:
        raise CannotBackUp(f"stream {stream} cannot be restored: {begun.error.description}")
    size = 0
    with (folder / _DATA).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            _raise_if_refused(stream, await bus.request(begun.deliver_subject, chunk, timeout_s=_SILENCE_S))
            size += len(chunk)
    last = await bus.request(begun.deliver_subject, b"", timeout_s=_SILENCE_S)
    _raise_if_refused(stream, last)
    state = msgspec.json.decode(last.data, type=_Begun).state
    return Copied(stream, int(state.get("messages", 0)), size)


def _raise_if_refused(stream: str, answer: BusMessage) -> None:
    if answer.data:
        error = msgspec.json.decode(answer.data, type=_Begun).error
        if error is not None:
            raise CannotBackUp(f"stream {stream} cannot be restored: {error.description}")


async def _ask(bus: Bus, subject: str, payload: bytes) -> _Begun:
    answer = await bus.request(subject, payload, timeout_s=_ASK_S)
    return msgspec.json.decode(answer.data, type=_Begun)


def report(copied: list[Copied], say: Callable[[str], None]) -> None:
    """Say what became of each stream."""
    for one in copied:
        say(f"{one.stream}: {one.messages} messages, {one.size} bytes")
