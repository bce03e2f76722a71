"""Subjects, wildcards and rules as data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.permissions import Role
from services.permissions.nats import answerer_of, inbox_prefix, subjects_of
from services.permissions.redis import ROLES, access_of
from services.settings import Settings
from services.settings_values import Namespace
from tests.support.nats_subjects import matches, overlaps
from tidings_cli.local.up import Brokers

WORDS = st.sampled_from(["a", "b", "c"])
SUBJECTS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = (
    st.tuples(st.lists(st.sampled_from(["a", "b", "*"]), min_size=0, max_size=3), st.sampled_from(["", ">"]))
    .map(lambda parts: ".".join([*parts[0], parts[1]] if parts[1] else parts[0]))
    .filter(bool)
)


@given(one=PATTERNS, other=PATTERNS, subject=SUBJECTS)
def test_what_both_match_is_an_overlap(one: str, other: str, subject: str) -> None:
    if matches(one, subject) and matches(other, subject):
        assert overlaps(one, other)
        assert overlaps(other, one)


@pytest.mark.parametrize("role", Role)
def test_no_role_may_do_everything_or_read_anothers_inbox(role: Role) -> None:
    subjects = subjects_of(role, Settings())
    for subject in (*subjects.publish, *subjects.subscribe):
        assert subject.split(".")[0] in ("tidings", "$JS", "$SRV", "$SYS", "_INBOX")
    for other in set(Role) - {role}:
        for subject in subjects.subscribe:
            assert not overlaps(subject, f"_INBOX.{other}.>")


@pytest.mark.parametrize("asker", Role)
@pytest.mark.parametrize("answerer", [*Role, "server"])
def test_a_role_answers_gateways_and_only_for_itself(asker: Role, answerer: str) -> None:
    reply = f"{inbox_prefix(asker, answerer)}.random.1"
    assert any(matches(subject, reply) for subject in subjects_of(asker, Settings()).subscribe)
    may_answer = {
        role
        for role in Role
        if any(matches(subject, reply) for subject in subjects_of(role, Settings()).publish)
    }
    assert may_answer == ({answerer} if asker is Role.GATEWAY and answerer in _ANSWERING else set())


_ANSWERING = {Role.GATEWAY, Role.PRESENCE, Role.METRICS, Role.APP}


def test_which_role_answers_a_request() -> None:
    subjects = Settings(prefix="p").subjects
    assert answerer_of(subjects.service("presence", "list"), "p") == Role.PRESENCE
    assert answerer_of(subjects.roster, "p") == Role.GATEWAY
    assert answerer_of(subjects.control, "p") == Role.GATEWAY
    assert answerer_of("$JS.API.STREAM.INFO.p-inbox", "p") == "server"
    assert answerer_of("p2.service.presence.list", "p") == "server"
    assert answerer_of(subjects.service_before("presence", "list"), "p") == Role.PRESENCE
    assert answerer_of(subjects.rpc("orders.create"), "p") == Role.APP
    assert answerer_of(subjects.rpc("presence-list"), "p") == Role.APP


def test_an_application_answers_calls_and_does_nothing_else() -> None:
    settings = Settings(prefix="p")
    own = subjects_of(Role.APP, settings)
    assert set(own.subscribe) == {"p.rpc.>", "$SRV.>", "p.probe.app.*", "_INBOX.app.>"}
    assert set(own.publish) == {"p.probe.app.*", "_INBOX.gateway.app.*.*", "_INBOX.*", "_INBOX.*.*"}
    services = ("gateway", "presence", "metrics")
    for service in services:
        assert not any(overlaps(subject, f"p.service.{service}.x") for subject in own.subscribe)
        assert any(
            matches(subject, f"p.service.{service}.x")
            for subject in subjects_of(Role(service), settings).subscribe
        )
    # Where the version before asks services, these answer and the application hears nothing.
    rolling = subjects_of(Role.APP, settings, rolling=True)
    assert set(rolling.unsubscribable) == {f"p.rpc.{service}.>" for service in services}
    for service in services:
        both = subjects_of(Role(service), settings, rolling=True)
        assert f"p.rpc.{service}.*" in both.subscribe
        assert f"p.rpc.{service}.*" not in subjects_of(Role(service), settings).subscribe
        assert any(
            matches(subject, f"p.rpc.{service}.x") for subject in subjects_of(Role.GATEWAY, settings).publish
        )


@pytest.mark.parametrize(
    "role", [role for role in Role if role is not Role.APP]
)  # no part of the version before
def test_while_versions_roll_a_role_may_do_what_both_need(role: Role) -> None:
    now, both = subjects_of(role, Settings()), subjects_of(role, Settings(), rolling=True)
    assert set(now.publish) < set(both.publish)
    assert set(now.subscribe) < set(both.subscribe)
    assert "tidings.probe.*" in both.publish


def test_streams_are_named_one_by_one() -> None:
    namespaces = {"news": Namespace(), "cursors": Namespace(durable=False)}
    subjects = subjects_of(Role.GATEWAY, Settings(namespaces=namespaces, prefix="p"))
    assert "$JS.API.STREAM.CREATE.p-rooms-news" in subjects.publish
    assert "p.out.room.cursors.*" in subjects.publish
    assert not any(overlaps(subject, "$JS.API.STREAM.DELETE.p-rooms-news") for subject in subjects.publish)
    assert not any(
        overlaps(subject, "p.out.room.news.x") for subject in subjects.publish
    )  # only the stream does


def test_each_role_has_keys_of_its_own() -> None:
    prefixes = [access_of(role, Settings()).key_prefix for role in ROLES]
    assert len(set(prefixes)) == len(prefixes)
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)


def test_a_process_gets_the_servers_it_needs_and_no_others(tmp_path: object) -> None:
    brokers = Brokers(Settings(), tmp_path)  # type: ignore[arg-type]
    urls = {role: brokers.environment_of(role) for role in Role}
    assert {role for role in Role if urls[role]["TIDINGS_REDIS_URL"]} == set(ROLES)
    assert len({urls[role]["TIDINGS_NATS_URL"] for role in Role}) == len(Role)
    secrets = [brokers.nats.password, brokers.redis.password]  # type: ignore[union-attr]
    assert not any(secret in url for told in urls.values() for url in told.values() for secret in secrets)
