"""Following a request until its state is final."""

import pytest

from common.app.following import follow
from common.base.errors import NotFound, Timeout
from common.testing.clock import JumpingClock


async def followed(states: list[str], told: list[str], clock: JumpingClock, timeout_s: float = 60.0) -> str:
    """The last of `states` is seen for ever."""
    seen = iter(states)

    async def look() -> str:
        return next(seen, states[-1])

    return await follow(
        look,
        is_final=lambda state: state == "in-use",
        shown=lambda state: state,
        tell=told.append,
        clock=clock,
        what="volume v",
        timeout_s=timeout_s,
    )


async def test_each_new_state_is_told_once_and_the_final_one_given() -> None:
    told: list[str] = []
    clock = JumpingClock(jumps=True)
    states = ["reserved", "reserved", "attaching", "attaching", "reserved", "in-use"]
    assert await followed(states, told, clock) == "in-use"
    assert told == ["reserved", "attaching", "reserved", "in-use"]


async def test_what_is_final_at_first_sight_is_not_waited_for() -> None:
    told: list[str] = []
    clock = JumpingClock()
    assert await followed(["in-use"], told, clock) == "in-use"
    assert (told, clock.slept) == (["in-use"], [])


async def test_looks_become_rarer_up_to_one_a_second() -> None:
    clock = JumpingClock(jumps=True)
    await followed(["attaching"] * 20 + ["in-use"], [], clock)
    assert clock.slept == sorted(clock.slept)
    assert (clock.slept[0], clock.slept[-1], len(clock.slept)) == (0.05, 1.0, 20)


async def test_what_does_not_become_final_ends_in_a_timeout_that_names_the_state() -> None:
    clock = JumpingClock(jumps=True)
    with pytest.raises(Timeout, match=r"volume v \(now attaching\) gave no answer within 5 s"):
        await followed(["attaching"], [], clock, timeout_s=5)
    assert 5 <= clock.monotonic() <= 6


async def test_an_error_of_the_look_is_the_follower_s() -> None:
    async def look() -> str:
        raise NotFound(kind="Volume", name="v")

    with pytest.raises(NotFound):
        await follow(look, is_final=bool, shown=str, tell=lambda _: None, clock=JumpingClock(), what="volume v")
