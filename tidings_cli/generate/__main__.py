"""Write what is generated from the contracts.

`python -m tidings_cli.generate [--check] --types clients/js/src/generated --python clients/python/tidings_client/generated
--page docs/reference.md`
"""

import argparse
import sys
from pathlib import Path

from tidings_cli.generate import markdown, python, typescript


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` say whether they are current. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="contracts", description="Write what is generated from the contracts."
    )
    parser.add_argument("--types", type=Path, required=True, help="folder of the TypeScript types")
    parser.add_argument("--python", type=Path, required=True, help="folder of the Python types")
    parser.add_argument("--page", type=Path, required=True, help="page of the reference")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    asked = parser.parse_args(arguments)
    wanted = {asked.types / name: text for name, text in typescript.files().items()}
    wanted |= {asked.python / name: text for name, text in python.files().items()}
    wanted[asked.page] = markdown.page()
    stale = {path: text for path, text in wanted.items() if _text_of(path) != text}
    if asked.check:
        for path in stale:
            sys.stderr.write(f"{path} is out of date; run: make docs\n")
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
