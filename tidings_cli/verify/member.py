"""A member over a WebSocket: records what it receives, and resumes from its positions after each loss."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from services.wire.records import Position
from tidings_cli.verify.client import SocketClient, retry_delay_s
from tidings_cli.verify.gateways import Gateways
from tidings_cli.verify.history import JoinedRecord, JoiningRecord, ReceivedRecord, Recorder, RefusedRecord

_JOIN = "join:"


class NotDurable(Exception):
    """The rooms are ephemeral: nothing can be proved."""


def id_of(message: dict[str, Any]) -> str:
    """Return the publisher's id from a message's content; of a foreign message, a part of its content."""
    content = message.get("content")
    return str(content["id"]) if isinstance(content, dict) and "id" in content else f"foreign:{content!r:.40}"


def position_of(joined: dict[str, Any]) -> Position:
    """Return the room's position in a `joined_room`.

    Raises:
        NotDurable: there is none.
    """
    if "epoch" not in joined:
        raise NotDurable(f"room {joined['room']} is ephemeral: choose a durable namespace")
    return Position(joined["epoch"], joined["seq"])


def record_join(recorder: Recorder, joined: JoinedRecord, missed: Iterable[dict[str, Any]]) -> None:
    """Record a join, and the missed messages that came with it."""
    recorder.add(joined)
    for message in missed:
        recorder.add(
            ReceivedRecord(
                who=joined.who,
                room=joined.room,
                id=id_of(message),
                epoch=joined.epoch,
                seq=message["seq"],
                via="missed",
            )
        )


class SocketMember(SocketClient):
    """Joins rooms, and joins them again on each connection."""

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, index: int
    ) -> None:
        super().__init__(who, gateways, recorder, index)
        self.rooms = tuple(rooms)
        self.positions: dict[str, Position] = {}
        self.present: set[str] = set()
        self._retries: set[asyncio.TimerHandle] = set()

    def on_connected(self) -> None:
        """Join every room, from its last position."""
        for room in self.rooms:
            self._join(room)

    def on_lost(self) -> None:
        """Keep only positions."""
        self.present.clear()
        for timer in self._retries:
            timer.cancel()
        self._retries.clear()

    def _join(self, room: str) -> None:
        since = self.positions.get(room)
        self._record.add(JoiningRecord(who=self.who, room=room, since=since))
        request: dict[str, Any] = {"type": "join_room", "room": room, "id": _JOIN + room}
        if since is not None:
            request["since"] = {"epoch": since.epoch, "seq": since.seq}
        self.send(request)

    def on_message(self, message: dict[str, Any]) -> None:
        """Record what concerns the rooms."""
        match message["type"]:
            case "room_message":
                self._receive(message, "live")
            case "joined_room":
                self._on_joined(message)
            case "error" if str(message.get("id", "")).startswith(_JOIN):
                self._on_refused(message)
            case _:
                return  # presence, answers without our ids

    def _receive(self, message: dict[str, Any], via: Any) -> None:
        room, seq = message["room"], message["seq"]
        position = self.positions.get(room)
        epoch = position.epoch if position else ""
        self._record.add(
            ReceivedRecord(who=self.who, room=room, id=id_of(message), epoch=epoch, seq=seq, via=via)
        )
        if position is None or seq > position.seq:
            self.positions[room] = Position(epoch, seq)

    def _on_joined(self, message: dict[str, Any]) -> None:
        room = message["room"]
        before = self.positions.get(room)
        # Without either, the gateway restarted the room in a new epoch by itself.
        since = before if "recovered" in message or "id" in message else None
        now = position_of(message)
        recovered = message.get("recovered")
        joined = JoinedRecord(
            who=self.who, room=room, epoch=now.epoch, seq=now.seq, since=since, recovered=recovered
        )
        record_join(self._record, joined, message.get("missed", ()))
        self.positions[room] = now
        self.present.add(room)

    def _on_refused(self, error: dict[str, Any]) -> None:
        room = str(error["id"]).removeprefix(_JOIN)
        self._record.add(
            RefusedRecord(who=self.who, room=room, code=error["code"], retryable=error["retryable"])
        )
        loop = asyncio.get_running_loop()
        timer = loop.call_later(retry_delay_s(error), self._join, room)
        self._retries.add(timer)
