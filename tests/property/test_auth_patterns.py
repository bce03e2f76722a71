"""Patterns agree with a simple, slow definition of `*`."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from services.wire.grants import Patterns

few_letters = st.text(alphabet="ab:", max_size=12)
few_letters_and_stars = st.text(alphabet="ab:*", min_size=1, max_size=12)


@given(few_letters_and_stars, few_letters)
def test_a_pattern_is_the_regular_expression_it_stands_for(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
    assert Patterns([pattern]).matches(name) is expected


@given(st.lists(few_letters_and_stars, max_size=5), few_letters)
def test_a_set_is_the_union_of_its_patterns(patterns: list[str], name: str) -> None:
    expected = any(Patterns([pattern]).matches(name) for pattern in patterns)
    assert Patterns(patterns).matches(name) is expected


@given(st.text(alphabet=st.characters(exclude_characters="*"), min_size=1, max_size=40))
def test_a_pattern_without_star_matches_its_own_name(name: str) -> None:
    assert Patterns([name]).matches(unicodedata.normalize("NFC", name))
