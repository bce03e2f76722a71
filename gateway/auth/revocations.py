"""Which tokens count no more before they expire. No I/O, and time is passed in.

Two kinds: one token, by its `jti`; and every token of a user issued up to some moment, by `sub` and `iat`. A
token that does not say when it was issued belongs to every moment: its user stays out until the revocation is
forgotten or lifted. `gateway.auth.revocation_log` keeps all gateways' lists alike.
"""

from heapq import nsmallest

from gateway.auth.identity import Identity
from services.wire.events import Revoked

# What one gateway remembers. Beyond, those that would be forgotten first go first: their tokens live shortest.
MAX_REVOCATIONS = 200_000
_AT_ONCE = 100  # of that, the part that goes when there are more


class Revocations:
    """What is revoked now.

    `current` says whether everything that is revoked is known here; where it is False, credentials cannot be trusted.
    `forgotten` counts those that went before their time, because there were too many.
    """

    def __init__(self) -> None:
        self.current = True
        self.forgotten = 0
        self._users: dict[str, Revoked] = {}
        self._tokens: dict[str, Revoked] = {}

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def add(self, revoked: Revoked, now: float) -> bool:
        """Take in a revocation, or the end of one; return whether something is revoked now that was not."""
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
        """Whether the credentials behind an identity were revoked."""
        if not self._tokens and not self._users:
            return False
        return self._holds(self._tokens.get(identity.token_id), identity, now) or self._holds(
            self._users.get(identity.user_id), identity, now
        )

    @staticmethod
    def _holds(revoked: Revoked | None, identity: Identity, now: float) -> bool:
        if revoked is None or revoked.until <= now:
            return False
        return concerns(revoked, identity)

    def entries(self, now: float) -> list[Revoked]:
        """Return what is revoked now."""
        return [
            revoked
            for entries in (self._users, self._tokens)
            for revoked in entries.values()
            if revoked.until > now
        ]

    def forget(self, now: float) -> None:
        """Drop what is over."""
        for entries in (self._users, self._tokens):
            for key in [key for key, revoked in entries.items() if revoked.until <= now]:
                del entries[key]

    def _make_room(self, now: float) -> None:
        self.forget(now)
        if len(self) >= MAX_REVOCATIONS:
            entries = self._users if len(self._users) > len(self._tokens) else self._tokens
            # Many at once: to look for the one that ends first costs a pass over all.
            for key in nsmallest(MAX_REVOCATIONS // _AT_ONCE, entries, key=lambda key: entries[key].until):
                del entries[key]
                self.forgotten += 1


def concerns(revoked: Revoked, identity: Identity) -> bool:
    """Whether a revocation is about these credentials."""
    if revoked.token_id:
        return revoked.token_id == identity.token_id
    if revoked.user_id != identity.user_id:
        return False
    # `iat` counts in whole seconds: a token of the very second of the revocation is an old one.
    return identity.issued_at is None or identity.issued_at <= revoked.issued_before
