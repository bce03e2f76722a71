"""How bytes from a client are refused."""

from services.wire.codes import ErrorCode


class BadMessage(ValueError):
    """Bytes from a client that are no message of this protocol.

    `id` is the request's, where it could still be read, so that the client knows which message failed.
    """

    def __init__(self, code: ErrorCode, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


class TooDeep(BadMessage):
    """Arrays or objects nested deeper than allowed. Counted apart: nobody sends that by mistake."""


class ContentTooLarge(BadMessage):
    """Content larger than allowed, as the JSON in which it is passed on."""
