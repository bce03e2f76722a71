"""The four hooks, as the gateway's parts call them.

Each method returns the application's answer, checked, or raises `HookRefused` (what the application said) or `HookUnavailable`
(it does not answer, and TIDINGS_HOOKS_ON_FAILURE is `refuse`). Under `allow` a hook that fails is as one that is not there.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from gateway.auth.identity import SERVER_USER_ID, Identity
from gateway.delivery.publisher import Sender
from gateway.hooks.cache import AnswerCache, key_of
from gateway.hooks.caller import HookCaller
from gateway.hooks.messages import (
    AnswerT,
    ClientRequest,
    ConnectAnswer,
    ConnectHookRequest,
    HookAnswerInvalid,
    HookRefused,
    HookRequest,
    HookUnavailable,
    JoinAnswer,
    JoinHookRequest,
    PublishAnswer,
    PublishHookRequest,
    RpcAnswer,
    RpcHookRequest,
    decode_answer,
    is_given,
)
from services.clock import now_ms
from services.settings import Settings
from services.telemetry import MetricName, counter
from services.wire.client import MAX_MEMBER_DATA_BYTES
from services.wire.content import BadMessage, content_from_json
from services.wire.grants import Grants
from services.wire.names import InvalidName, normalize_name
from services.wire.records import UNSET, UnsetType

T = TypeVar("T")

# Parameters of ours: secrets that the application has no use for, and a place in our streams.
_OWN_PARAMETERS = ("ticket", "session", "last_event_id")
# Different for each request, and no reason to decide differently.
_NOT_DECISIVE = "x-request-id"


@dataclass(frozen=True, slots=True)
class ConnectDecision:
    """The application's answer to `connect`.

    `identity` is None where the user is that of the client's own ticket, token or session. Rooms are joined when the connection
    opens, whatever the grants say.
    """

    identity: Identity | None
    rooms: tuple[str, ...] = ()
    custom_data: msgspec.Raw | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class JoinDecision:
    """The application's answer to `join`: unset fields leave what the client asked for."""

    member_data: msgspec.Raw | UnsetType = UNSET
    history: int | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class PublishDecision:
    """The application's answer to `publish`: what is published, or with `skip` that nothing is."""

    content: msgspec.Raw
    skip: bool = False


