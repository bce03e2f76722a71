"""Size of the files that a browser loads before it shows the page."""

import gzip

import pytest

from tests.browser.windows import DIST
from tests.support.requires import missing

pytestmark = pytest.mark.browser

KB = 1024


def test_the_bundle_is_small() -> None:
    if not DIST.is_dir():
        missing("the built dashboard", "make dashboard")
    sizes = {
        kind: sum(len(gzip.compress(file.read_bytes())) for file in DIST.glob(f"assets/*.{kind}"))
        for kind in ("js", "css", "woff2")
    }
    assert sizes["js"] < 140 * KB, sizes
    assert sizes["css"] < 10 * KB, sizes
    assert sizes["woff2"] < 60 * KB, sizes
    assert {file.suffix for file in DIST.glob("assets/*")} == {".js", ".css", ".woff2"}
