"""An inbox in memory: what servers of one test share."""

from dataclasses import dataclass

from common.base.clock import Clock
from common.base.limits import INBOX_LEASE_S
from common.wire.callee import Answer, Entry, Standing


@dataclass
class _Row:
    owner: str
    lease_until: float
    answer: Answer | None = None


class MemoryInbox:
    """Implements `common.rpc.inbox.Inbox`."""

    def __init__(self, clock: Clock, *, lease_s: float = INBOX_LEASE_S) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._rows: dict[str, _Row] = {}

    async def begin(self, message_id: str, *, owner: str) -> Entry:
        row = self._rows.get(message_id)
        if row is None:
            self._rows[message_id] = _Row(owner, self._clock.monotonic() + self._lease_s)
            return Entry(Standing.NEW, owner)
        if row.answer is not None:
            return Entry(Standing.DONE, row.owner, row.answer)
        return Entry(Standing.HELD if row.lease_until > self._clock.monotonic() else Standing.LOST, row.owner)

    async def renew(self, message_id: str, *, owner: str) -> bool:
        row, now = self._rows.get(message_id), self._clock.monotonic()
        if row is None or row.owner != owner or row.answer is not None or row.lease_until <= now:
            return False
        row.lease_until = now + self._lease_s
        return True

    async def finish(self, message_id: str, *, owner: str, body: bytes | None) -> None:
        row = self._rows.get(message_id)
        if row is not None and row.owner == owner:
            row.answer = Answer(body)
