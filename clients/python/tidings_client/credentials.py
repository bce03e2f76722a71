"""Asks the application for tokens, and keeps one until it ends."""

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
    """One showing of credentials, to a request of any kind."""

    token: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class Credentials:
    """What this user shows to a server."""

    def __init__(self, token: str | CredentialCallback | None, ticket: CredentialCallback | None) -> None:
        self._give_token = token
        self._give_ticket = ticket
        self._token: str | None = None if callable(token) else token
        # The one request for a token there is: with rotating refresh tokens, two at once log a user out.
        self._asking: asyncio.Task[str] | None = None
        self._waiting = 0
        self._refresh = False

    @property
    def can_refresh(self) -> bool:
        """Whether there is somebody to ask: a token that is a mere text cannot become another."""
        return callable(self._give_token) or self._give_ticket is not None

    @property
    def kept(self) -> str | None:
        """The token that there is now."""
        return self._token

    async def token(self) -> str | None:
        """Return the token, or None where there is none to show. It is asked for once, however many wait for it."""
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
                if self._waiting == 0:  # not wanted any more
                    self._asking = None
                    asking.cancel()
            raise

    async def _ask(self, give: CredentialCallback) -> str:
        try:
            token = await _answer(give, CredentialRequest(refresh=self._refresh))
            if self._asking is asyncio.current_task():  # else it was given up
                self._token, self._refresh = token, False
            return token
        finally:
            if self._asking is asyncio.current_task():
                self._asking = None

    async def ticket(self) -> str | None:
        """Return a ticket of the application: each is good for one connection."""
        if self._give_ticket is None:
            return None
        request = CredentialRequest(refresh=self._refresh)
        self._refresh = False
        return await _answer(self._give_ticket, request)

    def expire(self, used: str | None) -> None:
        """Forget the token that was used: it ran out. One that has come since is kept."""
        if self.can_refresh and used == self._token and self._asking is None:
            self._token = None
            self._refresh = True

    async def show(self, attempt: Callable[[Shown], Awaitable[T]]) -> T:
        """Run what shows credentials, and once more with fresh ones if they are refused."""
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
