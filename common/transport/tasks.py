"""Tasks that an object owns from its start to its `close`."""

import asyncio
import logging
from collections.abc import Coroutine

from common.base.limits import SETTLE_TIMEOUT_S

_LOG = logging.getLogger(__name__)


def keep(work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
    """A task of that name; if it ever fails, which is a bug, the log says so at once. Its owner ends it with `end`."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell)
    return task


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel the task, if there is one, and wait until it has ended; again, should some library have lost the first word."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=SETTLE_TIMEOUT_S)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        _LOG.critical("the task %r failed", task.get_name(), exc_info=exc)
