"""Faults of the bus. A leaf: modules that catch them need not import the client.

```
BusError
├── Unavailable     it may or may not have happened: no connection, no answer in time
│   └── NoAnswer    no answer in time
│       └── NoResponders  nothing is subscribed to that subject now: it has certainly not happened
├── StoreFull       the stream, or JetStream's store, is full: it was not stored
├── PayloadTooLarge the payload is over the server's limit: checked before sending
├── RequestRefused  the other side refused. Carries its code and message
└── Misconfigured   wrong credentials, missing permissions, JetStream off, server too old: no retry helps
```
"""


class BusError(Exception):
    """Base of all faults of the bus."""


class Unavailable(BusError):
    """The bus cannot be reached, or did not confirm in time. The operation may or may not have happened."""


class NoAnswer(Unavailable):
    """No responders on that subject, or no answer in time."""

    def __init__(self, subject: str, why: str) -> None:
        super().__init__(f"no answer on {subject}: {why}")
        self.subject = subject


class NoResponders(NoAnswer):
    """Nothing is subscribed to that subject now."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject, "no responders")


class StoreFull(BusError):
    """JetStream has no room. Sent again it is stored only once something there was deleted or has expired."""


class PayloadTooLarge(BusError):
    """The payload is larger than the server accepts."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"payload of {size} bytes is over the bus's limit of {limit}")
        self.size = size
        self.limit = limit


class RequestRefused(BusError):
    """The service or the stream answered with an error. `code` is an `ErrorCode` code where a service of ours
    refused, or JetStream's `err_code` as text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Misconfigured(BusError):
    """The server answers, but this process cannot work with it; the message says what to change."""
