"""What is open between both sides: publishes without a confirm, and deliveries that are not settled."""

import struct
from typing import Any

from common.amqp.errors import COMMAND_INVALID, RESOURCE_ERROR, ProtocolError
from common.amqp.spec import BY_NAME, FRAME_END, METHOD_FRAME

_SETTLE = struct.Struct(">BHIIQBB")
_SIZE = 13
_ACK, _NACK, _REJECT = (BY_NAME[f"basic.{word}"].key for word in ("ack", "nack", "reject"))
_MULTIPLE, _REQUEUE = 1, 2


class Unconfirmed:
    """Publishes of one channel by their number, which counts from 1 after confirm.select."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens: dict[int, Any] = {}
        self._oldest = 1
        self.last = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_full(self) -> bool:
        """True when one more would be beyond the limit."""
        return len(self.tokens) >= self.limit

    def add(self, token: Any) -> int:
        """The number of one more publish."""
        self.last += 1
        self.tokens[self.last] = token
        return self.last

    def settle(self, tag: int, *, multiple: bool) -> list[Any]:
        """Whose confirm this is, in the order of their publishes. Raises ProtocolError for a number that was not given yet."""
        if tag > self.last:
            raise ProtocolError(COMMAND_INVALID, f"a confirm for publish {tag}; the last one was {self.last}")
        pop = self.tokens.pop
        if not multiple:
            return [pop(tag)] if tag in self.tokens else []
        found = [pop(number) for number in range(self._oldest, (tag or self.last) + 1) if number in self.tokens]
        self._oldest = max(self._oldest, (tag or self.last) + 1)
        return found

    def take(self, tag: int) -> Any:
        """The token of one publish, which then has its answer; None when it has one already."""
        return self.tokens.pop(tag, None)

    def drain(self) -> tuple[Any, ...]:
        """Everything, which gets no answer any more."""
        tokens = tuple(self.tokens.values())
        self.tokens.clear()
        return tokens


class Unsettled:
    """Deliveries of one channel by their tags, which rise. Acks are collected, and leave as few frames as say the same."""

    def __init__(self, channel: int, limit: int) -> None:
        self._channel = channel
        self._limit = limit
        self._open: dict[int, None] = {}
        self._acked: set[int] = set()
        self._last = 0

    def __len__(self) -> int:
        return len(self._open) - len(self._acked)

    @property
    def held(self) -> int:
        """How many the peer counts as not settled: those whose ack has not left are among them."""
        return len(self._open)

    def delivered(self, tag: int) -> None:
        """One more to settle. Raises ProtocolError for a tag that was there before, and beyond the limit."""
        if tag <= self._last:
            raise ProtocolError(COMMAND_INVALID, f"delivery tag {tag} after {self._last}")
        if len(self._open) >= self._limit:
            raise ProtocolError(RESOURCE_ERROR, f"more than {self._limit} unsettled deliveries on one channel")
        self._last = tag
        self._open[tag] = None

    def ack(self, tag: int) -> None:
        """It is on its way with the next `frames`. Raises ValueError for one that is not open."""
        if tag not in self._open or tag in self._acked:
            raise ValueError(f"delivery {tag} is not unsettled")
        self._acked.add(tag)

    def reject(self, tag: int, *, requeue: bool) -> bytes:
        """The frame that rejects one. Raises ValueError for one that is not open."""
        if tag not in self._open or tag in self._acked:
            raise ValueError(f"delivery {tag} is not unsettled")
        del self._open[tag]
        return self._frame(_REJECT, tag, 1 if requeue else 0)

    def reject_up_to(self, tag: int, *, requeue: bool) -> bytes:
        """The frames that reject all that are open up to this one, and ack those that were acked before."""
        frames = self.frames()
        rejected = [each for each in self._open if each <= tag]
        for each in rejected:
            del self._open[each]
        return frames + (self._frame(_NACK, rejected[-1], _MULTIPLE | (_REQUEUE if requeue else 0)) if rejected else b"")

    def frames(self) -> bytes:
        """The frames of all acks since the last time; one, as far as nothing older is open."""
        acked = self._acked
        if not acked:
            return b""
        last = count = 0
        for tag in self._open:
            if tag not in acked:
                break
            last, count = tag, count + 1
        frames = [self._frame(_ACK, last, _MULTIPLE if count > 1 else 0)] if count else []
        if count == len(acked) == len(self._open):
            self._open.clear()
        else:
            for tag in sorted(acked):
                del self._open[tag]
                if tag > last:
                    frames.append(self._frame(_ACK, tag, 0))
        acked.clear()
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _frame(self, key: int, tag: int, bits: int) -> bytes:
        return _SETTLE.pack(METHOD_FRAME, self._channel, _SIZE, key, tag, bits, FRAME_END)
