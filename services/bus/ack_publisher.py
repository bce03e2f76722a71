"""Publishes to a stream, with its acknowledgements."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
import structlog

from services.bus.client import Bus
from services.bus.errors import BusError, NoAnswer, Unavailable
from services.bus.jsapi import outcome_of_ack
from services.bus.message import BusMessage, check_publishable
from services.bus.reply_inbox import ReplyInbox
from services.bus.stats import BusStats

_log = structlog.get_logger(__name__)
_PLAIN_ID = re.compile(r"[!-$&-~]+")  # printable ASCII but %, which begins an escape
_SWEEPS_PER_TIMEOUT = 20


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a message is stored. `duplicate`: its id was stored before, at this sequence."""

    seq: int
    duplicate: bool


OnDone = Callable[[Stored | BusError], None]


def encode_message_id(message_id: str) -> str:
    """Return an id as a header can carry it: itself when plain, else percent-encoded. Injective."""
    return message_id if _PLAIN_ID.fullmatch(message_id) else quote(message_id, safe="")


class PendingPublish(msgspec.Struct, eq=False):
    """One publish without an acknowledgement yet."""

    subject: str
    deadline: float
    on_done: OnDone
    stats: BusStats

    def on_answer(self, message: BusMessage) -> None:
        """Handle the stream's answer."""
        if message.is_no_responders:
            self.finish(NoAnswer(self.subject, "no stream captures it"))
            return
        ack = outcome_of_ack(message.data)
        self.finish(ack if isinstance(ack, BusError) else Stored(ack.seq, ack.duplicate))

    def on_failed(self, error: BusError) -> None:
        """Finish without an answer."""
        self.finish(error)

    def finish(self, outcome: Stored | BusError) -> None:
        """Report the outcome. Called once: the caller has removed it from the table."""
        if isinstance(outcome, Stored):
            self.stats.stored += 1
        else:
            self.stats.not_stored += 1
        try:
            self.on_done(outcome)
        except Exception:  # noqa: BLE001  # one caller's fault must not keep the others from their outcome
            self.stats.callback_errors += 1
            _log.exception("bus publish callback failed", subject=self.subject)


class AckPublisher:
    """Publishes with acknowledgement over a reply table of its own. One timer serves all deadlines."""

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._inbox: ReplyInbox[PendingPublish] = ReplyInbox(one_answer=True, prefix=bus.inbox_prefix)
        bus.add_inbox(self._inbox)
        self._sweep: asyncio.TimerHandle | None = None

    def publish(self, subject: str, payload: bytes, *, message_id: str, on_done: OnDone) -> None:
        """Publish; order is kept. `on_done` is called exactly once, and never before this returns.

        It gets Stored; Unavailable (disconnected, connection lost, deadline, no stream, no leader: it may or may not
        be stored, and may be sent again with the same `message_id`); StoreFull; PayloadTooLarge; RequestRefused with
        JetStream's `err_code`; or Misconfigured (this user may not publish there). `message_id` is any text; empty
        means none.

        Raises:
            ValueError: not a subject to publish to.
        """
        check_publishable(subject)
        headers = b""
        if message_id:
            # Ids of messages are hexadecimal digests, so this is the usual case.
            plain = message_id.isalnum() and message_id.isascii()
            encoded = message_id if plain else encode_message_id(message_id)
            headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % encoded.encode()
        pending = PendingPublish(subject, self._loop.time() + self._timeout_s, on_done, self._bus.stats)
        reply = self._inbox.open(pending)
        try:
            self._bus.publish_encoded(subject, payload, reply, headers)
        except BusError as exc:
            self._inbox.close(reply)
            self._loop.call_soon(pending.finish, exc)
            return
        if self._sweep is None:
            self._arm()

    def _arm(self) -> None:
        self._sweep = self._loop.call_later(self._timeout_s / _SWEEPS_PER_TIMEOUT, self._expire)

    def _expire(self) -> None:
        """Fail publishes past their deadline. All have the same time-out, so the oldest come first."""
        self._sweep = None
        now = self._loop.time()
        while (oldest := self._inbox.oldest()) is not None:
            reply, pending = oldest
            if pending.deadline > now:
                self._arm()
                return
            self._inbox.close(reply)
            pending.finish(Unavailable(f"not acknowledged within {self._timeout_s:g} s"))

    def close(self) -> None:
        """Stop. Pending publishes fail with Unavailable."""
        self._bus.remove_inbox(self._inbox)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._inbox.fail_all(Unavailable("the log was closed"))
