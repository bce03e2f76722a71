"""The gateways of the deployment, and requests to all of them.

Each gateway announces itself when it starts, regularly, and when it stops. So a request to all ends as soon as all have
answered, and an answer names those that were silent. A gateway that ended without a word is named for a while: nothing
here can distinguish it from one that cannot answer.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import structlog

from services.bus import rpc
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.wire.control import GATEWAY_ALIVE, Alive, FromGateway
from services.wire.rpc import RequestT, RpcEndpoint
from services.wire.subjects import Subjects

log = structlog.get_logger(__name__)

ReplyT = TypeVar("ReplyT", bound=FromGateway)

_EVERY_S = 10.0
_FORGET_S = 35.0

_decode_name = msgspec.json.Decoder(FromGateway).decode


@dataclass(frozen=True, slots=True)
class Answers(Generic[ReplyT]):
    """What the gateways answered, and the names of those that did not."""

    replies: list[ReplyT]
    silent: list[str]


class Peers:
    """All gateways, this one included."""

    def __init__(self, bus: Bus, subjects: Subjects, instance: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._instance = instance
        self._seen: dict[str, float] = {}  # by name: when, in seconds of a monotonic clock
        self._complete = False  # announced, and answered, since the bus is there
        self._announce_now = asyncio.Event()

    @property
    def names(self) -> set[str]:
        """The gateways that should answer."""
        oldest = time.monotonic() - _FORGET_S
        self._seen = {name: at for name, at in self._seen.items() if at >= oldest}
        return {*self._seen, self._instance}

    async def ask(
        self, endpoint: RpcEndpoint[RequestT, ReplyT], request: RequestT, only: str = ""
    ) -> Answers[ReplyT]:
        """Ask all gateways, or expect an answer of `only` one. Raises as `Bus.request`, but NoAnswer."""
        expected = {only} if only else self.names
        left = set(expected)

        def until(message: BusMessage) -> bool:
            left.discard(_name_in(message))
            return not left

        replies = await rpc.call_all(
            self._bus, self._subjects, endpoint, request, until=until if only or self._complete else None
        )
        now = time.monotonic()
        self._seen.update((reply.gateway, now) for reply in replies)
        return Answers(replies, sorted(expected - {reply.gateway for reply in replies}))

    async def announce(self) -> None:
        """Announce this gateway until cancelled; it must be serving already, or two that start at once miss each other."""
        while True:
            self._announce_now.clear()
            try:
                # Without `until`: who answers that is not known yet, is from here on.
                answers = await rpc.call_all(
                    self._bus, self._subjects, GATEWAY_ALIVE, Alive(gateway=self._instance)
                )
            except BusError as fault:
                log.debug("not announced to other gateways", reason=str(fault))
            else:
                now = time.monotonic()
                self._seen.update((answer.gateway, now) for answer in answers)
                self._complete = not self._announce_now.is_set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._announce_now.wait(), _EVERY_S)

    def bus_returned(self) -> None:
        """Announce again: gateways may have come meanwhile, and until they are known, requests take their full time."""
        self._complete = False
        self._announce_now.set()

    def leave(self) -> None:
        """Announce that this gateway stops."""
        subject = self._subjects.service(GATEWAY_ALIVE.service, GATEWAY_ALIVE.name)
        try:
            self._bus.publish(subject, msgspec.json.encode(Alive(gateway=self._instance, leaving=True)))
        except BusError as fault:
            log.debug("leave not announced to other gateways", reason=str(fault))

    async def on_alive(self, other: Alive) -> Alive:
        """Answer the announcement of a gateway."""
        if other.leaving:
            self._seen.pop(other.gateway, None)
        else:
            self._seen[other.gateway] = time.monotonic()
        return Alive(gateway=self._instance)


def _name_in(message: BusMessage) -> str:
    try:
        return _decode_name(message.data).gateway
    except (msgspec.DecodeError, RecursionError):  # a refusal, which `call_all` logs
        return ""
