"""How authentication says no."""

from services.wire.codes import ErrorCode


class AuthRefused(Exception):
    """The request is refused before it is carried out. `message` may be shown to the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code.code}: {message}")
        self.code = code
        self.message = message
