"""A member of rooms: writes down what it receives, and resumes from where it stood after each loss."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from services.wire.records import Position
from tidings_cli.verify.client import Client, retry_delay_s
from tidings_cli.verify.gateways import Gateways
from tidings_cli.verify.history import Joined, Joining, Received, Recorder, Refused

_JOIN = "join:"


class NotDurable(Exception):
    """The rooms are ephemeral: there is nothing to prove."""


def id_of(message: dict[str, Any]) -> str:
    """Return the id that a publisher put into a message's content, or what stands there instead."""
    content = message.get("content")
    return str(content["id"]) if isinstance(content, dict) and "id" in content else f"foreign:{content!r:.40}"


def position_of(joined: dict[str, Any]) -> Position:
    """Return where a `joined_room` says that its room stands.

    Raises:
        NotDurable: nowhere.
    """
    if "epoch" not in joined:
        raise NotDurable(f"room {joined['room']} is ephemeral: choose a durable namespace")
    return Position(joined["epoch"], joined["seq"])


def note_join(recorder: Recorder, joined: Joined, missed: Iterable[dict[str, Any]]) -> None:
    """Write down that a room was joined, and the messages that came with it because they had been missed."""
    recorder.add(joined)
    for message in missed:
        recorder.add(
            Received(
                who=joined.who,
                room=joined.room,
                id=id_of(message),
                epoch=joined.epoch,
                seq=message["seq"],
                via="missed",
            )
        )


class Member(Client):
    """Joins rooms and stays."""

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, place: int
    ) -> None:
        super().__init__(who, gateways, recorder, place)
        self.rooms = tuple(rooms)
        self.positions: dict[str, Position] = {}
        self.present: set[str] = set()
        self._retries: set[asyncio.TimerHandle] = set()

    def on_connected(self) -> None:
        """Join every room, from where it was left."""
        for room in self.rooms:
            self._join(room)

    def on_lost(self) -> None:
        """Remember positions alone."""
        self.present.clear()
        for timer in self._retries:
            timer.cancel()
        self._retries.clear()

    def _join(self, room: str) -> None:
        since = self.positions.get(room)
        self._record.add(Joining(who=self.who, room=room, since=since))
        request: dict[str, Any] = {"type": "join_room", "room": room, "id": _JOIN + room}
        if since is not None:
            request["since"] = {"epoch": since.epoch, "seq": since.seq}
        self.send(request)

    def on_message(self, message: dict[str, Any]) -> None:
        """Write down what concerns the rooms."""
        match message["type"]:
            case "room_message":
                self._receive(message, "live")
            case "joined_room":
                self._on_joined(message)
            case "error" if str(message.get("id", "")).startswith(_JOIN):
                self._on_refused(message)
            case _:
                return  # presence and answers to nothing we asked

    def _receive(self, message: dict[str, Any], via: Any) -> None:
        room, seq = message["room"], message["seq"]
        stood_at = self.positions.get(room)
        epoch = stood_at.epoch if stood_at else ""
        self._record.add(Received(who=self.who, room=room, id=id_of(message), epoch=epoch, seq=seq, via=via))
        if stood_at is None or seq > stood_at.seq:
            self.positions[room] = Position(epoch, seq)

    def _on_joined(self, message: dict[str, Any]) -> None:
        room = message["room"]
        before = self.positions.get(room)
        # Asked with a position, or told by the gateway that the room began anew.
        since = before if "recovered" in message or "id" in message else None
        now = position_of(message)
        recovered = message.get("recovered")
        joined = Joined(
            who=self.who, room=room, epoch=now.epoch, seq=now.seq, since=since, recovered=recovered
        )
        note_join(self._record, joined, message.get("missed", ()))
        self.positions[room] = now
        self.present.add(room)

    def _on_refused(self, error: dict[str, Any]) -> None:
        room = str(error["id"]).removeprefix(_JOIN)
        self._record.add(Refused(who=self.who, room=room, code=error["code"], retryable=error["retryable"]))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(retry_delay_s(error), self._join, room)
        self._retries.add(timer)
