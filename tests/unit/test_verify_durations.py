"""Parsing of durations."""

import pytest

from tidings_cli import CommandFailed
from tidings_cli.verify.campaign import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("5m", 300), ("1.5h", 5400), ("12", 12), (" 2s ", 2)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 day", "1s2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed):
        seconds_of(text)
