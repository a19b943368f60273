"""A short run of the fuzzer's targets; `make fuzz` runs them for long."""

import pytest
from hypothesis import given, settings, strategies as st

from tests.property.amqp.fuzzed import AMQP_TARGETS, amqp_seeds

SEEDS = tuple(amqp_seeds())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """What a broker says, with a piece of it replaced."""
    data = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 20)))
    return data[:start] + draw(st.binary(max_size=8)) + data[end:]


inputs = st.binary(max_size=200) | damaged() | st.lists(damaged(), max_size=3).map(b"".join)


@pytest.mark.parametrize("target", AMQP_TARGETS)
@settings(max_examples=100)
@given(data=inputs)
def test_any_bytes_give_events_or_the_end_with_a_reason(target: str, data: bytes) -> None:
    AMQP_TARGETS[target](data)


@pytest.mark.parametrize("data", SEEDS, ids=range(len(SEEDS)))
def test_what_a_broker_says_is_taken_by_every_target(data: bytes) -> None:
    for run in AMQP_TARGETS.values():
        run(data)
