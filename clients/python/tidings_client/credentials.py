"""Gets tokens and tickets from the application, and keeps a token until it expires."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tidings_client.errors import TidingsError
from tidings_client.options import CredentialCallback, CredentialRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """Credentials for one request or handshake, as a query parameter or a header."""

    token: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class Credentials:
    """The user's credentials."""

    def __init__(self, token: str | CredentialCallback | None, ticket: CredentialCallback | None) -> None:
        self._give_token = token
        self._give_ticket = ticket
        self._token: str | None = None if callable(token) else token
        # The only open request for a token: with rotating refresh tokens, two at once log a user out.
        self._asking: asyncio.Task[str] | None = None
        self._waiting = 0
        self._refresh = False

    @property
    def can_refresh(self) -> bool:
        """Whether the application gives new credentials: a token that is a plain string cannot be renewed."""
        return callable(self._give_token) or self._give_ticket is not None

    @property
    def kept(self) -> str | None:
        """The current token."""
        return self._token

    async def token(self) -> str | None:
        """Return the token, or None where the application gives none. Concurrent callers share one request for it."""
        if self._token is not None or not callable(self._give_token):
            return self._token
        if self._asking is None:
            self._waiting = 0
            self._asking = asyncio.create_task(self._ask(self._give_token), name="tidings token")
        asking = self._asking
        self._waiting += 1
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            if self._asking is asking:
                self._waiting -= 1
                if self._waiting == 0:  # nothing waits for it any more
                    self._asking = None
                    asking.cancel()
            raise

    async def _ask(self, give: CredentialCallback) -> str:
        try:
            token = await _answer(give, CredentialRequest(refresh=self._refresh))
            if self._asking is asyncio.current_task():  # else it was abandoned
                self._token, self._refresh = token, False
            return token
        finally:
            if self._asking is asyncio.current_task():
                self._asking = None

    async def ticket(self) -> str | None:
        """Return a ticket from the application, for one connection."""
        if self._give_ticket is None:
            return None
        request = CredentialRequest(refresh=self._refresh)
        self._refresh = False
        return await _answer(self._give_ticket, request)

    def expire(self, used: str | None) -> None:
        """Drop the token `used`, which has expired. A newer token is kept."""
        if self.can_refresh and used == self._token and self._asking is None:
            self._token = None
            self._refresh = True

    async def show(self, attempt: Callable[[Shown], Awaitable[T]]) -> T:
        """Call `attempt` with credentials, and once more with new ones if they are refused."""
        shown = await self._shown()
        try:
            return await attempt(shown)
        except TidingsError as refused:
            if refused.code != "unauthorized" or not self.can_refresh:
                raise
        self.expire(shown.token)
        shown = await self._shown()
        try:
            return await attempt(shown)
        except TidingsError as refused:
            if refused.code == "unauthorized":
                self.expire(shown.token)
            raise

    async def _shown(self) -> Shown:
        token = await self.token()
        if token is not None:
            return Shown(token, headers={"Authorization": f"Bearer {token}"})
        ticket = await self.ticket()
        return Shown(query={} if ticket is None else {"ticket": ticket})


async def _answer(give: CredentialCallback, request: CredentialRequest) -> str:
    given = give(request)
    return await given if inspect.isawaitable(given) else given
