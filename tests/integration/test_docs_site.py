"""The site of the documentation: strict build, no requests to other hosts, rendered diagrams."""

import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.docs import ROOT, blocks, pages
from tests.support.requires import missing, need

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("docs site")]

_NO_NODE = 69  # what scripts/node.sh ends with
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=["']?(?P<src>[^"'\s>]+)|"""
    r"""<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|preconnect))[^>]*?\bhref=["']?(?P<href>[^"'\s>]+)"""
)
_DIAGRAMS = [block for page in pages() for block in blocks(page) if block.info == "mermaid"]


def _build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "scripts/site.sh", "build", "--site-dir", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        missing("mkdocs-material", "`make site` installs it")
    folder = tmp_path_factory.mktemp("site")
    built = _build(folder)
    if built.returncode == _NO_NODE:
        missing("Node.js >= 20", "it fetches what draws the diagrams")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _document(url: str, profile: Path) -> str:
    """Return the page as a browser has it after its scripts ran. The browser reaches this machine alone."""
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", f"--user-data-dir={profile}",
        "--virtual-time-budget=20000", "--dump-dom",
    ]  # fmt: skip
    command = [need("chromium"), *options, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout


def test_every_page_of_the_index_is_in_the_site(site: Path) -> None:
    built = {path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")}
    of_docs = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in pages()
        if path.is_relative_to(ROOT / "docs")
    }
    wanted = {name.removesuffix("README").rstrip("/") or "." for name in of_docs}
    assert wanted | {"five-minutes", "changelog", "contributing", "reporting"} <= built


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    foreign = {
        (path.relative_to(site).as_posix(), found["src"] or found["href"])
        for path in site.rglob("*.html")
        for found in _LOADED.finditer(path.read_text(encoding="utf-8"))
        if "//" in (found["src"] or found["href"])
    }
    assert foreign == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?https?://", styles)


def test_the_search_finds_a_setting(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("TIDINGS_NATS_URL" in entry["text"] for entry in index["docs"])


def test_a_link_that_leads_nowhere_fails_the_build(site: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "broken.md").write_text("# Broken\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    config = tmp_path / "mkdocs.yml"
    hooks = ROOT / "scripts" / "site" / "hooks.py"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nhooks: ['{hooks}']\n", encoding="utf-8"
    )
    built = _build(tmp_path / "site", "--config-file", str(config))
    assert built.returncode != 0
    assert "'broken.md' contains a link 'nowhere.md'" in built.stderr
    assert re.search(
        r'not included in the "nav".*\n.*broken.md', built.stderr
    )  # no row of the index names it


def test_a_browser_draws_a_page_with_its_diagram(address: str, tmp_path: Path) -> None:
    document = _document(f"{address}/architecture/", tmp_path)
    assert '<div class="mermaid">' in document  # the theme puts the picture into it
    assert '<pre class="mermaid">' not in document


def test_a_browser_can_draw_every_diagram(address: str, site: Path, tmp_path: Path) -> None:
    sources = {str(block): block.body for block in _DIAGRAMS}
    assert sources
    script = f"""
        const sources = {json.dumps(sources)};
        const faults = [];
        (async () => {{
            let number = 0;
            for (const [name, text] of Object.entries(sources)) {{
                try {{ await mermaid.render("d" + number++, text); }} catch (fault) {{ faults.push(name + ": " + fault); }}
            }}
            document.title = "drawn " + number + "; " + (faults.join("; ") || "no faults");
        }})();
    """
    page = f'<!doctype html><meta charset="utf-8"><title>none</title><script src="site/mermaid.tiny.js"></script><body><script>{script}</script>'
    (site / "diagrams.html").write_text(page, encoding="utf-8")
    document = _document(f"{address}/diagrams.html", tmp_path)
    assert re.search("<title>(.*?)</title>", document)[1] == f"drawn {len(sources)}; no faults"  # type: ignore[index]
