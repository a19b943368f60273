"""Runs many cases on several processors."""

import gc
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import structlog

from common.testing.fate import Strike
from tests.simulation.cases import Report, run_case

LAST = 25
"""Lines of a failed case's trace that are kept."""

_CHUNK = 20

Plan = tuple[Strike, ...]


def quiet() -> None:
    """Logs would cost more than the cases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def run_all(plans: Sequence[Plan], *, seed: str, jobs: int) -> Iterator[Report]:
    """The reports of all plans, in their order, with the end of a failed one's trace."""
    chunks = [plans[number : number + _CHUNK] for number in range(0, len(plans), _CHUNK)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin) as pool:
        for found in pool.map(_chunk, chunks, [seed] * len(chunks)):
            yield from found


def _begin() -> None:
    quiet()
    run_case()
    without_pauses()


def without_pauses() -> None:
    """Garbage is collected between chunks of cases, not within them."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _chunk(plans: Sequence[Plan], seed: str) -> list[Report]:
    found = []
    for plan in plans:
        report = run_case(plan, seed=seed)
        found.append(replace(report, trace=report.trace[-LAST:] if report.violations else (), events=()))
    gc.collect()
    return found
