"""A publisher: sends one message after the other, and repeats each with its id until it has an answer."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tidings_cli.gateways import Gateways
from tidings_cli.verify.client import VerifyClient, retry_delay_s
from tidings_cli.verify.history import AcknowledgedRecord, PublishedRecord, Recorder, RefusedRecord

# Within this time an equal id is stored once by default; a retry after it might be stored again.
_GIVE_UP_S = 100.0
# The server answers within 10 s. A client that waits longer reconnects, so that the record can go on.
_ANSWER_S = 30.0


class PublishingClient(VerifyClient):
    """Publishes to random rooms, one message at a time, so that its own order is known.

    Its joins and the rooms' messages are for members to record: it joins because only members may publish.
    """

    def __init__(
        self, who: str, rooms: Sequence[str], gateways: Gateways, recorder: Recorder, index: int
    ) -> None:
        super().__init__(who, rooms, gateways, recorder, index)
        self._ready = asyncio.Event()
        self._answers: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        self.finishing = asyncio.Event()

    async def publish(self, rate: float) -> None:
        """Publish `rate` messages per second until `finishing` is set; the last message gets its answer."""
        for number in itertools.count(1):
            if self.finishing.is_set():
                return
            await self._publish_one(random.choice(self.rooms), f"{self.who}-{number}")
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0, 2 / rate)):
                    await self.finishing.wait()

    async def _publish_one(self, room: str, id: str) -> None:
        give_up_at = asyncio.get_running_loop().time() + _GIVE_UP_S
        user_id = ""
        for attempt in itertools.count(1):
            try:
                async with asyncio.timeout_at(give_up_at):
                    await self._ready.wait()
            except TimeoutError:
                return
            if user_id and user_id != self.user_id:
                return  # ids are unique per user: under another user a retry would be another message
            user_id = self.user_id
            self._record.add(PublishedRecord(who=self.who, room=room, id=id, attempt=attempt))
            answer = await self._request(
                {"type": "room_message", "room": room, "content": {"id": id}, "id": id}
            )
            if answer is None:
                continue
            if answer["type"] == "ack":
                epoch, seq = answer["epoch"], answer["seq"]
                self._record.add(AcknowledgedRecord(who=self.who, room=room, id=id, epoch=epoch, seq=seq))
                return
            code, retryable = answer["code"], answer["retryable"]
            self._record.add(RefusedRecord(who=self.who, room=room, id=id, code=code, retryable=retryable))
            if not retryable:
                return
            await asyncio.sleep(retry_delay_s(answer))

    async def _request(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Send, and return the answer; None if the connection ended first."""
        answer: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._answers[request["id"]] = answer
        self.send(request)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await answer
        except TimeoutError:
            if self._connection is not None:
                await self._connection.close()
            return None
        finally:
            del self._answers[request["id"]]

    def on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "joined_room":
            self.present.add(message["room"])
            if self.present.issuperset(self.rooms):
                self._ready.set()
        elif (answer := self._answers.get(message.get("id", ""))) is not None and not answer.done():
            answer.set_result(message)

    def on_lost(self) -> None:
        """End the waits for answers that will not come."""
        super().on_lost()
        self._ready.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)
