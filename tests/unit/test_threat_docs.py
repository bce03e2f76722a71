"""The security page names limits and tests that exist, and leaves out none."""

import re

from gateway.limits import Limit
from services.settings_values import Scope
from tests.support.docs import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_limit_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == {str(limit) for limit in Limit}


def test_every_scope_is_named() -> None:
    assert [scope for scope in Scope if f"`{scope}`" not in PAGE] == []


def test_the_tests_it_names_exist() -> None:
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 50
    assert sorted(name for name in named if not re.search(rf"def {name}\b", written)) == []
