"""Work that must not be going on behind the back of whoever comes next."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Who is cancelled meanwhile, be it again and again, waits for its end, and is cancelled then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, or else asyncio complains
        raise


async def in_thread(act: Callable[..., T], *args: object, **kwargs: object) -> T:
    """What `act(*args, **kwargs)` gives, which blocks; to its end, since nobody can cancel a thread."""
    return await to_its_end(asyncio.to_thread(act, *args, **kwargs))
