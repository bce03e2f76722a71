"""Links between pages lead somewhere, and pages are found."""

from pathlib import Path

import pytest

from tests.support.docs import ROOT, anchors, links, name_of, pages


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        here = found.exists() and found.is_relative_to(ROOT)
        if not here or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_the_index_names_every_page_of_its_folder() -> None:
    for folder in (ROOT / "docs", ROOT / "docs" / "adr"):
        index = folder / "README.md"
        named = {(folder / target.partition("#")[0]).resolve() for target in links(index)}
        missing = [name_of(page) for page in pages() if page.parent == folder and page not in named | {index}]
        assert missing == []


def test_the_readme_leads_to_the_docs() -> None:
    assert "docs/README.md" in links(ROOT / "README.md")
