"""The depth of JSON, counted without parsing it."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.wire.content import too_deep

LIMIT = 64

# Few leaves and short limits: what matters is brackets, in structure and in strings.
documents = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\a', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='[{"\\', max_size=3), inner),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(documents, st.integers(0, 5))
def test_depth_is_that_of_the_parsed_document(document: Any, limit: int) -> None:
    assert too_deep(json.dumps(document).encode(), limit) is (depth_of(document) > limit)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_the_limit_is_exact(opening: bytes, closing: bytes) -> None:
    assert not too_deep(opening * LIMIT + b"1" + closing * LIMIT, LIMIT)
    assert too_deep(opening * (LIMIT + 1) + b"1" + closing * (LIMIT + 1), LIMIT)


@pytest.mark.timing
@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 32_000 + b"]" * 32_000,
        b"[" + (b"[" * 63 + b"]" * 63 + b",") * 500 + b"1]",
        b'["' + b"[" * 64_000 + b'"]',
        b'["' + b'\\"' * 32_000 + b'",' + b"[]," * 65 + b"1]",
    ],
)
def test_hostile_documents_cost_little(hostile: bytes) -> None:
    started = time.thread_time()
    too_deep(hostile, LIMIT)
    assert time.thread_time() - started < 0.5
