"""What the worker processes of all libraries share: the payload, the loops that are timed, and the words with the parent.

A client makes one call, says when it was answered (CLOCK_MONOTONIC, the same in all processes), then obeys `Order`s, a JSON line
each, and answers each with one. A server says READY, and how many casts it has handled whenever it is asked. Both end with stdin.
"""

import asyncio
import json
import os
import sys
import threading
import time
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

READY = "ready"
TOPIC = "bench"
APART = "apart"
FLOODED = "flooded"
SERVED = {"server": (TOPIC, FLOODED), "apart": (APART,)}
"""The topics of a server process, by its role."""

PREFETCH = 128
TIMEOUT_S = 60.0
SLOW_S = 0.2
"""What one cast to the flooded queue takes at first: 128 at a time are 640 in a second."""

CALLS, CASTS = "calls", "casts"
TIMER_S = 0.0015
"""asyncio's timers ring up to a millisecond late. A call that begins later than this waited for its client, which counts."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a client shall do: `in_flight` at once, for `seconds`, but not more than `most`.

    per_s   begin so many in a second, at even times, and count each one's time from when it was due; 0: as soon as one has ended
    """

    do: str
    in_flight: int
    seconds: float
    most: int = 10_000_000
    topic: str = TOPIC
    per_s: float = 0.0
    padding: int = 0


@dataclass(slots=True)
class Answer:
    """What came of an order.

    done        within the time
    answered    in all; those in flight at the end of the time are waited for
    """

    began_s: float
    seconds: float = 0.0
    done: int = 0
    answered: int = 0
    wrong: int = 0
    errors: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    said: str = ""


def argument(number: int, padding: int = 0) -> dict[str, Any]:
    """The argument of a call: about 200 bytes of JSON, as a nova request has them, and so many more."""
    more = {"padding": "x" * padding} if padding else {}
    return {
        "number": number,
        "uuid": "b40c0d6b-3d4f-4022-9f70-7cdb9f384f9d",
        "display_name": "int32bit-test-1",
        "host": "cmp1",
        "vm_state": "active",
        "flavor": {"vcpus": 2, "memory_mb": 2048, "root_gb": 20},
        "tags": ["a", "b", None],
        **more,
    }


@dataclass(slots=True)
class Tally:
    """Counts and times, for one order; every method is short enough for threads."""

    order: Order
    began_s: float = field(default_factory=time.monotonic)
    begun: int = 0
    latencies_s: "array[float]" = field(default_factory=lambda: array("d"))
    done: int = 0
    last_s: float = 0.0
    wrong: int = 0
    errors: int = 0
    said: str = ""

    def next(self) -> int | None:
        """The next number, until the time is over."""
        if self.begun >= self.order.most or self.due_s(self.begun + 1) - self.began_s >= self.order.seconds:
            return None
        self.begun += 1
        return self.begun

    def due_s(self, number: int) -> float:
        """When that one shall begin."""
        return self.began_s + (number - 1) / self.order.per_s if self.order.per_s else time.monotonic()

    def started_s(self, number: int) -> float:
        """From when that one's time counts, which is about to begin now."""
        return min(time.monotonic(), self.due_s(number) + TIMER_S)

    def note(self, started_s: float, *, is_right: bool) -> None:
        now_s = time.monotonic()
        self.latencies_s.append(now_s - started_s)
        self.wrong += not is_right
        if now_s - self.began_s <= self.order.seconds:
            self.done += 1
            self.last_s = now_s

    def fail(self, exc: BaseException) -> None:
        self.errors += 1
        self.said = f"{type(exc).__name__}: {exc}"[:300]

    def answer(self) -> Answer:
        times = sorted(self.latencies_s) or [0.0]
        seconds = self.order.seconds if self.begun < self.order.most else self.last_s - self.began_s
        return Answer(
            self.began_s, seconds, self.done, len(self.latencies_s), self.wrong, self.errors,
            p50_ms=times[len(times) // 2] * 1000, p99_ms=times[int(len(times) * 0.99)] * 1000, said=self.said,
        )  # fmt: skip


Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
Cast = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def obey(ask: Ask, cast: Cast) -> None:
    """A client that is asyncio. `ask` and `cast` take the topic first."""
    await ask(TOPIC, argument(0))
    _say({"first_call_at_s": time.monotonic()})
    while line := await asyncio.to_thread(sys.stdin.readline):
        tally = Tally(Order(**json.loads(line)))
        async with asyncio.TaskGroup() as group:
            for _ in range(tally.order.in_flight):
                group.create_task(_repeat(tally, ask, cast))
        _say(asdict(tally.answer()))
    os._exit(0)


async def _repeat(tally: Tally, ask: Ask, cast: Cast) -> None:
    topic, padding = tally.order.topic, tally.order.padding
    while (number := tally.next()) is not None:
        if (early_s := tally.due_s(number) - time.monotonic()) > 0:
            await asyncio.sleep(early_s)
        started_s = tally.started_s(number)
        try:
            if tally.order.do == CALLS:
                tally.note(started_s, is_right=(await ask(topic, argument(number, padding)))["number"] == number)
            else:
                await cast(topic, argument(number))
                tally.note(started_s, is_right=True)
        except Exception as exc:  # noqa: BLE001 - counted, and the last one shown
            tally.fail(exc)
            await asyncio.sleep(0.05)


def obey_in_threads(
    ask: Callable[[str, dict[str, Any]], dict[str, Any]], cast: Callable[[str, dict[str, Any]], Any], *, casters: int
) -> None:
    """A client that blocks: a thread for each call in flight. `casters`: most threads that publish, where more are slower."""
    ask(TOPIC, argument(0))
    _say({"first_call_at_s": time.monotonic()})
    for line in sys.stdin:
        tally = Tally(Order(**json.loads(line)))
        number = tally.order.in_flight if tally.order.do == CALLS else min(tally.order.in_flight, casters)
        threads = [threading.Thread(target=_repeat_in_thread, args=(tally, ask, cast), daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _say(asdict(tally.answer()))
    os._exit(0)


def _repeat_in_thread(
    tally: Tally, ask: Callable[[str, dict[str, Any]], dict[str, Any]], cast: Callable[[str, dict[str, Any]], Any]
) -> None:
    topic, padding = tally.order.topic, tally.order.padding
    while (number := tally.next()) is not None:
        if (early_s := tally.due_s(number) - time.monotonic()) > 0:
            time.sleep(early_s)
        started_s = tally.started_s(number)
        try:
            if tally.order.do == CALLS:
                tally.note(started_s, is_right=ask(topic, argument(number, padding))["number"] == number)
            else:
                cast(topic, argument(number))
                tally.note(started_s, is_right=True)
        except Exception as exc:  # noqa: BLE001 - counted, and the last one shown
            tally.fail(exc)
            time.sleep(0.05)


class Handled:
    """A server's count of casts, told to the parent whenever it writes a line; `slow 2.0` changes what a slow cast takes, in seconds."""

    def __init__(self) -> None:
        self.slow_s = SLOW_S
        self._number = 0
        self._last_s = 0.0

    def note(self) -> None:
        self._number += 1
        self._last_s = time.monotonic()

    def tell(self) -> None:
        """Say READY and answer from now on, on a thread; the process ends with stdin."""
        _say_line(READY)
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while line := os.read(0, 4096):
            if line.startswith(b"slow "):
                self.slow_s = float(line.split()[1])
            _say({"handled": self._number, "last_s": self._last_s})
        os._exit(0)


def _say(words: dict[str, Any]) -> None:
    _say_line(json.dumps(words))


def _say_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
