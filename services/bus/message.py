"""One message as it arrived, parsed on demand."""

from services.bus.headers import find_header, find_number, find_status


class BusMessage:
    """One message as it arrived. `headers_raw` is the header block from its first line, empty without any."""

    __slots__ = ("data", "headers_raw", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, headers_raw: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.headers_raw = headers_raw

    def header(self, name: str) -> str | None:
        """Return one header's value, parsed on demand; None when absent."""
        return find_header(self.headers_raw, name)

    @property
    def seq(self) -> int:
        """`Nats-Sequence`, 0 when absent."""
        return find_number(self.headers_raw, b"Nats-Sequence")

    @property
    def last_seq(self) -> int:
        """`Nats-Last-Sequence`, 0 when absent."""
        return find_number(self.headers_raw, b"Nats-Last-Sequence")

    @property
    def status(self) -> int:
        """The server's inline status (503 no responders, 204 end of batch), 0 for an ordinary message."""
        return find_status(self.headers_raw)[0] if self.headers_raw else 0

    @property
    def description(self) -> str:
        """What the server says beside its status."""
        return find_status(self.headers_raw)[1]
