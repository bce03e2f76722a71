"""The table of guards matches this code, and covers every test in the threat table of the security page."""

import re

import pytest

from tests.guards.guard import Guard
from tests.guards.table import GUARDS, NOT_TAKEN_OUT
from tests.support.docs import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_table_says(guard: Guard) -> None:
    for edit in guard.edits:
        assert (ROOT / edit.file).read_text().count(edit.guard) == 1, edit
    for test in guard.tests:
        file, *_, name = test.split("::")
        assert re.search(rf"def {name}\b", (ROOT / file).read_text()), test


def test_every_test_of_a_threat_has_a_guard_to_notice() -> None:
    threats = PAGE[PAGE.index("## Threats") : PAGE.index("## What is left to a proxy")]
    named = set(re.findall(r"`(test_\w+)`", threats))
    noticing = {test.rpartition("::")[2] for guard in GUARDS for test in guard.tests}
    assert sorted(named - noticing - set(NOT_TAKEN_OUT)) == []
    assert sorted(noticing & set(NOT_TAKEN_OUT)) == []
    for name in NOT_TAKEN_OUT:
        assert f"`{name}`" in PAGE
