"""Number of examples of a property."""

import os


def examples(count: int) -> int:
    """Return `count`, or a tenth of it under the Hypothesis profile `brief`, which an explicit number would override."""
    return count // 10 if os.environ.get("HYPOTHESIS_PROFILE") == "brief" else count
