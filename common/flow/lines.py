"""One line for each subject: whoever joined first goes first, and who joins is a matter of one loop's turn, not of who waits."""

import asyncio
from collections import deque


class Lines:
    """Lines by key; one that nobody stands in takes no memory."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Place]] = {}

    def join(self, key: str) -> "Place":
        """A place behind everybody who has one now. Its holder must leave it in the end."""
        line = self._lines.setdefault(key, deque())
        place = Place(self, key)
        line.append(place)
        if len(line) == 1:
            place.reached.set()
        return place

    def leave(self, place: "Place") -> None:
        """Out of the line, wherever in it; twice is once."""
        line = self._lines.get(place.key)
        if line is None or place not in line:
            return
        line.remove(place)
        if line:
            line[0].reached.set()
        else:
            del self._lines[place.key]


class Place:
    """A place in a line. `reached` is set when it is the first."""

    def __init__(self, lines: Lines, key: str) -> None:
        self.key = key
        self.reached = asyncio.Event()
        self._lines = lines

    def leave(self) -> None:
        self._lines.leave(self)
