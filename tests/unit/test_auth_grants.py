"""Grants and their patterns."""

import time

import pytest

from services.wire.grants import (
    ALL,
    DEFAULT,
    MAX_PATTERN_LENGTH,
    MAX_PATTERNS,
    Grants,
    InvalidPattern,
    Patterns,
)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("lobby", "lobby", True),
        ("lobby", "lobby2", False),
        ("lobby", "Lobby", False),
        ("*", "", True),
        ("*", "anything at all", True),
        ("**", "x", True),
        ("team:*", "team:", True),
        ("team:*", "team:a", True),
        ("team:*", "teams:a", False),
        ("*:ops", "a:ops", True),
        ("*:ops", "a:opsx", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("a*b*b*c", "a-b-c", False),
        ("a*b*b*c", "abbc", True),
        ("a*bc*c", "abc", False),
        ("a?c", "abc", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("a*\nb", "a\nb", True),
    ],
)
def test_only_the_star_is_special(pattern: str, name: str, *, matches: bool) -> None:
    assert Patterns([pattern]).matches(name) is matches


def test_a_set_matches_when_one_pattern_does() -> None:
    patterns = Patterns(["lobby", "team:*", "*-open"])

    assert all(patterns.matches(name) for name in ("lobby", "team:x", "den-open"))
    assert not patterns.matches("den")


def test_no_pattern_matches_nothing() -> None:
    assert not Patterns().matches("")
    assert not Patterns([]).matches("lobby")


def test_patterns_match_names_in_either_unicode_form() -> None:
    decomposed = "cafe\u0301"
    assert Patterns([decomposed]).matches("caf\u00e9")


@pytest.mark.timing
def test_a_hostile_pattern_costs_no_more_than_a_pass_per_piece() -> None:
    pattern = Patterns(["a*" * (MAX_PATTERN_LENGTH // 2)])
    started = time.thread_time()
    for _ in range(100):
        assert not pattern.matches("a" * 127 + "b")
    assert time.thread_time() - started < 1.0  # a backtracking matcher would not finish


@pytest.mark.parametrize("bad", [[""], ["x" * (MAX_PATTERN_LENGTH + 1)], ["x"] * (MAX_PATTERNS + 1)])
def test_unreasonable_patterns_are_refused(bad: list[str]) -> None:
    with pytest.raises(InvalidPattern):
        Patterns(bad)


def test_nothing_is_granted_by_default() -> None:
    nothing = Grants()
    allowed = (nothing.may_join("lobby"), nothing.may_publish("lobby"), nothing.may_follow("metrics"))
    assert not any(allowed)
    assert not any((nothing.broadcast, nothing.direct, nothing.admin))


def test_ones_own_inbox_needs_no_grant() -> None:
    assert Grants().may_follow("inbox")


def test_a_token_without_claim_gets_rooms_presence_and_direct_messages_only() -> None:
    assert DEFAULT.may_join("any")
    assert DEFAULT.may_publish("any")
    assert DEFAULT.may_follow("presence")
    assert DEFAULT.may_follow("presence:any")
    assert DEFAULT.direct
    assert not any(DEFAULT.may_follow(channel) for channel in ("metrics", "alerts", "logs"))
    assert (DEFAULT.broadcast, DEFAULT.admin) == (False, False)


def test_admin_may_everything() -> None:
    admin = Grants(admin=True)
    assert admin.may_join("x")
    assert admin.may_publish("x")
    assert admin.may_follow("logs")
    assert ALL.admin
    assert ALL.broadcast


@pytest.mark.parametrize(
    ("channels", "channel", "may"),
    [
        (["presence:*"], "presence:mine", True),
        (["presence:*"], "presence:other", False),
        (["*"], "presence:other", False),
        (["presence:o*"], "presence:other", False),
        (["presence:other"], "presence:other", True),
        (["presence:*"], "presence:*", False),  # a room may be called so
        (["presence:*"], "presence", False),
        (["*"], "metrics", True),
        ([], "presence:mine", False),
    ],
)
def test_members_of_a_room_are_shown_to_users_who_may_join_it(
    channels: list[str], channel: str, may: bool
) -> None:
    grants = Grants(join=Patterns(["mine"]), channels=Patterns(channels))
    assert grants.may_follow(channel) is may
    assert ALL.may_follow(channel)
