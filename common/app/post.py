"""The post: casts that are promised with a change of state, written into the same transaction, and sent by the relay."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from common.db.outbox import Letter, Outbox
from common.flow.relay import letter_of
from common.rpc.client import RpcClient
from common.rpc.drafting import Drafting

Writing = Callable[[AsyncConnection], Awaitable[None]]
"""Something to be written in a transaction of another's."""


def together(*writings: Writing) -> Writing:
    """All of them, in this order."""

    async def write(conn: AsyncConnection) -> None:
        for each in writings:
            await each(conn)

    return write


class Post:
    """One process's. `sender` makes the clients whose casts go by post.

    scheduler = SchedulerAPI.over(post.sender)
    with post.letters() as letters:
        await scheduler.create_volume(ctx, volume=volume)
    await volumes.create(volume, also=post.entering(letters))
    """

    def __init__(self, rpc: RpcClient, outbox: Outbox) -> None:
        self.sender = Drafting(rpc)
        self._outbox = outbox

    @contextmanager
    def letters(self) -> Iterator[list[Letter]]:
        """After the block the list holds the casts that were made inside."""
        letters: list[Letter] = []
        with self.sender.collected() as drafts:
            yield letters
        letters.extend(letter_of(draft.message, request_id=draft.request_id) for draft in drafts)

    def entering(self, letters: Sequence[Letter]) -> Writing:
        """For the store that writes the state: enters the letters in its transaction."""
        return partial(self._outbox.put, letters=letters)
