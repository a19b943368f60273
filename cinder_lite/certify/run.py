"""Runs specifications one after another, each on a bench that was cleared, and tells of each how it came out."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from cinder_lite.certify.specification import NotAsSpecified, NotStaged, Specification
from common.base.clock import Clock
from common.base.errors import Fault

B = TypeVar("B")


class Outcome(StrEnum):
    """PASSED: as specified. FAILED: not so. SKIPPED: this bench cannot bring the situation about."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """How one specification came out.

    port      "driver" or "target"
    message   why it failed or was skipped; empty when it passed
    """

    port: str
    specification: Specification[Any]
    outcome: Outcome
    seconds: float
    message: str = ""


OpenBench = Callable[[], AbstractAsyncContextManager[B]]


async def results(
    port: str, specifications: Sequence[Specification[B]], open_bench: OpenBench[B], clock: Clock, *, timeout_s: float
) -> AsyncIterator[Result]:
    """The result of each as soon as it is there. An adapter that never answers fails by `timeout_s`, and the next one is tried."""
    for specification in specifications:
        began = clock.monotonic()
        outcome, message = await _judge(specification, open_bench, timeout_s)
        yield Result(port, specification, outcome, clock.monotonic() - began, message)


async def _judge(specification: Specification[B], open_bench: OpenBench[B], timeout_s: float) -> tuple[Outcome, str]:
    try:
        async with asyncio.timeout(timeout_s), open_bench() as bench:
            await specification.check(bench)
    except NotStaged as exc:
        return Outcome.SKIPPED, str(exc)
    except NotAsSpecified as exc:
        return Outcome.FAILED, str(exc)
    except TimeoutError:
        return Outcome.FAILED, f"not done within {timeout_s:g} s"
    except Fault as exc:
        return Outcome.FAILED, f"found {type(exc).__name__}, which the port does not allow here: {exc}"
    except Exception as exc:  # an adapter of anybody's may fail in any way, and the others are still to be tried
        return Outcome.FAILED, f"found {type(exc).__name__}, which is no Fault: {_last_words(exc)}"
    return Outcome.PASSED, ""


def _last_words(exc: BaseException) -> str:
    """Its message and where it was raised; of a group, those of its first."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{str(exc) or type(exc).__name__}{where}"
