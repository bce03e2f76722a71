"""`python -m bench [SUBJECT[.MEASUREMENT]] [OPTION…]`: Tidings beside its peers, or one service alone.

Without a subject the comparison with peers runs (`bench.compare`). A subject runs all its measurements, each in a process
of its own, because they pin themselves to processors.
"""

import subprocess
import sys
from pathlib import Path

from bench import compare

SUBJECTS = ("delivery", "metrics", "presence")
_SHARED = ("__init__", "rig")


def measurements(subject: str) -> list[str]:
    """Return the names of a subject's measurements; none for an unknown subject."""
    if subject not in SUBJECTS:
        return []
    return sorted(
        path.stem for path in (Path(__file__).parent / subject).glob("*.py") if path.stem not in _SHARED
    )


def _listed() -> str:
    return "\n".join(f"  {subject:<12} {', '.join(measurements(subject))}" for subject in SUBJECTS)


def main(arguments: list[str]) -> int:
    """Run what the first argument names; return 1 if a measurement failed, 2 for wrong arguments."""
    if not arguments or arguments[0].startswith("-"):
        return compare.main(
            arguments, f"subjects, one service each (python -m bench SUBJECT[.NAME]):\n{_listed()}"
        )
    subject, _, name = arguments[0].partition(".")
    known = measurements(subject)
    if not known or (name and name not in known):
        print(
            f"unknown subject {arguments[0]}; choose SUBJECT or SUBJECT.NAME:\n{_listed()}", file=sys.stderr
        )
        return 2
    if arguments[1:] and not name:
        print(f"options need one measurement: {subject}.NAME of {', '.join(known)}", file=sys.stderr)
        return 2
    codes = [
        subprocess.call([sys.executable, "-m", f"bench.{subject}.{one}", *arguments[1:]])
        for one in ([name] if name else known)
    ]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
