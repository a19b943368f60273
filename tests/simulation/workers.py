"""Runs many cases on several processors."""

import gc
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import structlog

from tests.simulation.cases import Case, Report, flawless, run_case
from tests.simulation.scenario import STAGES

LAST = 25
"""Lines of a failed case's trace that are kept."""

_CHUNK = 20


def quiet() -> None:
    """Logs would cost more than the cases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def run_all(cases: Sequence[Case], *, seed: str, jobs: int) -> Iterator[Report]:
    """The reports of all cases, in their order, with the end of a failed one's trace."""
    chunks = [cases[number : number + _CHUNK] for number in range(0, len(cases), _CHUNK)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(seed,)) as pool:
        for found in pool.map(_chunk, chunks, [seed] * len(chunks)):
            yield from found


def _begin(seed: str) -> None:
    quiet()
    flawless(list(STAGES)[-1], seed)
    without_pauses()


def without_pauses() -> None:
    """Garbage is collected between chunks of cases, not within them."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _chunk(cases: Sequence[Case], seed: str) -> list[Report]:
    found = []
    for case in cases:
        report = run_case(case, seed=seed)
        found.append(replace(report, trace=report.trace[-LAST:] if report.violations else (), events=(), past=None))
    gc.collect()
    return found
