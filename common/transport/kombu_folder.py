"""kombu's filesystem transport, on `common.transport.folder`.

kombu 5.7's own loses and doubles messages as soon as several processes use a folder: a reader may move a file that is still being
written; a message is removed when it is read, not when it is acked; two processes that bind at once overwrite each other's
binding; messages of one millisecond are read in any order.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kombu.transport import filesystem

from common.transport.folder import BusFolder, Claim, Member, Presence
from common.transport.kombu_store import Store, StoreChannel
from common.transport.port import QueueDepth

_KombuChannel: Any = filesystem.Channel
_KombuTransport: Any = filesystem.Transport
"""kombu's types say nothing."""

FOLDER = "folder"
"""The transport option that names the root of the bus."""


class FolderStore:
    """Implements `kombu_store.Store`."""

    poll_s = (0.25, 0.25)
    """Consumers of a folder are called; this finds what a publisher left that died before it could call."""

    def __init__(self, folder: BusFolder, pattern_of: Callable[[str], str]) -> None:
        self.folder = folder
        self._pattern_of = pattern_of
        self._member: Member | None = None
        self.declare = folder.declare
        self.has = folder.has
        self.delete = folder.delete
        self.table = folder.table
        self.put = folder.put
        self.consumers = folder.consumers
        self.drop_auto_delete = folder.drop_auto_delete

    def depth(self, queue: str) -> QueueDepth | None:
        return self.folder.depth(queue, now_s=time.time())

    def bind(self, exchange: str, key: str, queue: str) -> None:
        """With kombu's pattern: the file keeps kombu's form."""
        self.folder.bind(exchange, key, self._pattern_of(key), queue)

    def take(self, queue: str) -> Claim | None:
        return self._joined().take(queue)

    def release(self, claim: Claim) -> bool:
        """True: nobody takes a living member for dead."""
        self._joined().release(claim)
        return True

    def give_back(self, claim: Claim) -> None:
        self._joined().give_back(claim, unquote(claim.path.parent.name))

    def give_back_others(self, claims: Collection[Claim]) -> None:
        self._joined().give_back_others(claims)

    def join(self, queue: str) -> Presence:
        return Presence(self.folder.control / "consumers", queue)

    def sweep(self, queues: Collection[str]) -> None:
        for queue in queues:
            self.folder.touch(queue)
        self.folder.sweep(now_s=time.time())

    def leave(self) -> None:
        if self._member is not None:
            self._member.give_back_others(())
            self._member.close()
            self._member = None

    def _joined(self) -> Member:
        if self._member is None:
            self._member = Member(self.folder)
        return self._member


class FolderChannel(StoreChannel, _KombuChannel):  # type: ignore[misc]  # as said above
    """A kombu channel whose queues are a `BusFolder`'s."""

    def open_store(self) -> Store:
        folder = BusFolder(Path(self.transport_options[FOLDER]))
        folder.create()
        return FolderStore(folder, self.exchange_types["topic"].key_to_pattern)


class FolderTransport(_KombuTransport):  # type: ignore[misc]  # as said above
    """What `kombu.Connection` is given instead of the name `filesystem`."""

    Channel = FolderChannel
