"""The callee's half: which messages were seen before."""

from collections import OrderedDict


class Duplicates:
    """The last `size` `_unique_id`s. A bus that redelivers gives each message at least once; this makes it once per process."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen: OrderedDict[str, None] = OrderedDict()

    def seen(self, unique_id: str | None) -> bool:
        """True when this id came before; it is remembered from now on. A message without an id is always new."""
        if unique_id is None:
            return False
        if unique_id in self._seen:
            return True
        self._seen[unique_id] = None
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return False

    def forget(self, unique_id: str | None) -> None:
        """The message goes back to the bus unhandled and may come again."""
        if unique_id is not None:
            self._seen.pop(unique_id, None)
