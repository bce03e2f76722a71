"""Write what is generated from declarations: `python -m tidings_cli.generate [--check] [--root FOLDER]`."""

import argparse
import sys
from pathlib import Path

from tidings_cli import configuration
from tidings_cli.generate import pages, python, typescript


def generated(root: Path) -> dict[Path, str]:
    """Return the text of each generated file of a checkout."""
    docs, clients = root / "docs", root / "clients"
    texts = {clients / "js/src/generated" / name: text for name, text in typescript.files().items()}
    texts |= {
        clients / "python/tidings_client/generated" / name: text for name, text in python.files().items()
    }
    return texts | {
        docs / "configuration.md": configuration.as_markdown(),
        docs / "metrics.md": pages.metrics(),
        docs / "protocol.md": pages.with_codes((docs / "protocol.md").read_text(encoding="utf-8")),
        docs / "reference.md": pages.reference(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` report those that are not current. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="generate", description="Write what is generated from declarations."
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the checkout; the working directory when absent"
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    asked = parser.parse_args(arguments)
    stale = {
        path: text
        for path, text in generated(asked.root).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if asked.check:
            sys.stderr.write(f"{path} is out of date; run: make docs\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if asked.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
