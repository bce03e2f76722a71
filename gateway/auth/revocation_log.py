"""The stream that keeps all gateways' lists of revocations alike.

A revocation is stored in a stream, one message for each user or token, and republished to every gateway (ADR 0002). A
gateway reads the whole stream at its start and after an outage of the bus. It is on disk: a broker that restarts must
not make revoked credentials valid again.
"""

import asyncio
from collections.abc import Callable
from hashlib import blake2b

import msgspec
import structlog

from gateway.auth.revocations import MAX_REVOCATIONS, Revocations
from services.bus.ack_publisher import Stored
from services.bus.client import Bus, BusMessage
from services.bus.errors import BusError
from services.bus.specs import revocation_spec
from services.bus.streams import DurableLog
from services.settings import Settings
from services.wire.events import Revoked

log = structlog.get_logger(__name__)

_PAGE = 500
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Revoked).decode


class RevocationLog:
    """The stream behind `revocations`. `on_revoked` is called with each revocation that is new here."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        revocations: Revocations,
        now: Callable[[], float],
        on_revoked: Callable[[Revoked], None],
    ) -> None:
        self._bus = bus
        self._subjects = settings.subjects
        self._revocations = revocations
        self._now = now
        self._on_revoked = on_revoked
        self._live_keys: set[str] | None = None  # while the stream is read: keys that were received live
        self._reading = asyncio.Lock()  # an election may cause it while a reconnect does
        self._losses = 0
        revocations.current = False
        self.durable_log = DurableLog(bus, revocation_spec(settings), settings.publish_timeout_s)
        self._subscription = bus.subscribe(self._subjects.revoked_out, self._on_message)

    async def open(self) -> None:
        """Open the stream and read all of it; again after each reconnect.

        Raises:
            BusError: it cannot be opened or read.
        """
        async with self._reading:
            losses = self._losses
            await self.durable_log.open()
            await self._read()
            if losses == self._losses:  # otherwise a change of what was read first may have been missed
                self._revocations.current = True

    def lost(self) -> None:
        """Mark the list as incomplete until the bus is back and the stream was read: no credentials are valid until then."""
        self._losses += 1
        self._revocations.current = False

    async def _read(self) -> None:
        self._live_keys = set()
        try:
            seq, complete = 1, False
            while not complete:
                batch = await self.durable_log.read_from(self._subjects.revoked_in("*"), seq, _PAGE)
                for message in batch.messages:
                    key = message.subject.rpartition(".")[2]
                    # What was received live is newer than what was read.
                    if key not in self._live_keys:
                        self._add(message.data)
                seq, complete = batch.last_seq + 1, batch.complete
        finally:
            self._live_keys = None
        self._revocations.forget(self._now())

    async def publish(self, revoked: Revoked) -> None:
        """Store a revocation; every gateway receives it some milliseconds later.

        Raises:
            BusError: it may not be stored.
        """
        done: asyncio.Future[Stored | BusError] = asyncio.get_running_loop().create_future()

        def on_done(outcome: Stored | BusError) -> None:
            if not done.done():
                done.set_result(outcome)

        subject = self._subjects.revoked_in(_key(revoked))
        self.durable_log.publish(subject, _encode(revoked), message_id="", on_done=on_done)
        outcome = await done
        if isinstance(outcome, BusError):
            raise outcome

    def close(self) -> None:
        """Close the subscription and the stream."""
        self._subscription.close()
        self.durable_log.close()

    def _on_message(self, message: BusMessage) -> None:
        if self._live_keys is not None:
            self._live_keys.add(message.subject.rpartition(".")[2])
        self._add(message.data)

    def _add(self, data: bytes) -> None:
        try:
            revoked = _decode(data)
        except (msgspec.DecodeError, RecursionError) as fault:
            log.error("revocation cannot be decoded", reason=str(fault))
            return
        before = self._revocations.forgotten
        if self._revocations.add(revoked, self._now()):
            self._on_revoked(revoked)
        if (forgotten := self._revocations.forgotten - before) > 0:
            text = "too many revocations; those that expire first were dropped"
            log.error(text, forgotten=forgotten, most=MAX_REVOCATIONS)


def _key(revoked: Revoked) -> str:
    """Return the last token of the subject: hashed, because the issuer chooses what `jti` contains."""
    kind = f"user\0{revoked.user_id}" if revoked.user_id else f"token\0{revoked.token_id}"
    return blake2b(kind.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
