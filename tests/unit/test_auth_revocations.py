"""New revocations and the connections that they end, found by look-up."""

from typing import Any, cast

import pytest

from gateway.auth import revocations as module
from gateway.auth.identity import Identity
from gateway.auth.revocations import Revocations
from gateway.connections import Connections
from gateway.delivery.counters import Counters
from services.settings import Settings
from services.tasks import TaskSet
from services.wire.events import Revoked
from services.wire.grants import ALL

NOW = 1_000_000.0
FOR_A_DAY = NOW + 86_400


def test_what_is_known_is_not_new() -> None:
    revocations = Revocations()
    of_ada = Revoked(until=FOR_A_DAY, user_id="ada", issued_before=NOW)
    of_token = Revoked(until=FOR_A_DAY, token_id="j1")
    assert [revocations.add(one, NOW) for one in (of_ada, of_token)] == [True, True]
    assert [revocations.add(one, NOW) for one in (of_ada, of_token)] == [False, False]


@pytest.mark.parametrize(
    ("again", "new"),
    [
        (Revoked(until=FOR_A_DAY, user_id="ada", issued_before=NOW + 10), True),  # later tokens too
        (
            Revoked(until=FOR_A_DAY + 10, user_id="ada", issued_before=NOW),
            False,
        ),  # the same tokens for longer
        (Revoked(until=NOW - 1, user_id="ada", issued_before=NOW), False),  # lifted
    ],
)
def test_new_is_what_covers_more_than_before(again: Revoked, new: bool) -> None:
    revocations = Revocations()
    revocations.add(Revoked(until=FOR_A_DAY, user_id="ada", issued_before=NOW), NOW)
    assert revocations.add(again, NOW) is new


def test_lifted_or_expired_revocations_can_be_added_again() -> None:
    revocations = Revocations()
    of_ada = Revoked(until=FOR_A_DAY, user_id="ada", issued_before=NOW)
    revocations.add(of_ada, NOW)
    revocations.add(Revoked(until=NOW, user_id="ada"), NOW)
    assert revocations.add(of_ada, NOW)
    later = Revoked(until=FOR_A_DAY + 86_400, user_id="ada", issued_before=NOW)
    assert revocations.add(later, FOR_A_DAY + 1)


def test_beyond_the_most_those_that_end_first_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 200)
    revocations = Revocations()
    for number in range(250):
        revocations.add(Revoked(until=FOR_A_DAY + number, token_id=f"j{number}"), NOW)
    assert len(revocations) <= 200
    assert len(revocations) + revocations.forgotten == 250
    kept = {revoked.token_id for revoked in revocations.entries(NOW)}
    assert {f"j{number}" for number in range(50, 250)} >= kept
    assert f"j{249}" in kept


class _Client:
    """A connection that counts how often it is looked at."""

    looked_at = 0
    ip_key = ""
    expiry = None

    def __init__(self, connection_id: str, user_id: str, token_id: str = "") -> None:
        self.connection_id = connection_id
        self.user_id = user_id
        self._identity = Identity(user_id, user_id, ALL, token_id=token_id, issued_at=NOW)

    @property
    def identity(self) -> Identity:
        _Client.looked_at += 1
        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity


def filled(*clients: _Client) -> Connections:
    connections = Connections(cast(Any, None), Settings(), "g", TaskSet(), Counters())
    for number in range(500):
        connections.add(cast(Any, _Client(f"c{number}", f"u{number}", f"j{number}")))
    for client in clients:
        connections.add(cast(Any, client))
    _Client.looked_at = 0
    return connections


def ids(connections: Connections, revoked: Revoked) -> list[str]:
    return [client.connection_id for client in connections.concerned_by(revoked)]


def test_a_revocation_looks_at_those_it_may_be_about_alone() -> None:
    connections = filled(_Client("x", "u7", "other"))
    assert ids(connections, Revoked(until=FOR_A_DAY, user_id="u7", issued_before=NOW)) == ["c7", "x"]
    assert ids(connections, Revoked(until=FOR_A_DAY, user_id="u7", issued_before=NOW - 1)) == []
    assert ids(connections, Revoked(until=FOR_A_DAY, token_id="other")) == ["x"]
    assert ids(connections, Revoked(until=FOR_A_DAY, token_id="unknown")) == []
    assert _Client.looked_at <= 5


def test_an_anonymous_reader_is_no_user() -> None:
    connections = filled(_Client("x", ""), _Client("y", ""))
    assert connections.of_user("") == []
    assert connections.get("x") is not None


def test_a_renewed_connection_is_found_by_its_new_token_alone() -> None:
    client = _Client("x", "ada", "old")
    connections = filled(client)
    connections.renew(cast(Any, client), Identity("ada", "ada", ALL, token_id="new", issued_at=NOW))
    assert ids(connections, Revoked(until=FOR_A_DAY, token_id="old")) == []
    assert ids(connections, Revoked(until=FOR_A_DAY, token_id="new")) == ["x"]


def test_what_is_gone_leaves_nothing_behind() -> None:
    connections = filled(_Client("x", "ada", "j"), _Client("y", "u7", "j7"), _Client("z", "u7", "j7"))
    for client in connections:
        connections.discard(client)
        connections.discard(client)
    assert len(connections) == 0
    assert connections._by_user._clients == {}
    assert connections._by_token._clients == {}
