"""MkDocs settings besides mkdocs.yml: the navigation, pages from outside docs/, and files that pages load.

- The navigation is made from docs/README.md: headings are sections, links in its tables are pages. Readers of the site
  and of the repository share one list.
- README, changelog and similar files stay at the top of the repository; the site has them too.
- A link from a page to another file of the repository leads to a copy of that file in the site.
- Words after a fence's language are for the tests of the examples, and are removed: MkDocs would not know the fence.
- Links to folders lose their target, because a site has no listing.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Version 11: the theme colours its shapes; those of version 12 are unreadable in the dark theme.
MERMAID = HERE / "node_modules" / "@mermaid-js" / "tiny"

# Pages at the top of the repository, and where the site has them.
ADOPTED = {
    "README.md": "five-minutes.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
ASSETS = {
    "site/mermaid.tiny.js": MERMAID / "dist" / "mermaid.tiny.js",
    "site/mermaid.LICENSE.txt": MERMAID / "LICENSE",
    "site/site.css": HERE / "site.css",
    "site/favicon.svg": HERE / "favicon.svg",
}
COPIES = "files"

_FENCE = re.compile(r"^(?P<mark>```\w*)[^\n]*(?P<body>\n.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<text>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s]+)\)")
_ROW_LINK = re.compile(r"^\| \[(?P<title>[^\]]+)\]\((?P<target>[^)#]+)\)", re.MULTILINE)
_SECTION = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation of the index."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    titles = list(_SECTION.finditer(index))
    ends = [title.start() for title in titles[1:]] + [len(index)]
    nav: list[Any] = [{"Documentation": "README.md"}]
    for title, end in zip(titles, ends, strict=True):
        rows = _ROW_LINK.finditer(index, title.end(), end)
        nav.append({title["title"]: [_entry(row["title"], row["target"]) for row in rows]})
    config.nav = nav
    return config


def _entry(title: str, target: str) -> dict[str, Any]:
    if target == "adr/README.md":
        decisions = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
        return {title: [target, *(f"adr/{name}" for name in decisions)]}
    return {title: ADOPTED.get(target.removeprefix("../"), target)}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the adopted pages and the assets."""
    for source, shown in ADOPTED.items():
        files.append(File.generated(config, shown, abs_src_path=str(ROOT / source)))
    for shown, path in ASSETS.items():
        if not path.is_file():
            raise PluginError(f"{path.relative_to(ROOT)} is not there: `make site` fetches it")
        files.append(File.generated(config, shown, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links within the repository into links within the site."""
    source = Path(page.file.abs_src_path or "")

    def turned(link: re.Match[str]) -> str:
        path, hash_sign, anchor = link["target"].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return link[0]
        found = (source.parent / path).resolve()
        if found.is_dir():
            return link["text"].removeprefix("[").removesuffix("]")
        shown = _place(found, files, config)
        if shown is None:
            return link[0]  # MkDocs says that it leads nowhere
        relative = posixpath.relpath(shown, posixpath.dirname(page.file.src_uri))
        return f"{link['text']}({relative}{hash_sign}{anchor})"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[end : fence.start()]), fence["mark"] + fence["body"]]
        end = fence.end()
    return "".join(parts) + _LINK.sub(turned, markdown[end:])


def _place(found: Path, files: Files, config: MkDocsConfig) -> str | None:
    """Return the site's path of a file of the repository. Copies the file if the site does not have it."""
    if not found.is_file() or not found.is_relative_to(ROOT):
        return None
    name = found.relative_to(ROOT).as_posix()
    if name in ADOPTED:
        return ADOPTED[name]
    if found.is_relative_to(ROOT / "docs"):
        return found.relative_to(ROOT / "docs").as_posix()
    # With a suffix that browsers show as text instead of downloading it.
    shown = f"{COPIES}/{name}" if found.suffix in {".svg", ".png", ".json"} else f"{COPIES}/{name}.txt"
    if files.get_file_from_path(shown) is None:
        files.append(File.generated(config, shown, abs_src_path=str(found)))
    return shown
