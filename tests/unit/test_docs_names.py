"""Names in the docs exist, and no path of a developer's machine is in the repository."""

import re
from pathlib import Path

import pytest

from services.settings import Settings
from tests.support.docs import ROOT, name_of, pages, project_files

# Read by the console script and by the loader of the settings themselves.
_BESIDE_SETTINGS = {"TIDINGS_CONFIG", "TIDINGS_URL", "TIDINGS_TOKEN"}
_SETTINGS = {f"TIDINGS_{name.upper()}" for name in Settings.model_fields} | _BESIDE_SETTINGS
_VARIABLE = re.compile(r"\bTIDINGS_[A-Z0-9_]+\b(?!\*)")

# Put together here, so that this file is not its own finding.
_ABROAD = re.compile(
    "(?<![\\w.])/(?:" + "|".join(["work", "home/\\w+", "Users/\\w+"]) + ")/" + "|\\.\\./" + "shared"
)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_settings_named_in_the_docs_exist(page: Path) -> None:
    found = _VARIABLE.findall(page.read_text(encoding="utf-8"))
    named = {name if name in _SETTINGS else name.removesuffix("_FILE") for name in found} - {"TIDINGS_NAME"}
    assert named - _SETTINGS == set()


def test_nothing_names_a_place_on_one_machine() -> None:
    places = re.compile(f"{_ABROAD.pattern}|{re.escape(str(ROOT))}/")
    findings = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        findings += [
            f"{name_of(path)}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}"
            for hit in places.finditer(text)
        ]
    assert findings == []
