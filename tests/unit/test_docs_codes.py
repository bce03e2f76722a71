"""The tables of codes in the docs are those of the code."""

import re
from pathlib import Path

import pytest

from services.wire.codes import CloseCode, ErrorCode
from tests.support.docs import ROOT
from tidings_cli.generate.code_tables import BEGIN, END, NoPlace, fill, main

PROTOCOL = ROOT / "docs" / "protocol.md"


def test_the_protocol_page_has_the_tables_of_the_code() -> None:
    assert main(["--check", str(PROTOCOL)]) == 0, "run: make docs"


def test_every_code_has_a_row_in_the_page() -> None:
    page = PROTOCOL.read_text(encoding="utf-8")
    for error in ErrorCode:
        assert f"| `{error.code}` |" in page
    for close in CloseCode:
        assert f"| {close.number} |" in page


def test_a_close_code_is_sent_or_said_to_be_reserved() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    # The library sends 1002 by itself.
    unsent = {each.number for each in CloseCode if f"CloseCode.{each.name}" not in code} - {1002}
    reserved = re.search(r"^([\d, and]+) are reserved", PROTOCOL.read_text(encoding="utf-8"), re.MULTILINE)
    assert reserved is not None
    assert {int(number) for number in re.findall(r"\d+", reserved[1])} == unsent


def test_a_stale_page_is_reported_and_then_rewritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nstale table\n{END}\nafter\n", encoding="utf-8")
    assert main(["--check", str(page)]) == 1
    assert "make docs" in capsys.readouterr().err
    assert main([str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale table" not in text
    assert main(["--check", str(page)]) == 0


@pytest.mark.parametrize(
    "page",
    ["no markers", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"],
    ids=["none", "no end", "wrong order", "twice"],
)
def test_a_page_needs_one_place_for_them(page: str) -> None:
    with pytest.raises(NoPlace):
        fill(page)
