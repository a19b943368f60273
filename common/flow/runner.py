"""Drives flows: asks `decide`, writes the row, acts, writes the row, and asks again."""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, assert_never

import msgspec
import structlog
from structlog.contextvars import bound_contextvars
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from common.base.clock import Clock
from common.base.errors import Broken, Fault, Invalid, Timeout, Unavailable
from common.base.limits import FAULT_TEXT_MAX, FLOWS_MAX, JOURNAL_PATIENCE_S
from common.base.retry import Retry
from common.db.journal import FlowRow, FlowState, Journal
from common.flow.steps import Act, Flow, Output
from common.machine.decide import Compensated, Completed, Do, Entry, Mark, Parked, Undo, decide
from common.machine.saga import Step
from common.wire.values import to_primitive

_BETWEEN_ATTEMPTS = Retry(first_delay_s=0.2, factor=3.0, delay_s_max=10.0)
_log = structlog.get_logger(__name__)


class StepFailed(Broken):
    """Step {step} of {saga} failed in a way nobody foresaw: {reason}"""


class FlowParked(Broken):
    """{saga} of {subject} stopped at step {step} and needs a person: {reason}"""


class StillRunning(Unavailable):
    """{saga} of {subject} is at work already."""


class EndedBefore(Broken):
    """{saga} of {subject} did not succeed: {reason}"""


@dataclass(slots=True)
class _Run:
    """What the driver knows of one run: the journal's marks, and the fault that turned it back."""

    flow: Flow[Any]
    entries: list[Entry] = field(default_factory=list)
    fault: Fault | None = None
    is_told: bool = False

    def why(self) -> Fault:
        return self.fault or Broken(what=self.flow.saga.name, reason="an earlier process recorded the failure in the journal")


