"""How a room is joined: the options of the application, and the token that the room may need."""

from typing import Any

import msgspec

from tidings_client.credentials import Credentials
from tidings_client.errors import TidingsError
from tidings_client.generated.wire import ClientJoinRoom, Position
from tidings_client.options import CredentialCallback

# Errors after which a new token may help.
_TOKEN_FAULTS = ("unauthorized", "forbidden")


class Joining:
    """Options of a join, and the current token. `extended` returns another one for other options."""

    def __init__(
        self,
        history: int | None = None,
        data: Any = None,
        token: str | CredentialCallback | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._history = history
        self._data = data
        self._token = token
        self._credentials = credentials or Credentials(token, None)
        # A new token was requested because of a refusal: the next refusal is final.
        self._refreshed = False

    def extended(self, history: int | None, data: Any, token: str | CredentialCallback | None) -> "Joining":
        """Return this one, or another if the options that are given change it.

        Raises TypeError or another exception of `msgspec` for data that cannot be encoded.
        """
        msgspec.json.encode(data)
        kept = token is None or token == self._token
        credentials = self._credentials if kept else None
        joining = Joining(
            self._history if history is None else history,
            self._data if data is None else data,
            self._token if token is None else token,
            credentials,
        )
        return self if joining._history == self._history and joining.is_for_member(self) else joining

    def is_for_member(self, other: "Joining") -> bool:
        """Whether a member through `other` is one through this, too."""
        return self._data == other._data and self._token == other._token

    @property
    def lacks_token(self) -> bool:
        """Whether a token has to be requested first."""
        return self._credentials.can_refresh and self._credentials.kept is None

    async def get_token(self) -> None:
        """Request a token. Raises what the application's function raises."""
        await self._credentials.token()

    def request(self, room: str, since: Position | None) -> ClientJoinRoom:
        """Return the message that joins the room."""
        token = self._credentials.kept
        return ClientJoinRoom(
            room=room, since=since, history=self._history, member_data=self._data, token=token
        )

    def succeeded(self) -> None:
        """The room is joined, or joined by the application once more."""
        self._refreshed = False

    def may_refresh(self, fault: TidingsError) -> bool:
        """The join was refused. Returns whether to try again with a new token."""
        if self._refreshed or fault.code not in _TOKEN_FAULTS or not self.expire():
            return False
        self._refreshed = True
        return True

    def expire(self) -> bool:
        """The token has expired. Returns whether there will be a new one."""
        self._credentials.expire(self._credentials.kept)
        return self._credentials.can_refresh
