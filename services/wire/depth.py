"""How deep JSON may be nested, wherever a stranger's JSON is passed on.

msgspec's own limit is the interpreter's recursion limit less what the stack already holds, so it differs between
the place that takes a message in and the places that read it later: without a limit of our own, far below it, a
message could be acknowledged, stored, and then be unreadable for everybody.
"""

import re
from itertools import accumulate

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level in, one level out
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(json: bytes, limit: int) -> bool:
    """Return whether well-formed JSON is nested deeper than `limit` levels.

    Half a microsecond where there are few brackets, which is nearly always. Otherwise linear: some ms for 64 KiB.
    """
    if json.count(b"[") + json.count(b"{") <= limit:
        return False
    steps = memoryview(STRING.sub(b"", json).translate(_STEPS, _OTHERS)).cast("b")
    return next(filter(limit.__lt__, accumulate(steps)), None) is not None
