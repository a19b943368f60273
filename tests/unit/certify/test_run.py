"""A specification finds an adapter out, whatever way it fails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cinder_lite.certify.run import Outcome, results
from cinder_lite.certify.specification import NotAsSpecified, NotStaged, Specification, expect, refused, specifies
from cinder_lite.errors import VolumeBackendAPIException, VolumeIsBusy
from common.host.clock import SystemClock

CLOSED: list[str] = []


@asynccontextmanager
async def bench() -> AsyncIterator[str]:
    CLOSED.clear()
    yield "bench"
    CLOSED.append("closed")


async def passes(_: str) -> None:
    await asyncio.sleep(0)


async def hangs(_: str) -> None:
    await asyncio.get_running_loop().create_future()


async def in_a_group(_: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(crashes(_))


async def crashes(_: str) -> None:
    raise KeyError("nope")


def raising(error: Exception) -> Callable[[str], Awaitable[None]]:
    async def check(_: str) -> None:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "outcome", "says"),
    [
        (passes, Outcome.PASSED, ""),
        (hangs, Outcome.FAILED, "not done within 0.05 s"),
        (crashes, Outcome.FAILED, "found KeyError, which is no Fault: 'nope' (test_run.py:"),
        (in_a_group, Outcome.FAILED, "'nope' (test_run.py:"),
        (raising(NotStaged("no such thing")), Outcome.SKIPPED, "no such thing"),
        (raising(NotAsSpecified("found 1, wanted 2")), Outcome.FAILED, "found 1, wanted 2"),
        (raising(VolumeBackendAPIException(data="full")), Outcome.FAILED, "which the port does not allow here"),
    ],
)
async def test_each_end_is_told_and_the_next_is_tried(check: Callable[[str], Awaitable[None]], outcome: Outcome, says: str) -> None:
    specifications = [Specification(1, "it", check), Specification(2, "the next", passes)]
    found = [result async for result in results("driver", specifications, bench, SystemClock(), timeout_s=0.05)]
    assert [result.outcome for result in found] == [outcome, Outcome.PASSED]
    assert says in found[0].message
    assert CLOSED == ["closed"]


def test_a_specification_is_named_by_its_function() -> None:
    @specifies(7)
    async def it_is_listed(_: str) -> None:
        """Nothing is looked at here."""

    assert (it_is_listed.guarantee, str(it_is_listed)) == (7, "7 it is listed")


def test_expect_tells_what_was_found_and_what_was_wanted() -> None:
    expect("names", {"a"}, {"a"})
    with pytest.raises(NotAsSpecified, match=r"names: found \['a', 'b'\], wanted \['c'\]"):
        expect("names", {"b", "a"}, {"c"})


def say(error: Exception | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (None, "nothing was raised; wanted VolumeIsBusy"),
        (VolumeBackendAPIException(data="full"), "found VolumeBackendAPIException"),
        (VolumeIsBusy(volume_name="volume-1", reason="open"), "does not name volume-2"),
    ],
)
def test_refused_wants_that_error_and_the_name_in_it(error: Exception | None, says: str) -> None:
    with pytest.raises(NotAsSpecified, match=says), refused(VolumeIsBusy, naming="volume-2"):
        say(error)
    with refused(VolumeIsBusy, naming="volume-2"):
        say(VolumeIsBusy(volume_name="volume-2", reason="open"))