class Runner:
    """Runs flows in the background (`start`) or for a caller who waits (`run`). `async with` waits for all of them at its end."""

    def __init__(self, journal: Journal, *, clock: Clock, owner: str, limit: int = FLOWS_MAX) -> None:
        self._journal = journal
        self._clock = clock
        self._owner = owner
        self._group = asyncio.TaskGroup()
        self._places = asyncio.Semaphore(limit)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._group.__aexit__(exc_type, exc, traceback)

    async def start(self, flow: Flow[Any]) -> bool:
        """Return once the intent is durable and go on in the background. False: a flow of this id exists already."""
        await self._places.acquire()
        try:
            is_new = await self._open(flow)
        except BaseException:
            self._places.release()
            raise
        if not is_new:
            self._places.release()
            return False
        self._group.create_task(self._in_background(flow), name=f"{flow.saga.name} {flow.id}")
        return True

    async def run(self, flow: Flow[Any]) -> None:
        """Return when the flow is completed. Raises the fault that turned it back, or FlowParked."""
        if not await self._open(flow):
            await self._ended_before(flow)
            return
        driven = self._group.create_task(self._driven(flow), name=f"{flow.saga.name} {flow.id}")
        # A caller who leaves does not leave a step half done: the flow goes on to its end without it.
        if (fault := await asyncio.shield(driven)) is not None:
            raise fault

    async def _driven(self, flow: Flow[Any]) -> Exception | None:
        """Returned, not raised: what ends one flow must not end the group of all."""
        try:
            await self._drive(_Run(flow))
        except Fault as exc:
            return exc
        except Exception as exc:
            _log.exception("flow stopped", saga=flow.saga.name, subject=flow.subject)
            return exc
        return None

    async def _ended_before(self, flow: Flow[Any]) -> None:
        """What an earlier run of the same flow came to."""
        row = await self._journal.flow(flow.id)
        match row.state if row else FlowState.RUNNING:
            case FlowState.COMPLETED:
                return
            case FlowState.RUNNING:
                raise StillRunning(saga=flow.saga.name, subject=flow.subject)
            case FlowState.COMPENSATED | FlowState.PARKED:
                raise EndedBefore(saga=flow.saga.name, subject=flow.subject, reason=row.error if row else "")

    async def _open(self, flow: Flow[Any]) -> bool:
        return await self._journal.open(
            FlowRow(
                id=flow.id,
                saga=flow.saga.name,
                subject=flow.subject,
                arguments=msgspec.to_builtins(flow.arguments),
                request_id=flow.ctx.request_id,
                owner=self._owner,
            )
        )

    async def _in_background(self, flow: Flow[Any]) -> None:
        try:
            if isinstance(fault := await self._driven(flow), Fault):
                _log.warning("flow ended with a fault", saga=flow.saga.name, subject=flow.subject, reason=str(fault))
        finally:
            self._places.release()

    async def _drive(self, run: _Run) -> None:
        flow = run.flow
        with bound_contextvars(request_id=flow.ctx.request_id, saga=flow.saga.name, subject=flow.subject):
            while True:
                match decide(flow.saga, run.entries):
                    case Do(step, attempt):
                        await self._do(run, step, attempt)
                    case Undo(step, attempt):
                        await self._tell(run)
                        await self._undo(run, step, attempt)
                    case Completed():
                        await self._finish(flow, FlowState.COMPLETED)
                        _log.info("flow completed")
                        return
                    case Compensated():
                        await self._tell(run)
                        await self._finish(flow, FlowState.COMPENSATED, run.why())
                        _log.warning("flow compensated", reason=str(run.why()))
                        raise run.why()
                    case Parked(step):
                        await self._park(run, step)
                    case decision:
                        assert_never(decision)

    async def _do(self, run: _Run, step: Step, attempt: int) -> None:
        await self._pause(attempt)
        await self._write(run, step, Mark.BEGUN, attempt)
        try:
            output = await self._act(run, run.flow.method(step.name), step)
        except Fault as exc:
            run.fault = exc
            _log.info("step failed", step=step.name, attempt=attempt, reason=str(exc))
            mark = Mark.REFUSED if isinstance(exc, Invalid) else Mark.FAILED
            await self._write(run, step, mark, attempt, final=not exc.retryable, error=exc)
            return
        run.flow.outputs[step.name] = output or {}
        await self._write(run, step, Mark.DONE, attempt, output=output)

    async def _undo(self, run: _Run, step: Step, attempt: int) -> None:
        assert step.undo is not None
        await self._pause(attempt)
        await self._write(run, step, Mark.UNDOING, attempt)
        try:
            await self._act(run, run.flow.method(step.undo), step)
        except Fault as exc:
            _log.warning("undo failed", step=step.name, undo=step.undo, attempt=attempt, reason=str(exc))
            await self._write(run, step, Mark.UNDO_FAILED, attempt, error=exc)
            return
        await self._write(run, step, Mark.UNDONE, attempt)

    async def _act(self, run: _Run, act: Act, step: Step) -> Output:
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

    async def _tell(self, run: _Run) -> None:
        if not run.is_told:
            async for trial in self._until_written():
                with trial:
                    await run.flow.turned_back(run.why())
            run.is_told = True

    async def _park(self, run: _Run, step: Step) -> None:
        fault = FlowParked(saga=run.flow.saga.name, subject=run.flow.subject, step=step.name, reason=str(run.why()))
        async for trial in self._until_written():
            with trial:
                await run.flow.parked(fault)
        await self._finish(run.flow, FlowState.PARKED, fault)
        _log.error("flow parked", step=step.name, reason=str(fault))
        raise fault

    async def _pause(self, attempt: int) -> None:
        if attempt > 1:
            await self._clock.sleep(_BETWEEN_ATTEMPTS.delay_s(attempt - 1))

    def _until_written(self) -> AsyncRetrying:
        """A database that is away for a while must not end a flow between an act and its row."""
        deadline = self._clock.monotonic() + JOURNAL_PATIENCE_S
        return AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=lambda _: self._clock.monotonic() >= deadline,
            sleep=self._clock.sleep,
            reraise=True,
        )

    async def _finish(self, flow: Flow[Any], state: FlowState, fault: Fault | None = None) -> None:
        async for trial in self._until_written():
            with trial:
                await self._journal.finish(flow.id, state, _text(fault) if fault else None)

    async def _write(
        self,
        run: _Run,
        step: Step,
        mark: Mark,
        attempt: int,
        *,
        final: bool = False,
        output: Output = None,
        error: Fault | None = None,
    ) -> None:
        text = _text(error) if error else None
        async for trial in self._until_written():
            with trial:
                await self._journal.write(
                    run.flow.id, step=step.name, mark=mark, attempt=attempt, final=final, output=output, error=text
                )
        run.entries.append(Entry(step.name, mark, final=final))


def _text(fault: Fault) -> str:
    return str(fault)[:FAULT_TEXT_MAX]
