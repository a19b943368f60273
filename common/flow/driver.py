"""Drives one flow: asks `decide`, writes the row, acts, writes the row, and asks again.

What came of a step is written together with the intent of the next one, or with the flow's end: nothing happens in between.

Every write is refused once another process has taken the flow over (common.db.fence): then driving ends with Superseded, and nothing
is said of the flow's outcome.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from common.base.clock import Clock
from common.base.errors import Broken, Fault, Invalid, Timeout, Unavailable
from common.base.failpoints import Failpoints
from common.base.limits import FAULT_TEXT_MAX, JOURNAL_PATIENCE_S
from common.base.retry import Retry
from common.db.fence import Fence, Superseded, fenced
from common.db.journal import Ending, FlowState, Journal, JournalRow, NewRow
from common.db.outbox import Outbox
from common.flow.places import FINISHED, Place, step_place
from common.flow.steps import Act, Flow, Output, TooLate
from common.host.lean import structlog
from common.machine.decide import Compensated, Completed, Do, Entry, Mark, Parked, Undo, calm_s, decide
from common.machine.saga import Step
from common.wire.failure import decode_failure, encode_failure
from common.wire.values import to_primitive

_BETWEEN_ATTEMPTS = Retry(first_delay_s=0.2, factor=3.0, delay_s_max=10.0)
_FAILURE = "failure"
_FIRST_PAUSE_S = 0.1
_log = structlog.get_logger(__name__)


class StepFailed(Broken):
    """Step {step} of {saga} failed in a way nobody foresaw: {reason}"""


class FlowParked(Broken):
    """{saga} of {subject} stopped at step {step} and needs a person: {reason}"""


class HandedBack(Unavailable):
    """{saga} of {subject} is not done: this process was told to stop, and the next one goes on with it."""


@dataclass(slots=True)
class Run:
    """What the driver knows of one run: the journal's rows as the engine sees them, and who else wants to know.

    has_caller   somebody waits for its end
    is_idle      it waits for its turn or for its next try, and can be handed back at once
    """

    flow: Flow[Any, Any]
    fence: Fence
    entries: list[Entry] = field(default_factory=list)
    is_told: bool = False
    has_caller: bool = False
    is_idle: bool = True
    unwritten: list[tuple[NewRow, str]] = field(default_factory=list)
    """Rows that go with the next write, each with the failpoint behind it."""

    def recall(self, rows: Sequence[JournalRow]) -> None:
        """Go on behind the rows that an earlier process wrote."""
        for row in rows:
            self.entries.append(row.entry)
            if row.mark is Mark.DONE:
                self.flow.outputs[row.step] = row.output or {}
            elif isinstance(row.output, dict) and _FAILURE in row.output:
                fault = decode_failure(row.output[_FAILURE])
                self.flow.fault = fault if isinstance(fault, Fault) else None
            self.is_told = self.is_told or row.mark is Mark.UNDOING

    def why(self) -> Fault:
        return self.flow.fault or Broken(what=self.flow.saga.name, reason="an earlier process died in it too often")


class Driver:
    """`is_draining` says that the process is told to stop: a flow is then left where it is, between two steps."""

    def __init__(
        self, journal: Journal, *, clock: Clock, failpoints: Failpoints, outbox: Outbox | None, is_draining: Callable[[], bool]
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._failpoints = failpoints
        self._outbox = outbox
        self._is_draining = is_draining

    async def drive(self, run: Run) -> None:
        """Return when the flow is completed. Raises the fault that turned it back, FlowParked, Superseded or HandedBack."""
        flow = run.flow
        flow.ctx = flow.ctx.fenced(str(run.fence))
        with (
            fenced(run.fence),
            structlog.contextvars.bound_contextvars(request_id=flow.ctx.request_id, saga=flow.saga.name, subject=flow.subject),
        ):
            while True:
                match decide(flow.saga, run.entries):
                    case Do(step, attempt):
                        await self._do(run, step, attempt)
                    case Undo(step, attempt):
                        await self._tell(run)
                        await self._undo(run, step, attempt)
                    case Completed():
                        await self._finish(run, FlowState.COMPLETED)
                        _log.info("flow completed")
                        return
                    case Compensated():
                        await self._tell(run)
                        await self._finish(run, FlowState.COMPENSATED, run.why())
                        _log.warning("flow compensated", reason=str(run.why()))
                        raise run.why()
                    case Parked(step):
                        await self._park(run, step)
                    case decision:
                        assert_never(decision)

    async def _do(self, run: Run, step: Step, attempt: int) -> None:
        await self._before(run, step, attempt)
        await self._reach(run, step, Place.BEFORE)
        self._note(run, step, NewRow(step=step.name, mark=Mark.BEGUN, attempt=attempt), Place.BEGUN)
        if not step.is_pure:
            await self._write(run)
        promised = len(run.flow.letters)
        try:
            output = await self._act(run, run.flow.method(step.name), step)
        except Fault as exc:
            if isinstance(exc, Superseded):
                self._stop_if_ours(run, exc)
            del run.flow.letters[promised:]
            self._fail(run, step, attempt, exc)
            return
        await self._reach(run, step, Place.ACTED)
        run.flow.outputs[step.name] = output or {}
        self._note(run, step, NewRow(step=step.name, mark=Mark.DONE, attempt=attempt, output=output), Place.DONE)

    def _fail(self, run: Run, step: Step, attempt: int, fault: Fault) -> None:
        run.flow.fault = fault
        _log.info("step failed", step=step.name, attempt=attempt, reason=str(fault))
        mark = Mark.REFUSED if isinstance(fault, Invalid) else Mark.FAILED
        self._note(run, step, _failure(step, mark, attempt, fault, is_final=not fault.retryable), None)

    async def _undo(self, run: Run, step: Step, attempt: int) -> None:
        assert step.undo is not None
        await self._before(run, step, attempt)
        await self._reach(run, step, Place.BEFORE, is_undo=True)
        self._note(run, step, NewRow(step=step.name, mark=Mark.UNDOING, attempt=attempt), Place.BEGUN, is_undo=True)
        await self._write(run)
        try:
            await self._act(run, run.flow.method(step.undo), step)
        except Fault as exc:
            if isinstance(exc, Superseded):
                self._stop_if_ours(run, exc)
            _log.warning("undo failed", step=step.name, undo=step.undo, attempt=attempt, reason=str(exc))
            self._note(run, step, _failure(step, Mark.UNDO_FAILED, attempt, exc), None)
            return
        await self._reach(run, step, Place.ACTED, is_undo=True)
        self._note(run, step, NewRow(step=step.name, mark=Mark.UNDONE, attempt=attempt), Place.DONE, is_undo=True)

    @staticmethod
    def _stop_if_ours(run: Run, exc: Superseded) -> None:
        """Somebody else carries this flow on: whatever the step did or did not do, it is not ours to say."""
        if exc.fields.get("flow_id") == run.flow.id:
            raise exc

    async def _act(self, run: Run, act: Act, step: Step) -> Output:
        ctx = run.flow.ctx.until(self._clock.monotonic() + step.timeout_s)
        try:
            async with asyncio.timeout(step.timeout_s):
                output = await act(ctx)
            # What the journal cannot keep fails here, where it is taken back.
            return None if output is None else to_primitive(output)
        except TimeoutError as exc:
            raise Timeout(what=f"step {step.name} of {run.flow.saga.name}", timeout_s=step.timeout_s) from exc
        except Fault:
            raise
        except Exception as exc:
            _log.exception("step failed in a way nobody foresaw", step=step.name)
            raise StepFailed(step=step.name, saga=run.flow.saga.name, reason=f"{type(exc).__name__}; see the log") from exc

    async def _tell(self, run: Run) -> None:
        if not run.is_told:
            await self._write(run)
            if not isinstance(run.why(), TooLate):
                await self._written(lambda: run.flow.turned_back(run.why()))
            run.is_told = True

    async def _park(self, run: Run, step: Step) -> None:
        fault = FlowParked(saga=run.flow.saga.name, subject=run.flow.subject, step=step.name, reason=str(run.why()))
        await self._write(run)
        await self._written(lambda: run.flow.parked(fault))
        await self._finish(run, FlowState.PARKED, fault)
        _log.error("flow parked", step=step.name, reason=str(fault))
        raise fault

    async def _before(self, run: Run, step: Step, attempt: int) -> None:
        """Between two steps a process that is told to stop hands the flow back; one with a caller at the door only when it waits."""
        pause_s = calm_s(run.entries, step) + (_BETWEEN_ATTEMPTS.delay_s(attempt - 1) if attempt > 1 else 0.0)
        if self._is_draining() and (pause_s or not run.has_caller):
            await self._write(run)
            raise HandedBack(saga=run.flow.saga.name, subject=run.flow.subject)
        if pause_s:
            await self._write(run)
            run.is_idle = True
            await self._clock.sleep(pause_s)
        run.is_idle = False

    async def _reach(self, run: Run, step: Step, place: Place, *, is_undo: bool = False) -> None:
        if self._failpoints.is_on:
            await self._failpoints.reach(step_place(run.flow.saga.name, step.name, place, is_undo=is_undo))

    async def _written(self, writing: Callable[[], Awaitable[None]]) -> None:
        """A database that is away for a while must not end a flow between an act and its row."""
        deadline = self._clock.monotonic() + JOURNAL_PATIENCE_S
        try:
            await writing()
        except Unavailable:
            await self._clock.sleep(_FIRST_PAUSE_S)
            async for trial in AsyncRetrying(
                retry=retry_if_exception_type(Unavailable),
                wait=wait_random_exponential(multiplier=0.1, max=5),
                stop=lambda _: self._clock.monotonic() >= deadline,
                sleep=self._clock.sleep,
                reraise=True,
            ):
                with trial:
                    await writing()

    async def _finish(self, run: Run, state: FlowState, fault: Fault | None = None) -> None:
        await self._write(run, Ending(state, _text(fault) if fault else None, run.fence.number))
        if self._failpoints.is_on:
            await self._failpoints.reach(f"{run.flow.saga.name}.{FINISHED}")

    @staticmethod
    def _note(run: Run, step: Step, row: NewRow, place: Place | None, *, is_undo: bool = False) -> None:
        """The row goes with the next write; from now on the engine sees it."""
        name = "" if place is None else step_place(run.flow.saga.name, step.name, place, is_undo=is_undo)
        run.unwritten.append((row, name))
        run.entries.append(Entry(row.step, row.mark, final=row.final))

    async def _write(self, run: Run, ending: Ending | None = None) -> None:
        """Everything that is noted, and the letters of what is done, in one transaction."""
        if not run.unwritten and ending is None:
            return
        rows = [row for row, _ in run.unwritten]
        letters = tuple(run.flow.letters) if any(row.mark is Mark.DONE for row in rows) else ()
        seq = len(run.entries) - len(rows)
        await self._written(
            lambda: self._journal.append(run.flow.id, rows, seq=seq, letters=letters, outbox=self._outbox, ending=ending)
        )
        places = [name for _, name in run.unwritten if name]
        run.unwritten.clear()
        if letters:
            run.flow.letters.clear()
        if self._failpoints.is_on:
            for name in places:
                await self._failpoints.reach(name)


def _failure(step: Step, mark: Mark, attempt: int, fault: Fault, *, is_final: bool = False) -> NewRow:
    output = {_FAILURE: encode_failure(fault)}
    return NewRow(step=step.name, mark=mark, attempt=attempt, final=is_final, output=output, error=_text(fault))


def _text(fault: Fault) -> str:
    return str(fault)[:FAULT_TEXT_MAX]
