"""Admits the users of connections and requests: by their credentials, or as the application says (the `connect` hook)."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.auth.authenticator import Authenticator
from gateway.auth.identity import Identity
from gateway.channels.channel_names import presence_room
from gateway.delivery.publisher import Sender
from gateway.hooks.messages import ClientRequest
from services.wire.records import UNSET, UnsetType

if TYPE_CHECKING:
    from gateway.hooks.hooks import Hooks


@dataclass(frozen=True, slots=True)
class Admission:
    """A user who was admitted. `rooms` are joined when the connection opens, whatever the grants say."""

    identity: Identity
    rooms: tuple[str, ...] = ()
    custom_data: msgspec.Raw | UnsetType = UNSET


class Admitter:
    """Decides about each connection, and about each request that a user makes as themselves."""

    def __init__(self, authenticator: Authenticator, hooks: "Hooks | None") -> None:
        self._authenticator = authenticator
        self._hooks = hooks
        self._asks = hooks is not None and hooks.asks_connect

    async def admit(self, request: ClientRequest) -> Admission:
        """Return the user of a request.

        Raises:
            AuthRefused, BusError: as `Authenticator.authenticate`.
            HookRefused, HookUnavailable: the application refuses, or does not answer.
        """
        authenticator, headers, query = self._authenticator, request.headers, request.query
        if self._hooks is None or not self._asks:
            return Admission(await authenticator.authenticate(headers, query))
        proven = await authenticator.prove(headers, query)
        if proven is not None and proven.grants.admin and not authenticator.open:
            return Admission(proven)  # an operator, for whom the application may have no user
        needs_user = proven is None and not authenticator.open
        decision = await self._hooks.connect(request, proven, needs_user=needs_user, revoked=self._is_revoked)
        identity = proven if decision is None or decision.identity is None else decision.identity
        if identity is None:
            identity = await authenticator.authenticate(headers, query)
        authenticator.require_current(identity)
        if decision is None:
            return Admission(identity)
        return Admission(identity, decision.rooms, decision.custom_data)

    async def request_joins(
        self,
        admission: Admission,
        connection_id: str,
        rooms: list[str],
        channels: list[str],
        history: int | UnsetType,
    ) -> dict[str, int | UnsetType]:
        """Have the application decide on the rooms that it did not name itself, and on those whose members are shown.

        Returns:
            How much of its history each of the rooms is joined with.

        Raises:
            HookRefused, HookUnavailable: the application refuses one, or does not answer.
        """
        joins = dict.fromkeys(rooms, history)
        hooks = self._hooks
        if hooks is None or not hooks.asks_join:
            return joins
        shown = [room for name in channels if (room := presence_room(name))]
        wanted = [room for room in dict.fromkeys([*rooms, *shown]) if room not in admission.rooms]
        sender = Sender(admission.identity.user_id, admission.identity.username, connection_id)
        decisions = await asyncio.gather(*[hooks.join(sender, room) for room in wanted])
        for room, decision in zip(wanted, decisions, strict=True):
            if room in joins and decision.history is not UNSET:
                joins[room] = decision.history
        return joins

    def _is_revoked(self, identity: Identity) -> bool:
        return self._authenticator.revocations.covers(identity, time.time())

    async def admit_reader(self, request: ClientRequest) -> Admission:
        """Return the user of an HTTP read, or one without an id who has the rights of an API key.

        Raises:
            AuthRefused, BusError, HookRefused, HookUnavailable: as `admit`.
        """
        if not self._asks or self._authenticator.is_operator(request.headers):
            return Admission(await self._authenticator.authenticate_reader(request.headers, request.query))
        return await self.admit(request)
