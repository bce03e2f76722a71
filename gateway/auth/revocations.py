"""Tokens revoked before they expire. No I/O, and time is passed in.

Two kinds: one token, by its `jti`; and every token of a user issued up to some moment, by `sub` and `iat`. A token
without `iat` belongs to every moment: it is refused until the revocation has expired or is lifted.
`gateway.auth.revocation_log` keeps all gateways' lists alike.
"""

from heapq import nsmallest

from gateway.auth.identity import Identity
from services.wire.events import Revoked

# Beyond this, those that expire first are dropped: their tokens live shortest.
MAX_REVOCATIONS = 200_000
_DROPPED_PART = 100  # at once, a hundredth: to find the one that expires first costs a pass over all


class Revocations:
    """The revocations in force.

    `current` is True while all of them are known here; otherwise credentials cannot be trusted. `forgotten` counts those
    dropped before they expired, because there were too many.
    """

    def __init__(self) -> None:
        self.current = True
        self.forgotten = 0
        self._users: dict[str, Revoked] = {}
        self._tokens: dict[str, Revoked] = {}

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def add(self, revoked: Revoked, now: float) -> bool:
        """Add a revocation, or remove one that is lifted. Return True if more is revoked now than before."""
        entries, key = (self._users, revoked.user_id) if revoked.user_id else (self._tokens, revoked.token_id)
        if not key:
            return False
        if revoked.until <= now:
            entries.pop(key, None)
            return False
        if len(self) >= MAX_REVOCATIONS and key not in entries:
            self._make_room(now)
        known = entries.get(key)
        entries[key] = revoked
        return known is None or known.until <= now or revoked.issued_before > known.issued_before

    def covers(self, identity: Identity, now: float) -> bool:
        """Return True if the credentials of an identity are revoked."""
        if not self._tokens and not self._users:
            return False
        return any(
            revoked is not None and revoked.until > now and applies_to(revoked, identity)
            for revoked in (self._tokens.get(identity.token_id), self._users.get(identity.user_id))
        )

    def entries(self, now: float) -> list[Revoked]:
        """Return the revocations in force."""
        return [each for each in (*self._users.values(), *self._tokens.values()) if each.until > now]

    def forget(self, now: float) -> None:
        """Drop what has expired."""
        for entries in (self._users, self._tokens):
            for key in [key for key, revoked in entries.items() if revoked.until <= now]:
                del entries[key]

    def _make_room(self, now: float) -> None:
        self.forget(now)
        if len(self) >= MAX_REVOCATIONS:
            entries = self._users if len(self._users) > len(self._tokens) else self._tokens
            dropped = MAX_REVOCATIONS // _DROPPED_PART
            for key in nsmallest(dropped, entries, key=lambda key: entries[key].until):
                del entries[key]
                self.forgotten += 1


def applies_to(revoked: Revoked, identity: Identity) -> bool:
    """Return True if a revocation covers these credentials, whether or not it is over."""
    if revoked.token_id:
        return revoked.token_id == identity.token_id
    if revoked.user_id != identity.user_id:
        return False
    # `iat` counts in whole seconds: a token of the very second of the revocation is an old one.
    return identity.issued_at is None or identity.issued_at <= revoked.issued_before
