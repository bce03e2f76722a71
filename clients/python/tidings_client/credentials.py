"""Asks the application for tokens, and keeps one until it ends."""

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tidings_client.errors import TidingsError
from tidings_client.options import CredentialCallback, CredentialRequest

T = TypeVar("T")


class Credentials:
    """What this user shows to a server."""

    def __init__(self, token: str | CredentialCallback | None, ticket: CredentialCallback | None) -> None:
        self._give_token = token
        self._give_ticket = ticket
        self._token: str | None = None
        self._refresh = False

    @property
    def can_refresh(self) -> bool:
        """Whether there is somebody to ask: a token that is a mere text cannot become another."""
        return callable(self._give_token) or self._give_ticket is not None

    async def token(self) -> str | None:
        """Return the token, or None where there is none to show."""
        if not callable(self._give_token):
            return self._give_token
        if self._token is None:
            request = CredentialRequest(refresh=self._refresh)
            self._token = await _answer(self._give_token, request)
            self._refresh = False
        return self._token

    async def ticket(self) -> str | None:
        """Return a ticket of the application: each is good for one connection."""
        if self._give_ticket is None:
            return None
        request = CredentialRequest(refresh=self._refresh)
        self._refresh = False
        return await _answer(self._give_ticket, request)

    async def shown(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return what shows who we are, to a request of any kind: for its query, and its headers."""
        token = await self.token()
        if token is not None:
            return {}, {"Authorization": f"Bearer {token}"}
        ticket = await self.ticket()
        return ({} if ticket is None else {"ticket": ticket}), {}

    def expire(self) -> None:
        """Forget the token: it ran out."""
        self._token = None
        self._refresh = True

    async def show(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run what shows credentials, and once more with fresh ones if they are refused."""
        try:
            return await attempt()
        except TidingsError as refused:
            if refused.code != "unauthorized" or not self.can_refresh:
                raise
        self.expire()
        return await attempt()


async def _answer(give: CredentialCallback, request: CredentialRequest) -> str:
    given = give(request)
    return await given if inspect.isawaitable(given) else given
