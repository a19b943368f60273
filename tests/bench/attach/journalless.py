"""The same flows without a memory: what durability costs is the difference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from common.db import fence
from common.db.journal import Journal


@contextmanager
def forgetful() -> Iterator[None]:
    """Inside, nothing is written of flows, and no fence is asked for; letters are still sent by the outbox."""

    async def opened(*_: Any, **__: Any) -> bool:
        return True

    async def appended(self: Journal, *_: Any, letters: Any = (), outbox: Any = None, **__: Any) -> None:
        if outbox is not None and letters:
            await self._db.run(lambda conn: outbox.put(conn, letters))

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    with (
        patch.object(Journal, "open", opened),
        patch.object(Journal, "append", appended),
        patch.object(Journal, "finish", nothing),
        patch.object(fence, "check", nothing),
    ):
        yield
