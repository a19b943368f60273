"""Which exactly-once requests were begun, and what they came to, as several servers know it."""

from typing import Protocol

from common.base.errors import Timeout
from common.wire.callee import Entry


class OutcomeUnknown(Timeout):
    """{method}: its server {owner} died on the way. It may have happened, wholly or in part: look at the state before you repeat it."""

    retryable = False


class Inbox(Protocol):
    """What servers in several processes share to execute a request once. Its suite's tests carry these numbers.

    1. Of all who `begin` the same id, exactly one is told NEW, whoever asks at once.
    2. The others are told HELD as long as the first one `renew`s within the lease, and DONE with its answer after `finish`.
    3. When the lease ran out they are told LOST, and so is everybody after them: it is never NEW again.
    4. A first one whose lease ran out cannot renew it; its `finish` still counts, since then the outcome is known.
    """

    async def begin(self, message_id: str, *, owner: str) -> Entry:
        """Begin it, unless somebody has. Raises Unavailable."""
        ...

    async def renew(self, message_id: str, *, owner: str) -> bool:
        """I am still at it. False: too late."""
        ...

    async def finish(self, message_id: str, *, owner: str, body: bytes | None) -> None:
        """It is served; `body` is the reply, None for a cast."""
        ...
