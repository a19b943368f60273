"""What a process does every few seconds to stay the owner of its flows."""

import asyncio
from typing import cast

import pytest
import structlog

from common.base.errors import Unavailable
from common.base.limits import LEASE_RENEW_S, LEASE_S
from common.db.lease import Leases
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.flow.keeper import Keeper
from common.flow.relay import Relay
from common.flow.runner import Runner
from common.testing.clock import JumpingClock

ME = Owner(process="api.h1", home="api", boot="1")


class Parts:
    """All four in one: what was asked of them, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_away = False

    def _ask(self, what: str) -> None:
        if self.is_away:
            raise Unavailable(what="database", reason="away")
        self.asked.append(what)

    async def renew(self, owner: str) -> None:
        self._ask(f"renew {owner}")

    async def release(self, owner: str) -> None:
        self._ask(f"release {owner}")

    async def adopt(self) -> int:
        self._ask("adopt")
        return 0

    def poke(self) -> None:
        self.asked.append("poke")


LOOK = [f"renew {ME}", "adopt", "adopt", "poke"]


def keeper(parts: Parts, clock: JumpingClock) -> Keeper:
    return Keeper(cast(Leases, parts), cast(Runner, parts), cast(Outbox, parts), cast(Relay, parts), owner=ME, clock=clock)


async def test_a_process_has_its_lease_before_it_takes_over_anything_and_then_sends_what_it_took() -> None:
    parts = Parts()
    await keeper(parts, JumpingClock()).begin()
    assert parts.asked == LOOK


async def test_a_process_does_not_begin_without_its_lease() -> None:
    parts = Parts()
    parts.is_away = True
    with pytest.raises(Unavailable):
        await keeper(parts, JumpingClock()).begin()


async def test_the_lease_is_renewed_well_before_it_runs_out() -> None:
    assert 2 * LEASE_RENEW_S < LEASE_S
    parts, clock = Parts(), JumpingClock()
    task = asyncio.ensure_future(keeper(parts, clock).run())
    await asyncio.sleep(0)
    await clock.advance(3 * LEASE_RENEW_S)
    task.cancel()
    assert parts.asked == LOOK * 3


async def test_a_database_that_is_away_is_waited_for_with_one_warning_and_nothing_is_taken_without_a_lease() -> None:
    parts, clock = Parts(), JumpingClock()
    task = asyncio.ensure_future(keeper(parts, clock).run())
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            parts.is_away = True
            await clock.advance(3 * LEASE_RENEW_S)
            assert parts.asked == []
            parts.is_away = False
            await clock.advance(LEASE_RENEW_S)
            assert parts.asked == LOOK
            parts.asked.clear()
    task.cancel()
    assert [line["event"] for line in logged] == ["lease not renewed"] * 2


async def test_at_its_end_a_process_gives_its_lease_back_if_it_can() -> None:
    parts = Parts()
    await keeper(parts, JumpingClock()).end()
    assert parts.asked == [f"release {ME}"]
    parts.is_away = True
    await keeper(parts, JumpingClock()).end()
