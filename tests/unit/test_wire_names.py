"""Names of rooms and users: tokens, subjects and namespaces."""

import time

import pytest

from services.settings import Settings
from services.settings_values import Namespace
from services.wire.names import InvalidName, normalize_name, to_token
from services.wire.subjects import Subjects


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("lobby", "lobby"),
        ("Lobby-2_x", "Lobby-2_x"),
        ("a.b", "a=2Eb"),
        ("*", "=2A"),
        (">", "=3E"),
        ("$SYS", "=24SYS"),
        ("a b", "a=20b"),
        ("=2E", "=3D2E"),
        ("ä", "=C3=A4"),
        ("live:x", "live=3Ax"),
    ],
)
def test_tokens(name: str, token: str) -> None:
    assert to_token(name) == token


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x7f", "\x85", "\ud800", "x" * 129, "ü" * 65])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidName):
        normalize_name(name)


def test_composed_and_decomposed_are_one_name() -> None:
    assert normalize_name("cafe\u0301") == normalize_name("caf\u00e9") == "café"
    assert normalize_name("\u0344" * 32)  # decomposes to two characters each and fits


@pytest.mark.timing
def test_an_endless_run_of_combining_marks_costs_nothing() -> None:
    started = time.thread_time()
    with pytest.raises(InvalidName, match="128 bytes"):
        normalize_name("a" + "\u0315\u0300\u0321" * 20_000)
    assert time.thread_time() - started < 0.1


def test_subjects_of_hostile_names_are_one_token() -> None:
    subjects = Subjects("t")
    for name in ("a.b", "*", ">", "$JS.API", " "):
        for subject in (
            subjects.room_in("default", name),
            subjects.room_out("default", name),
            subjects.room_members("default", name),
            subjects.presence_room("default", name),
        ):
            assert subject.count(".") == 4
            assert not set("*> $") & set(subject)
        for subject in (subjects.user_in(name), subjects.user_out(name)):
            assert subject.count(".") == 3


@pytest.mark.parametrize(
    ("room", "namespace"),
    [
        ("lobby", "default"),
        ("live:cursor", "live"),
        ("live:", "live"),
        ("live", "default"),
        (":live", "default"),
        ("other:x", "default"),
        ("Live:x", "default"),
        ("orders:1:2", "orders"),
        ("default:x", "default"),
    ],
)
def test_the_namespace_of_a_room(room: str, namespace: str) -> None:
    settings = Settings(namespaces={"orders": Namespace()})
    assert settings.namespace_of(room) == namespace
