"""`tidings backup` and `tidings restore`: the streams in NATS, as files.

Each stream becomes a folder with `backup.json` (its configuration and state) and `stream.tar.s2` (its messages, in the
server's format), by JetStream's own snapshots. A restored stream starts a new epoch: messages stored after the backup are
gone, their sequences will be used again, and a client must not confuse the new messages with those it has.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer
from services.bus.jsapi import STREAM_NOT_FOUND, JetStreamError, decode_answer
from services.bus.message import BusMessage
from services.bus.specs import disk_specs
from services.bus.streams import EPOCH_KEY
from services.settings import Settings
from tidings_cli import CommandFailed

_ASK_S = 10.0
_SILENCE_S = 30.0  # a server that packs a large stream is silent for a while
_CHUNK_BYTES = 128 * 1024
_FIRST_FAULT = 400
_META = "backup.json"
_DATA = "stream.tar.s2"


class StreamAnswer(msgspec.Struct):
    """Answer of the JetStream API about a stream. Configuration and state stay raw: servers have more than we know."""

    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    deliver_subject: str = ""
    error: JetStreamError | None = None

    @property
    def exists(self) -> bool:
        return self.error is None or self.error.err_code != STREAM_NOT_FOUND

    def require(self, what: str) -> Self:
        """Return the answer. Raises CommandFailed for an error: `what` went wrong."""
        if self.error is not None:
            raise CommandFailed(f"{what}: {self.error.description}")
        return self


class _Meta(msgspec.Struct):
    """`backup.json`. `size` in bytes and `sha256` in hex are those of the file beside it."""

    config: dict[str, Any]
    state: dict[str, Any]
    size: int
    sha256: str


async def back_up(settings: Settings, folder: Path) -> list[str]:
    """Write every existing stream into `folder`; return a line for each. Gateways may run meanwhile.

    Raises:
        CommandFailed: a server does not answer, refuses, or breaks off; or the folder already has a backup.
    """
    _require_empty(folder)
    async with connected(settings, "backup", "the backup is incomplete") as bus:
        copied = [await _snapshot(bus, spec.name, folder / spec.name) for spec in disk_specs(settings)]
    found = [one for one in copied if one is not None]
    if not found:
        raise CommandFailed("there is no stream yet: the first gateway creates them")
    return found


async def restore(settings: Settings, folder: Path, *, replace: bool) -> list[str]:
    """Restore the streams of a backup; return a line for each. `replace` deletes existing ones. No gateway may run.

    The whole backup is read before anything is deleted.

    Raises:
        CommandFailed: the backup is damaged, a stream exists and may not be replaced, gateways run (or their absence
            is not proved), or a server refuses.
    """
    names = [spec.name for spec in disk_specs(settings) if (folder / spec.name / _META).is_file()]
    if not names:
        raise CommandFailed(
            f"{folder} has no stream of the prefix {settings.prefix!r}: is TIDINGS_PREFIX the same?"
        )
    for name in names:
        _verify(folder / name)
    async with connected(settings, "backup", "the restore is incomplete; run it again with --replace") as bus:
        await _require_no_gateway(bus)
        await _delete_existing(bus, names, replace=replace)
        return [await _restored(bus, name, folder / name) for name in names]


def _require_empty(folder: Path) -> None:
    """Make the folder, readable by its owner alone: it will hold messages of users."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        used = any(folder.iterdir())
    except OSError as fault:
        raise CommandFailed(f"{folder}: {fault.strerror}") from fault
    if used:
        raise CommandFailed(f"{folder} is not empty: give a new folder")


@asynccontextmanager
async def connected(settings: Settings, name: str, when_broken: str) -> AsyncIterator[Bus]:
    """Connect to NATS.

    Raises:
        CommandFailed: it cannot be reached, or a fault in the body: `when_broken` and the reason.
    """
    try:
        bus = await Bus.connect(settings, name)
    except BusError as fault:
        raise CommandFailed(f"{fault} (`tidings check` says more)") from fault
    try:
        yield bus
    except (BusError, OSError, msgspec.DecodeError) as fault:
        raise CommandFailed(f"{when_broken}: {fault}") from fault
    finally:
        await bus.close()


async def ask(bus: Bus, verb: str, request: object = None) -> StreamAnswer:
    """Send a request to the JetStream API. Raises BusError."""
    payload = b"" if request is None else msgspec.json.encode(request)
    return decode_answer((await bus.request(f"$JS.API.{verb}", payload, timeout_s=_ASK_S)).data, StreamAnswer)


def _copied(stream: str, state: dict[str, Any], size: int) -> str:
    return f"{stream}: {state.get('messages', 0)} messages, {size} bytes"


