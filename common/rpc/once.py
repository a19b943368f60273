"""Exactly-once methods, from the side of one server that shares an inbox with others."""

from contextlib import suppress

from common.base.clock import Clock
from common.base.errors import Unavailable
from common.base.ids import new_hex
from common.base.limits import CAST_RETRY_DELAY_S, INBOX_LEASE_S
from common.rpc.inbox import Inbox, OutcomeUnknown
from common.rpc.replies import failed
from common.rpc.work import Outcome
from common.wire.callee import Standing
from common.wire.messages import AnyRequest

_LOOK_AGAIN_S = 1.0
RENEW_S = INBOX_LEASE_S / 3
"""Time between two signs of life of a server that is at work on such a request."""


class Once:
    """Asks the inbox whose turn a request is. Each start of a server is another owner: what the last one began is not ours."""

    def __init__(self, inbox: Inbox, *, server: str, clock: Clock) -> None:
        self._inbox = inbox
        self._owner = f"{server}:{new_hex()}"
        self._clock = clock

    async def begin(self, message_id: str, request: AnyRequest) -> Outcome | None:
        """What came of a request that another server began before us; None: it is ours now.

        As long as that server lives we wait: its answer is ours, and if it dies nobody else may hear of it.
        """
        while True:
            try:
                entry = await self._inbox.begin(message_id, owner=self._owner)
            except Unavailable as exc:
                if request.is_call:
                    return Outcome(failed(request.msg_id or "", exc), exc)
                await self._clock.sleep(CAST_RETRY_DELAY_S)
                continue
            match entry.standing:
                case Standing.NEW:
                    return None
                case Standing.DONE:
                    return Outcome(entry.answer.body if entry.answer else None)
                case Standing.LOST:
                    owner = entry.owner.rpartition(":")[0]
                    lost = OutcomeUnknown(method=request.method, owner=owner, timeout_s=INBOX_LEASE_S)
                    return Outcome(failed(request.msg_id or "", lost), lost)
                case Standing.HELD:
                    await self._clock.sleep(_LOOK_AGAIN_S)

    async def renew(self, message_id: str) -> bool:
        """False: the lease was lost, and there is nothing more to renew."""
        with suppress(Unavailable):  # the next beat tries again
            return await self._inbox.renew(message_id, owner=self._owner)
        return True

    async def finish(self, message_id: str, body: bytes | None) -> None:
        """It is served. Should the inbox be away, the others will say that the outcome is unknown, which is true for them."""
        with suppress(Unavailable):
            await self._inbox.finish(message_id, owner=self._owner, body=body)
