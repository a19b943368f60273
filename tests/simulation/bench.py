"""The simulated adapters outside a world, each act of which takes no time: for the suites of their ports."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from common.testing.fate import Fate, Strike, When
from common.testing.loop import VirtualLoop
from common.testing.process import Process
from tests.simulation.reality import Reality

T = TypeVar("T")

PROCESS = "bench"


class InstantProcess(Process):
    """Acts happen at once, so that it can live on a loop of real time."""

    async def act(self, name: str, act: Callable[[], T], *, takes_s: float, failure: Callable[[], Exception]) -> T:
        return await super().act(name, act, takes_s=0.0, failure=failure)


class Workbench:
    """A reality with one process in it. What reality calls a violation is in `violations`."""

    def __init__(self, *hosts: str, total_gib: float = 10.0) -> None:
        self.violations: list[tuple[str, str]] = []
        self.reality = Reality(hosts, total_gib=total_gib, violated=lambda name, what: self.violations.append((name, what)))
        self.fate = Fate()
        self.process = InstantProcess(PROCESS, cast(VirtualLoop, _AnyLoop()), self.fate, ended=lambda _: None)

    def fail_next(self, act: str) -> None:
        """The next act of that name, such as "target.create_export", raises before it has an effect."""
        done = sum(event.name == act for event in self.fate.events)
        self.fate.plan(Strike(f"{PROCESS}|effect {act}#{done + 1}", When.BEFORE, "raise"))


class _AnyLoop:
    """The loop that runs when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)
