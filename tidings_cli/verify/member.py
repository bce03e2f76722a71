"""A member over a WebSocket: records what it receives, and resumes from its positions after each loss."""

from collections.abc import Iterable
from typing import Any, Literal

from services.wire.records import Position
from tidings_cli import CommandFailed
from tidings_cli.verify.client import VerifyClient
from tidings_cli.verify.history import JoinedRecord, JoiningRecord, ReceivedRecord, RefusedRecord


class NotDurable(CommandFailed):
    """The rooms are ephemeral: nothing can be proved."""


class SocketMember(VerifyClient):
    """Joins rooms, and joins them again on each connection."""

    def join(self, room: str) -> None:
        self._record.add(JoiningRecord(who=self.who, room=room, since=self.positions.get(room)))
        super().join(room)

    def on_join_refused(self, room: str, error: dict[str, Any]) -> None:
        self._record.add(
            RefusedRecord(who=self.who, room=room, code=error["code"], retryable=error["retryable"])
        )
        super().on_join_refused(room, error)

    def on_message(self, message: dict[str, Any]) -> None:
        """Record what concerns the rooms: not presence, nor answers without our ids."""
        match message["type"]:
            case "room_message":
                self._on_received(message, "live")
            case "joined_room":
                self._on_joined(message, message.get("missed", ()))
            case _:
                return

    def _on_received(self, message: dict[str, Any], via: Literal["live", "missed"]) -> None:
        room, seq, content = message["room"], message["seq"], message.get("content")
        id = (
            str(content["id"])
            if isinstance(content, dict) and "id" in content
            else f"foreign:{content!r:.40}"
        )
        position = self.positions.get(room, Position("", 0))
        self._record.add(
            ReceivedRecord(who=self.who, room=room, id=id, epoch=position.epoch, seq=seq, via=via)
        )
        if seq > position.seq:
            self.positions[room] = Position(position.epoch, seq)

    def _on_joined(self, message: dict[str, Any], missed: Iterable[dict[str, Any]]) -> None:
        """Record a join, also one without a request: the room started a new epoch.

        Raises:
            NotDurable: the room has no position.
        """
        room = message["room"]
        if "epoch" not in message:
            raise NotDurable(f"room {room} is ephemeral: choose a durable namespace")
        since, now = self.positions.get(room), Position(message["epoch"], message["seq"])
        recovered = message.get("recovered")
        self._record.add(
            JoinedRecord(
                who=self.who, room=room, epoch=now.epoch, seq=now.seq, since=since, recovered=recovered
            )
        )
        self.positions[room] = now
        for each in missed:
            self._on_received(each, "missed")
        self.present.add(room)
