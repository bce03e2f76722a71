"""A publisher: sends one message after the other, and repeats each with its id until it has an answer."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

from tidings_cli.verify.client import SocketClient, retry_delay_s
from tidings_cli.verify.gateways import Gateways
from tidings_cli.verify.history import AcknowledgedRecord, PublishedRecord, Recorder, RefusedRecord

_JOIN = "join:"
# Within this time an equal id is stored once by default; a retry after it might be stored again.
_GIVE_UP_S = 100.0
# The server answers within 10 s. A client that waits longer reconnects, so that the record can go on.
_ANSWER_S = 30.0


class PublishingClient(SocketClient):
    """Publishes to random rooms, one message at a time, so that its own order is known."""

    def __init__(
        self,
        who: str,
        rooms: Sequence[str],
        gateways: Gateways,
        recorder: Recorder,
        index: int,
        rate: float,
    ) -> None:
        super().__init__(who, gateways, recorder, index)
        self.rooms = tuple(rooms)
        self._interval_s = 1 / rate
        self._ready = asyncio.Event()
        self._joined: set[str] = set()
        self._answers: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        self._finishing = asyncio.Event()

    async def publish(self) -> None:
        """Publish until `finish`; the last message gets its answer."""
        for number in itertools.count(1):
            if self._finishing.is_set():
                return
            await self._publish_one(random.choice(self.rooms), f"{self.who}-{number}")
            try:
                async with asyncio.timeout(random.uniform(0, 2 * self._interval_s)):
                    await self._finishing.wait()
            except TimeoutError:
                continue

    def finish(self) -> None:
        """Start no further message."""
        self._finishing.set()

    async def _publish_one(self, room: str, id: str) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _GIVE_UP_S
        user_id = ""
        for attempt in itertools.count(1):
            if not await self._until_ready(give_up_at):
                return
            if user_id and user_id != self.user_id:
                return  # ids are unique per user: under another user a retry would be another message
            user_id = self.user_id
            self._record.add(PublishedRecord(who=self.who, room=room, id=id, attempt=attempt))
            answer = await self._request(
                {"type": "room_message", "room": room, "content": {"id": id}, "id": id}, id
            )
            if answer is None:
                continue
            if answer["type"] == "ack":
                self._record.add(
                    AcknowledgedRecord(
                        who=self.who, room=room, id=id, epoch=answer["epoch"], seq=answer["seq"]
                    )
                )
                return
            self._record.add(
                RefusedRecord(
                    who=self.who, room=room, id=id, code=answer["code"], retryable=answer["retryable"]
                )
            )
            if not answer["retryable"]:
                return
            await asyncio.sleep(retry_delay_s(answer))

    async def _until_ready(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def _request(self, request: dict[str, Any], id: str) -> dict[str, Any] | None:
        """Send, and return the answer; None if the connection ended first."""
        answer: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._answers[id] = answer
        self.send(request)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await answer
        except TimeoutError:
            if self._connection is not None:
                await self._connection.close()
            return None
        finally:
            self._answers.pop(id, None)

    def on_connected(self) -> None:
        """Join: only members may publish."""
        for room in self.rooms:
            self.send({"type": "join_room", "room": room, "id": _JOIN + room})

    def on_message(self, message: dict[str, Any]) -> None:
        """Handle answers; members record the rooms' messages."""
        id = str(message.get("id", ""))
        if id.startswith(_JOIN):
            self._on_join_answered(message, id.removeprefix(_JOIN))
        elif (answer := self._answers.get(id)) is not None and not answer.done():
            answer.set_result(message)

    def _on_join_answered(self, message: dict[str, Any], room: str) -> None:
        if message["type"] == "joined_room":
            self._joined.add(room)
            if self._joined.issuperset(self.rooms):
                self._ready.set()
            return
        again = {"type": "join_room", "room": room, "id": _JOIN + room}
        asyncio.get_running_loop().call_later(retry_delay_s(message), self.send, again)

    def on_lost(self) -> None:
        """End the waits for answers that will not come."""
        self._ready.clear()
        self._joined.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)
