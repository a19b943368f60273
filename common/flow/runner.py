"""Runs flows: begins them, carries on those of processes that are gone, and hands back its own when told to stop.

Recovery is not a mode: a flow is driven by asking `decide` what its journal says, whoever wrote that. `adopt` looks for running flows of
this process's home that nobody carries on, at the start and every few seconds, and takes them over by raising their fence.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self, assert_never

import msgspec

from common.base.clock import Clock
from common.base.errors import Broken, Fault, Invalid, Unavailable
from common.base.failpoints import OFF, Failpoints
from common.base.limits import FLOWS_MAX
from common.db.fence import Fence, Superseded, fenced
from common.db.journal import FlowRow, FlowState, Journal
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.flow.driver import Driver, HandedBack, Run
from common.flow.lines import Lines, Place
from common.flow.places import OPENED
from common.flow.steps import Flow
from common.host.lean import structlog
from common.machine.decide import Mark
from common.machine.saga import Saga
from common.wire.values import WrongValue

_LOOK_AGAIN_S = 0.5
_log = structlog.get_logger(__name__)


class StillRunning(Unavailable):
    """{saga} of {subject} is at work already."""


class EndedBefore(Broken):
    """{saga} of {subject} did not succeed: {reason}"""


class RefusedBefore(Invalid):
    """This very request was refused before: {reason}"""

    code = 409


class Expired(Broken):
    """{saga} of {subject} was not begun before its deadline, and is not begun now."""


@dataclass(slots=True, eq=False)
class _Live:
    """A flow that this process carries on. `run` is None until its fence is known."""

    place: Place | None
    run: Run | None = None
    task: asyncio.Task[Exception | None] | None = None

    @property
    def is_idle(self) -> bool:
        return self.run is None or self.run.is_idle


@dataclass(slots=True)
class _Kinds:
    """How the flow of a row is made anew: the class of each saga, and what its flows act on."""

    known: dict[str, tuple[type[Flow[Any, Any]], Any]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def restored(self, row: FlowRow) -> Flow[Any, Any] | None:
        """None, and a word in the log once, for a saga that this release does not have."""
        if row.saga in self.known:
            kind, parts = self.known[row.saga]
            try:
                return kind.restored(row, parts)
            except WrongValue as exc:
                self._note(row, f"its arguments cannot be read: {exc}")
                return None
        self._note(row, "this process knows no such saga")
        return None

    def _note(self, row: FlowRow, reason: str) -> None:
        if row.id not in self.unknown:
            self.unknown.add(row.id)
            _log.error("flow cannot be carried on", saga=row.saga, flow_id=row.id, reason=reason)


class Runner:
    """Runs flows in the background (`start`) or for a caller who waits (`run`). `async with` waits for all of them at its end.

    limit    flows that are begun in the background and driven at once; as many again may be carried on
    outbox   takes the letters of their steps
    """

    def __init__(
        self, journal: Journal, *, clock: Clock, owner: Owner, limit: int = FLOWS_MAX, failpoints: Failpoints = OFF,
        outbox: Outbox | None = None,
    ) -> None:  # fmt: skip
        self._journal = journal
        self._owner = owner
        self._clock = clock
        self._failpoints = failpoints
        self._driver = Driver(journal, clock=clock, failpoints=failpoints, outbox=outbox, is_draining=lambda: self._is_draining)
        self._group = asyncio.TaskGroup()
        self._places = asyncio.Semaphore(limit)
        self._carried = asyncio.Semaphore(limit)
        self._lines = Lines()
        self._kinds = _Kinds()
        self._live: dict[str, _Live] = {}
        self._opening: Counter[str] = Counter()
        self._is_draining = False

    def knows(self, parts: object, *kinds: type[Flow[Any, Any]]) -> None:
        """Flows of these kinds can be carried on after a crash; `parts` is what they act on."""
        for kind in kinds:
            self._kinds.known[kind.saga.name] = kind, parts

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.hand_back()
        await self._group.__aexit__(exc_type, exc, traceback)

    @property
    def subjects(self) -> frozenset[str]:
        """What the flows of this process work on now."""
        return frozenset(live.run.flow.subject for live in self._live.values() if live.run is not None)

    async def is_open(self, saga: Saga, subject: str) -> bool:
        """True while such a flow of that subject runs or is parked, in whatever process."""
        return await self._journal.is_open(saga.name, subject)

    @asynccontextmanager
    async def turn(self, subject: str) -> AsyncIterator[None]:
        """Inside, no flow of this process works on `subject`: in line behind those that were begun before."""
        place = self._lines.join(subject)
        try:
            await place.reached.wait()
            yield
        finally:
            place.leave()

    def hand_back(self) -> None:
        """Flows that wait for their turn or their next try stop now, the others behind their step; the rows say where they are."""
        self._is_draining = True
        for live in tuple(self._live.values()):
            if live.is_idle and live.task is not None:
                live.task.cancel()

    # -- beginning ----------------------------------------------------------------------------------------------------

    async def start(self, flow: Flow[Any, Any]) -> bool:
        """Return once the intent is durable and go on in the background. False: a flow of this id exists already."""
        place = self._join_line(flow)
        try:
            await self._places.acquire()
        except BaseException:
            _leave(place)
            raise
        live = await self._opened(flow, place, release=True)
        if live is None:
            await self._take_if_free(flow.id)
        return live is not None

    async def run(self, flow: Flow[Any, Any]) -> None:
        """Return when the flow is completed, with its outputs. Raises the fault that turned it back, or FlowParked.

        The same flow again: its end, when it has ended; else that of the one that runs, here or, until the caller's deadline, in
        another process, which may be dead: then it is carried on here. StillRunning when it runs elsewhere for too long.
        """
        live = self._live.get(flow.id) or await self._opened(flow, self._join_line(flow))
        for looks in count():
            if live is not None and await self._is_ended_by(live, flow):
                return
            live = await self._take_if_free(flow.id)
            if live is None and (row := await self._journal.flow(flow.id)) is None:
                # Its row was written and lost: a database that broke its word.
                live = await self._opened(flow, self._join_line(flow))
            elif live is None and row is not None and await self._has_ended(flow, row):
                return
            if looks and live is None:
                await self._wait_for_another_process(flow)

    async def _is_ended_by(self, live: _Live, flow: Flow[Any, Any]) -> bool:
        """True when it is completed; False when another process has taken it over."""
        assert live.task is not None
        if live.run is not None:
            live.run.has_caller = True
        try:
            # A caller who leaves does not leave a step half done: the flow goes on to its end without it.
            fault = await asyncio.shield(live.task)
        except asyncio.CancelledError:
            if live.task.cancelled():
                raise HandedBack(saga=flow.saga.name, subject=flow.subject) from None
            raise
        if isinstance(fault, Superseded) or live.run is None:
            return False
        if fault is not None:
            raise fault
        flow.outputs = live.run.flow.outputs
        return True

    async def _wait_for_another_process(self, flow: Flow[Any, Any]) -> None:
        left_s = 0.0 if flow.deadline is None else flow.deadline - self._clock.monotonic()
        if left_s <= _LOOK_AGAIN_S or self._is_draining:
            raise StillRunning(saga=flow.saga.name, subject=flow.subject)
        await self._clock.sleep(_LOOK_AGAIN_S)

    async def _has_ended(self, flow: Flow[Any, Any], row: FlowRow) -> bool:
        """True when an earlier run of the same flow is completed; False while it runs. Raises EndedBefore, or RefusedBefore."""
        if row.is_refusal:
            raise RefusedBefore(reason=row.error or "")
        match row.state:
            case FlowState.COMPLETED:
                rows = await self._journal.entries(flow.id)
                flow.outputs = {each.step: each.output or {} for each in rows if each.mark is Mark.DONE}
                return True
            case FlowState.RUNNING:
                return False
            case FlowState.COMPENSATED | FlowState.PARKED | FlowState.ABANDONED:
                raise EndedBefore(saga=flow.saga.name, subject=flow.subject, reason=row.error or "")
            case state:
                assert_never(state)

    async def _opened(self, flow: Flow[Any, Any], place: Place | None, *, release: bool = False) -> _Live | None:
        """The flow's row is written and its task begun; None when there is such a row already."""
        live = None
        # Counted: of two that open one flow, the one that hears first that there is one must not take it over from the other.
        self._opening[flow.id] += 1
        try:
            if self._is_draining:
                raise HandedBack(saga=flow.saga.name, subject=flow.subject)
            if await self._open(flow):
                if self._failpoints.is_on:
                    await self._failpoints.reach(f"{flow.saga.name}.{OPENED}")
                live = self._begin(_Live(place, Run(flow, Fence(flow.id, 1))), flow.id, release=release)
        finally:
            self._opening -= Counter([flow.id])
            if live is None:
                _leave(place)
                if release:
                    self._places.release()
        return live

    async def _open(self, flow: Flow[Any, Any]) -> bool:
        left_s = None if flow.deadline is None else max(0.0, flow.deadline - self._clock.monotonic())
        return await self._journal.open(
            FlowRow(
                id=flow.id,
                saga=flow.saga.name,
                subject=flow.subject,
                arguments=msgspec.to_builtins(flow.arguments),
                context=flow.ctx.to_dict(),
                request_id=flow.ctx.request_id,
                home=self._owner.home,
                owner=str(self._owner),
            ),
            deadline_s=left_s,
        )

    # -- carrying on --------------------------------------------------------------------------------------------------

    async def adopt(self) -> int:
        """Carry on what nobody does, oldest first; how many flows that were."""
        rows = await self._journal.left_behind(self._owner)
        return sum(self._take_over(row) is not None for row in rows)

    async def _take_if_free(self, flow_id: str) -> _Live | None:
        """Carry on one flow, if nobody does."""
        rows = [row for row in await self._journal.left_behind(self._owner) if row.id == flow_id]
        if rows:
            return self._take_over(rows[0])
        live = self._live.get(flow_id)
        # One that has ended is there until the loop's next turn, which need not come before whoever asks here asks again.
        return None if live is None or live.task is None or live.task.done() else live

    def _take_over(self, row: FlowRow) -> _Live | None:
        """In line before whatever comes next for its subject. None: it runs here already, or cannot be read."""
        if row.id in self._live or row.id in self._opening or self._is_draining or (flow := self._kinds.restored(row)) is None:
            return None
        return self._begin(_Live(self._join_line(flow)), row.id, row=row, flow=flow)

    async def _carry_on(self, live: _Live, row: FlowRow, flow: Flow[Any, Any]) -> None:
        async with self._carried:
            with fenced(None):
                fence = await self._journal.adopt(row, self._owner)
                if fence is None:
                    return
                rows: Sequence[Any] = await self._journal.entries(row.id)
            _log.info("flow carried on", saga=row.saga, subject=row.subject, flow_id=row.id, fence=fence, last_owner=row.owner)
            live.run = Run(flow, Fence(row.id, fence))
            live.run.recall(rows)
            if row.is_over and not rows:
                fault = Expired(saga=row.saga, subject=row.subject)
                with fenced(None):
                    await self._journal.finish(row.id, FlowState.COMPENSATED, str(fault), fence=fence)
                raise fault
            await self._driver.drive(live.run)

    # -- one task for each ---------------------------------------------------------------------------------------------

    def _begin(
        self, live: _Live, flow_id: str, *, release: bool = False, row: FlowRow | None = None, flow: Flow[Any, Any] | None = None
    ) -> _Live:
        self._live[flow_id] = live
        work = self._guarded(live, flow_id, row, flow)
        live.task = self._group.create_task(work, name=flow_id)
        live.task.add_done_callback(lambda _: self._ended(live, flow_id, release=release))
        return live

    def _ended(self, live: _Live, flow_id: str, *, release: bool) -> None:
        _leave(live.place)
        if self._live.get(flow_id) is live:
            del self._live[flow_id]
        if release:
            self._places.release()

    async def _guarded(self, live: _Live, flow_id: str, row: FlowRow | None, flow: Flow[Any, Any] | None) -> Exception | None:
        """Returned, not raised: what ends one flow must not end the group of all."""
        try:
            if live.place is not None:
                await live.place.reached.wait()
            if row is not None and flow is not None:
                await self._carry_on(live, row, flow)
            elif live.run is not None:
                await self._driver.drive(live.run)
        except (Superseded, HandedBack) as exc:
            _log.info("flow left to another process", flow_id=flow_id, reason=str(exc))
            return exc
        except Fault as exc:
            _log.warning("flow ended with a fault", flow_id=flow_id, reason=str(exc))
            return exc
        except Exception as exc:
            _log.exception("flow stopped", flow_id=flow_id)
            return exc
        return None

    def _join_line(self, flow: Flow[Any, Any]) -> Place | None:
        return self._lines.join(flow.subject) if flow.is_lined_up else None


def _leave(place: Place | None) -> None:
    if place is not None:
        place.leave()
