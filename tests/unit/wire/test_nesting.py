"""How deep JSON is nested, told from its bytes."""

import pytest
from hypothesis import given, strategies as st

from common.base.limits import NESTING_MAX
from common.wire.nesting import is_surely_flat

LENGTHS = st.sampled_from([0, NESTING_MAX, 4000, 5000])


@given(st.integers(0, NESTING_MAX + 3), st.integers(0, NESTING_MAX + 3), LENGTHS, st.booleans())
def test_bytes_are_flat_as_long_as_fewer_containers_begin_in_them_than_may_be_nested(
    lists: int, objects: int, others: int, others_first: bool
) -> None:
    openings, rest = b"[" * lists + b"{" * objects, b"]" * others
    written = rest + openings if others_first else openings + rest
    assert is_surely_flat(written) is (lists + objects <= NESTING_MAX)


@pytest.mark.parametrize("length", [NESTING_MAX + 1, 4096, 4097])
@pytest.mark.parametrize("excess", [0, 1])
def test_the_last_one_that_is_too_many_counts(length: int, excess: int) -> None:
    openings = b"[" * (NESTING_MAX - 100) + b"{" * (100 + excess)
    assert is_surely_flat(openings.rjust(length, b"]")) is (excess == 0)
