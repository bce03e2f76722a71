"""A bus that carries the context of traces in its headers. Needs the optional part `tracing`."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from opentelemetry.trace import SpanKind

from services.bus.client import Bus, BusMessage, Subscription
from services.tracing.spans import TRACEPARENT, Traces

_MARK = b"\r\n" + TRACEPARENT.encode() + b": "


class TracingBus(Bus):
    """Sends the current span's context with each message, and makes spans of requests and of arriving messages."""

    traces: ClassVar[Traces]

    def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """See Bus."""
        super().publish(subject, payload, reply=reply, headers={**(headers or {}), **self.traces.headers()})

    def publish_encoded(self, subject: str, payload: bytes, reply: str, headers: bytes) -> None:
        """See Bus."""
        super().publish_encoded(subject, payload, reply, self.traces.header_block(headers))

    async def request(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> BusMessage:
        """See Bus. Requests to JetStream are part of an existing trace, and start none."""
        unwanted = not self.traces.recording if subject.startswith("$") else not self.traces.wanted()
        if unwanted:
            return await super().request(subject, payload, timeout_s=timeout_s, headers=headers)
        about = {"messaging.system": "nats", "messaging.destination.name": subject}
        with self.traces.span(f"ask {subject}", SpanKind.CLIENT, about):
            sent = {**(headers or {}), **self.traces.headers()}
            return await super().request(subject, payload, timeout_s=timeout_s, headers=sent)

    def subscribe(
        self,
        subject: str,
        on_message: Callable[[BusMessage], None],
        *,
        queue: str = "",
        optional: bool = False,
    ) -> Subscription:
        """See Bus."""
        # Replies are part of the request's span, and a message read back would bring the context it was stored with.
        if not subject.startswith("_INBOX."):
            on_message = self._delivering(subject, on_message)
        return super().subscribe(subject, on_message, queue=queue, optional=optional)

    def _delivering(
        self, subject: str, on_message: Callable[[BusMessage], None]
    ) -> Callable[[BusMessage], None]:
        traces, call_soon = self.traces, asyncio.get_running_loop().call_soon

        def deliver(message: BusMessage) -> None:
            if _MARK not in message.headers_raw:
                on_message(message)
                return
            span = traces.delivering(subject, message.header(TRACEPARENT) or "", message.header("tracestate"))
            if message.seq:
                span.set_attribute("tidings.seq", message.seq)
            try:
                with traces.within(span):
                    on_message(message)
            finally:
                call_soon(span.end)  # after the writes, which the fan-out has put there before

        return deliver

    @contextmanager
    def answering(self, endpoint: str, headers: Mapping[str, str] | None) -> Iterator[None]:
        """See Bus."""
        parent = self.traces.parent_of_rpc(headers)
        if parent is None:
            yield
            return
        about = {"rpc.system.name": "nats", "rpc.method": endpoint}
        with self.traces.span(f"answer {endpoint}", SpanKind.SERVER, about, parent):
            yield