class Hooks:
    """Asks the application about clients, joins, messages and calls. `asks` are the hooks that are configured."""

    def __init__(
        self, settings: Settings, caller: HookCaller, clock: Callable[[], float] = time.time
    ) -> None:
        self.asks = frozenset(settings.hooks)
        self.asks_connect = "connect" in self.asks
        self.asks_join = "join" in self.asks
        self.asks_publish = "publish" in self.asks
        self._settings = settings
        self._headers = [name.lower() for name in settings.hooks_headers]
        self._allows = settings.hooks_on_failure == "allow"
        self._caller = caller
        self._clock = clock
        self._connects: AnswerCache[ConnectDecision | HookRefused] = AnswerCache()
        self._joins: AnswerCache[JoinDecision | HookRefused] = AnswerCache()

    def close(self) -> None:
        """Close the connections to the application."""
        self._caller.close()

    async def connect(
        self,
        client: ClientRequest,
        proven: Identity | None,
        *,
        needs_user: bool,
        revoked: Callable[[Identity], bool] = lambda _: False,
    ) -> ConnectDecision | None:
        """Ask which user a client is. `proven` is the user of its own credentials; without one, `needs_user` says that
        the application has to name a user. A kept answer with a `revoked` identity is void.

        Returns:
            The decision; None where the hook failed and clients are then admitted as without it.
        """
        address = client.address()
        headers = {name: client.headers[name] for name in self._headers if name in client.headers}
        query = {name: value for name, value in client.query.items() if name not in _OWN_PARAMETERS}
        user_id, username = (proven.user_id, proven.username) if proven else ("", "")
        request = ConnectHookRequest(
            **_about("connect", Sender(user_id, username, client.connection_id)),
            headers=headers,
            query=query,
            address=address,
            origin=client.headers.get("origin", UNSET),
            dialect=client.dialect,
        )
        decisive = {name: value for name, value in headers.items() if name != _NOT_DECISIVE}
        origin = client.headers.get("origin")
        key = key_of(_credentials_key(proven), decisive, query, address, origin, client.dialect)
        asked_at = self._clock()
        kept = self._connects.get(key, asked_at)
        if isinstance(kept, ConnectDecision) and kept.identity is not None and revoked(kept.identity):
            self._connects.discard(key)

        def checked(answer: ConnectAnswer) -> ConnectDecision:
            return self._connect_decision(answer, proven, asked_at, needs_user=needs_user)

        try:
            return await self._ask(request, ConnectAnswer, checked, self._connects, key)
        except HookUnavailable:
            if self._allows:
                return None
            raise

    async def join(
        self, sender: Sender, room: str, member_data: msgspec.Raw | UnsetType = UNSET
    ) -> JoinDecision:
        """Ask whether a user may join a room."""
        request = JoinHookRequest(**_about("join", sender), room=room, member_data=member_data)
        key = key_of(sender.user_id, sender.username, room, None if member_data is UNSET else member_data)
        try:
            return await self._ask(request, JoinAnswer, self._join_decision, self._joins, key)
        except HookUnavailable:
            if self._allows:
                return JoinDecision()
            raise

    async def publish(
        self,
        sender: Sender,
        content: msgspec.Raw,
        *,
        room: str | UnsetType = UNSET,
        target_user_id: str | UnsetType = UNSET,
    ) -> PublishDecision:
        """Ask whether a user may publish to a room or a user; to everyone without either."""
        request = PublishHookRequest(
            **_about("publish", sender),
            content=content,
            room=room,
            target_user_id=target_user_id,
            broadcast=True if room is UNSET and target_user_id is UNSET else UNSET,
        )

        def checked(answer: PublishAnswer) -> PublishDecision:
            chosen = content
            if is_given(answer.content):
                chosen = self._json("content", answer.content, self._settings.max_message_bytes)
            return PublishDecision(chosen, skip=bool(answer.skip))

        try:
            return await self._ask(request, PublishAnswer, checked)
        except HookUnavailable:
            if self._allows:
                return PublishDecision(content)
            raise

    async def rpc(self, sender: Sender, method: str, data: msgspec.Raw) -> msgspec.Raw:
        """Have the application answer a call. Without an answer there is nothing to go on with, also under `allow`."""
        request = RpcHookRequest(**_about("rpc", sender), method=method, data=data)
        return await self._ask(request, RpcAnswer, lambda answer: self._json("data", answer.data))

    async def _ask(
        self,
        request: HookRequest,
        type_: type[AnswerT],
        checked: Callable[[AnswerT], T],
        cache: AnswerCache[T | HookRefused] | None = None,
        key: bytes = b"",
    ) -> T:
        """Return the checked answer: of the cache where it still holds, else of the application."""
        now = self._clock()
        if cache is not None and (known := cache.get(key, now)) is not None:
            counter(MetricName.HOOK_REQUESTS).labels(request.hook, "cached").inc()
            if isinstance(known, HookRefused):
                raise HookRefused(known.code, known.message)  # a new one: each raise adds to a traceback
            return known

        def decode(body: bytes) -> T:
            answer, ttl_s = decode_answer(body, type_)
            decision = answer if isinstance(answer, HookRefused) else checked(answer)
            if ttl_s and cache is not None:
                # A revocation is remembered for that time, and must outlive what it revokes.
                until = now + min(ttl_s, self._settings.revocation_s)
                if (
                    isinstance(decision, ConnectDecision)
                    and decision.identity
                    and decision.identity.expires_at
                ):
                    until = min(until, decision.identity.expires_at)
                cache.put(key, decision, until, len(body))
            if isinstance(decision, HookRefused):
                raise HookRefused(decision.code, decision.message)
            return decision

        return await self._caller.ask(request, decode)

    # --- checking answers ---

    def _connect_decision(
        self, answer: ConnectAnswer, proven: Identity | None, asked_at: float, *, needs_user: bool
    ) -> ConnectDecision:
        rooms = tuple(
            dict.fromkeys(_name(f"rooms[{at}]", room) for at, room in enumerate(answer.rooms or ()))
        )
        limit = self._settings.max_rooms_per_connection
        if limit and len(rooms) > limit:
            raise HookAnswerInvalid(f"{len(rooms)} rooms, and a connection may be in {limit}", "rooms")
        custom_data: msgspec.Raw | UnsetType = UNSET
        if is_given(answer.custom_data):
            custom_data = self._json("customData", answer.custom_data, self._settings.max_custom_data_bytes)
        identity = self._identity(answer, proven, asked_at)
        if identity is None and needs_user:
            raise HookAnswerInvalid(
                "is missing, and the client has no ticket or token of this server", "userId"
            )
        return ConnectDecision(identity, rooms, custom_data)

    def _identity(self, answer: ConnectAnswer, proven: Identity | None, asked_at: float) -> Identity | None:
        """Return the identity that the application makes or changes; None where it is the client's own."""
        try:
            grants = None if answer.grants is None else Grants.parse(answer.grants)
        except ValueError as fault:
            raise HookAnswerInvalid(str(fault), "grants") from None
        username = None if answer.username is None else _name("username", answer.username)
        expires_at = answer.expires_at_s
        if expires_at is not None and expires_at <= self._clock():
            raise HookAnswerInvalid("is past; it is in milliseconds since 1970", "expiresAt")
        if answer.user_id is not None:
            user_id = _name("userId", answer.user_id)
            if user_id == SERVER_USER_ID:
                raise HookAnswerInvalid(
                    f"`{SERVER_USER_ID}` is no user, it is the sender of the server API", "userId"
                )
            return Identity(
                user_id,
                username or user_id,
                self._settings.default_grants if grants is None else grants,
                expires_at=expires_at,
                # A revocation between request and answer: the application may have decided before it.
                issued_at=asked_at,
            )
        if proven is None:
            return None
        ends = [at for at in (proven.expires_at, expires_at) if at is not None]
        return replace(
            proven,
            username=username or proven.username,
            grants=proven.grants if grants is None else grants,
            expires_at=min(ends, default=None),
        )

    def _join_decision(self, answer: JoinAnswer) -> JoinDecision:
        member_data: msgspec.Raw | UnsetType = UNSET
        if is_given(answer.member_data):
            member_data = self._json("memberData", answer.member_data, MAX_MEMBER_DATA_BYTES)
        if answer.history is None:
            return JoinDecision(member_data)
        return JoinDecision(member_data, min(answer.history, self._settings.recovery_limit))

    def _json(self, field: str, value: msgspec.Raw, max_bytes: int = 0) -> msgspec.Raw:
        """Return JSON that every client can be sent. Raises HookAnswerInvalid."""
        try:
            return content_from_json(value, self._settings.max_json_depth, max_bytes)
        except BadMessage as fault:
            raise HookAnswerInvalid(fault.message, field) from None


def _about(hook: str, sender: Sender) -> dict[str, Any]:
    """Return the fields that all requests have."""
    return {
        "hook": hook,
        "id": secrets.token_hex(8),
        "timestamp": now_ms(),
        "connection_id": sender.connection_id,
        "user_id": sender.user_id,
        "username": sender.username,
    }


def _credentials_key(proven: Identity | None) -> object:
    """Return what in a user's own credentials can matter for an answer, or become part of one."""
    if proven is None:
        return None
    user = (proven.user_id, proven.username, proven.grants.to_dict())
    return *user, proven.token_id, proven.issued_at, proven.expires_at


def _name(field: str, text: str) -> str:
    try:
        return normalize_name(text, "it")
    except InvalidName as fault:
        raise HookAnswerInvalid(str(fault), field) from None