# --- out ----------------------------------------------------------------------------------------------------------


async def _snapshot(bus: Bus, stream: str, folder: Path) -> str | None:
    """Write one stream; None if it does not exist (a cluster does not answer a snapshot request for it at all)."""
    if not (await ask(bus, f"STREAM.INFO.{stream}")).exists:
        return None
    chunks: asyncio.Queue[BusMessage] = asyncio.Queue()
    inbox = f"{bus.inbox_prefix}.backup.{secrets.token_hex(8)}"
    subscription = bus.subscribe(inbox, chunks.put_nowait)
    try:
        request = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": _CHUNK_BYTES}
        answer = (await ask(bus, f"STREAM.SNAPSHOT.{stream}", request)).require(f"stream {stream}")
        size, digest = await _written(bus, chunks, folder / _DATA)
        # Last: a folder without this file is not a backup.
        (folder / _META).write_bytes(msgspec.json.encode(_Meta(answer.config, answer.state, size, digest)))
        return _copied(stream, answer.state, size)
    finally:
        subscription.close()


async def _written(bus: Bus, chunks: "asyncio.Queue[BusMessage]", path: Path) -> tuple[int, str]:
    """Write a stream's messages; return their size in bytes and their SHA-256 in hex."""
    size, digest = 0, hashlib.sha256()
    path.parent.mkdir(mode=0o700)  # nothing else runs in this process
    with path.open("wb") as file:
        while True:
            try:
                chunk = await asyncio.wait_for(chunks.get(), _SILENCE_S)
            except TimeoutError:
                raise CommandFailed(f"the server sent nothing more after {size} bytes") from None
            if not chunk.data:
                if chunk.status >= _FIRST_FAULT:
                    raise CommandFailed(f"the server stopped: {chunk.description}")
                return size, digest.hexdigest()
            file.write(chunk.data)
            digest.update(chunk.data)
            size += len(chunk.data)
            if chunk.reply:  # the server sends at most a window ahead
                bus.publish(chunk.reply, b"")


# --- in -----------------------------------------------------------------------------------------------------------


def _verify(folder: Path) -> None:
    """Read one stream of the backup, and compare it with its size and digest."""
    try:
        meta = msgspec.json.decode((folder / _META).read_bytes(), type=_Meta)
        with (folder / _DATA).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (OSError, msgspec.DecodeError) as fault:
        raise CommandFailed(f"{folder} cannot be read, and nothing was changed: {fault}") from fault
    if (size, digest) != (meta.size, meta.sha256):
        raise CommandFailed(
            f"{folder / _DATA} is not what was backed up ({size} bytes of {meta.size}); nothing was changed"
        )


async def _require_no_gateway(bus: Bus) -> None:
    """Refuse while gateways run: they would create the streams between our steps, and know the old epoch.

    Only NATS's answer "no responders" proves that none runs: a frozen gateway does not answer either.
    """
    try:
        answers = await bus.request_many("$SRV.PING.tidings-gateway", b"", timeout_s=0.5)
    except NoAnswer:
        return
    running = f"{len(answers)} gateway(s) run" if answers else "a gateway is subscribed, and does not answer"
    raise CommandFailed(f"{running}: stop them, and start them after the restore")


async def _delete_existing(bus: Bus, names: list[str], *, replace: bool) -> None:
    there = [name for name in names if (await ask(bus, f"STREAM.INFO.{name}")).error is None]
    if there and not replace:
        raise CommandFailed(f"{', '.join(there)} exists already: with --replace it is deleted first")
    for name in there:
        (await ask(bus, f"STREAM.DELETE.{name}")).require(f"stream {name} cannot be deleted")


async def _restored(bus: Bus, stream: str, folder: Path) -> str:
    meta = msgspec.json.decode((folder / _META).read_bytes(), type=_Meta)
    # Positions of the old epoch must not match the new one.
    metadata = {**meta.config.get("metadata", {}), EPOCH_KEY: secrets.token_hex(8)}
    request = {"config": {**meta.config, "metadata": metadata}, "state": meta.state}
    refused = f"stream {stream} cannot be restored"
    target = (await ask(bus, f"STREAM.RESTORE.{stream}", request)).require(refused).deliver_subject
    size = 0
    with (folder / _DATA).open("rb") as file:
        while True:  # the empty chunk ends it, and its answer has the state
            chunk = file.read(_CHUNK_BYTES)
            answer = await bus.request(target, chunk, timeout_s=_SILENCE_S)
            state = decode_answer(answer.data or b"{}", StreamAnswer).require(refused).state
            if not chunk:
                return _copied(stream, state, size)
            size += len(chunk)
