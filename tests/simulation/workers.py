"""Runs many cases on several processors."""

import gc
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import NoReturn, TypeVar

import structlog

from tests.simulation.cases import Case, Report, flawless, run_case, run_pair
from tests.simulation.history import HistoryReport, run_history
from tests.simulation.scenario import STAGES

T = TypeVar("T")
R = TypeVar("R")

LAST = 25
"""Lines of a failed case's trace that are kept."""

ENDLESS_S = 60.0
"""Of the processor; the longest case takes one."""

_CHUNK = 20


def quiet() -> None:
    """Logs would cost more than the cases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def run_all(cases: Sequence[Case], *, seed: str, jobs: int) -> Iterator[Report]:
    """The reports of all cases, in their order, with the end of a failed one's trace."""
    return spread(partial(_case, seed=seed), cases, seed=seed, jobs=jobs)


def run_pairs(numbers: Sequence[int], *, seed: str, jobs: int) -> Iterator[Report]:
    """The reports of so many pairs of faults."""
    return spread(partial(_pair, seed=seed), numbers, seed=seed, jobs=jobs)


def run_histories(seeds: Sequence[str], *, jobs: int) -> Iterator[HistoryReport]:
    """The reports of histories, with the end of a failed one's trace."""
    return spread(_history, seeds, seed="0", jobs=jobs)


def spread(work: Callable[[T], R], items: Sequence[T], *, seed: str, jobs: int) -> Iterator[R]:
    """What `work` gives for each item, in their order, done by so many processes."""
    chunks = [items[number : number + _CHUNK] for number in range(0, len(items), _CHUNK)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(seed,)) as pool:
        for found in pool.map(partial(_chunk, work), chunks):
            yield from found


def _case(case: Case, *, seed: str) -> Report:
    return _short(run_case(case, seed=seed))


def _pair(number: int, *, seed: str) -> Report:
    return _short(run_pair(number, seed=seed))


def _short(report: Report) -> Report:
    return replace(report, trace=report.trace[-LAST:] if report.violations else (), events=(), past=None)


def _history(seed: str) -> HistoryReport:
    report = run_history(seed)
    return replace(report, trace=report.trace[-LAST:] if report.violations else ())


def _begin(seed: str) -> None:
    quiet()
    flawless(list(STAGES)[-1], seed)
    without_pauses()


def without_pauses() -> None:
    """Garbage is collected between chunks of cases, not within them."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _chunk(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    found = [_ended(work, item) for item in items]
    gc.collect()
    return found


def _ended(work: Callable[[T], R], item: T) -> R:
    """What `work` gives for `item`. Raises SystemExit, which no loop keeps for itself, where virtual time stands still for ever."""
    said = f"{item} has not ended after {ENDLESS_S:g} s of the processor: its time stands still"
    struck: list[SystemExit] = []

    def endless(*_: object) -> NoReturn:
        struck.append(SystemExit(said))
        raise struck[0]

    signal.signal(signal.SIGVTALRM, endless)
    signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS_S)
    try:
        return work(item)
    except BaseException:
        # A world that is left in the middle does not come down in order, and says so instead.
        if struck:
            raise SystemExit(said) from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
