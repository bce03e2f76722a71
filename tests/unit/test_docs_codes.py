"""The tables of codes in the docs are those of the code."""

import re

import pytest

from services.wire.codes import CloseCode, ErrorCode
from tests.support.docs import ROOT
from tidings_cli.generate.pages import BEGIN, END, with_codes

PROTOCOL = ROOT / "docs" / "protocol.md"


def test_every_code_has_a_row_in_the_page() -> None:
    page = PROTOCOL.read_text(encoding="utf-8")
    for error in ErrorCode:
        assert f"| `{error.code}` |" in page
    for close in CloseCode:
        assert f"| {close.number} |" in page


def test_a_close_code_is_sent_or_documented_as_reserved() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    # The library sends 1002 by itself.
    unsent = {each.number for each in CloseCode if f"CloseCode.{each.name}" not in code} - {1002}
    reserved = re.search(r"^([\d, and]+) are reserved", PROTOCOL.read_text(encoding="utf-8"), re.MULTILINE)
    assert reserved is not None
    assert {int(number) for number in re.findall(r"\d+", reserved[1])} == unsent


@pytest.mark.parametrize(
    "page",
    ["no markers", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"],
    ids=["none", "no end", "wrong order", "twice"],
)
def test_a_page_needs_one_pair_of_markers(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs one"):
        with_codes(page)
