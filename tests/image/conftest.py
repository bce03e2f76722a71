"""The image, built once for all tests here."""

import sys
import time
from collections.abc import Iterator

import pytest

from tests.image.bases import provide
from tests.image.composed import build
from tests.image.engine import Engine, prepared


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Podman and buildah, with the base images there and ours built."""
    engine = prepared()
    began = time.monotonic()
    how = provide(engine)
    provided = time.monotonic()
    build(engine)
    built = time.monotonic()
    sys.stderr.write(
        f"\nbase images {how}: {provided - began:.0f} s; image built: {built - provided:.0f} s\n"
    )
    yield engine
    # What earlier runs built, but not what the next one can go on from.
    engine.succeeds("podman", "image", "prune", "--force", "--filter", "until=2h", timeout_s=120)
