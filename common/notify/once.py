"""Each notification once per listener, although a bus gives each at least once."""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto

from common.notify.dispatch import Message
from common.transport.port import Delivery


class Standing(Enum):
    """How a delivery stands when it comes."""

    NEW = auto()
    """It is to be worked on."""
    COPY = auto()
    """The same is at work; this copy ends as that one does. It is all that is left when the other's connection is gone."""
    DONE = auto()
    """The same was handled."""


@dataclass(eq=False, slots=True)
class Held:
    """A notification at work, with the deliveries that brought it."""

    message: Message
    deliveries: list[Delivery] = field(default_factory=list)


class Once:
    """Notifications by `_unique_id`: those at work, and the last `size` that were handled. One without an id is always new."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at_work: dict[str, Held] = {}
        self._done: OrderedDict[str, None] = OrderedDict()

    def begin(self, held: Held) -> Standing:
        """Take `held` to work unless the same is there or was; a copy's delivery is held by the one at work."""
        unique_id = held.message.unique_id
        if unique_id is None:
            return Standing.NEW
        if unique_id in self._done:
            return Standing.DONE
        if unique_id in self._at_work:
            self._at_work[unique_id].deliveries += held.deliveries
            return Standing.COPY
        self._at_work[unique_id] = held
        return Standing.NEW

    def end(self, held: Held, *, is_done: bool) -> list[Delivery]:
        """The deliveries to settle. One that is not done may come again."""
        unique_id = held.message.unique_id
        if unique_id is not None and self._at_work.pop(unique_id, None) is not None and is_done:
            self._done[unique_id] = None
            if len(self._done) > self._size:
                self._done.popitem(last=False)
        deliveries, held.deliveries = held.deliveries, []
        return deliveries
