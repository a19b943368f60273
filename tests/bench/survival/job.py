"""What a worker process of the survival bench is told, and how it tells what happened. Times are CLOCK_MONOTONIC, one for all processes."""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Self

OK, WRONG, HUNG = "ok", "wrong answer", "hung"
READY = "ready"
REQUEST_QUEUE = "survival"
"""The queue that requests wait in, whoever the peer is."""

PAUSE_AFTER_ERROR_S = 0.3
"""A caller that was told of an error goes on after that long, with the next number."""

TIMEOUT_SLACK_S = 5.0
"""A call that is so much over its timeout is given up by the worker: its library does not keep deadlines."""


@dataclass(frozen=True, slots=True)
class Job:
    """One worker's orders.

    record      file that servers append their executions to
    handler_s   how long one request takes
    prefetch    requests that one server works on at once; fewer than `in_flight`, so that some always wait in the queue
    """

    url: str
    record: str
    calls: int = 2000
    in_flight: int = 64
    handler_s: float = 0.2
    prefetch: int = 48
    timeout_s: float = 60.0
    heartbeat_s: int = 60
    durable: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call ended. `kind` is OK, WRONG, HUNG or the name of the error's class."""

    number: int
    began_s: float
    ended_s: float
    kind: str
    said: str = ""


def expected(number: int) -> int:
    """The right answer to a number."""
    return number * 7 + 1


class Executions:
    """Notes the begin and the end of each execution; one `write` to an O_APPEND file, which no kill tears in two."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def begin(self, number: int) -> None:
        self._note("begin", number)

    def end(self, number: int) -> None:
        self._note("end", number)

    def _note(self, word: str, number: int) -> None:
        os.write(self._file, f"{word} {number} {os.getpid()} {time.monotonic():.6f}\n".encode())


class Caller:
    """Hands out the numbers and prints how each call ended; for tasks and for threads alike."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._numbers: Iterator[int] = iter(range(job.calls))
        self._lock = threading.Lock()

    def next(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)

    def tell(self, number: int, began_s: float, answer: int | BaseException) -> str:
        """The outcome's kind, after it was printed."""
        ended_s = time.monotonic()
        said = ""
        if isinstance(answer, BaseException):
            late = ended_s - began_s >= self._job.timeout_s - 0.5
            kind, said = HUNG if late else type(answer).__name__, str(answer)[:200]
        else:
            kind = OK if answer == expected(number) else WRONG
        line = json.dumps({"number": number, "began_s": began_s, "ended_s": ended_s, "kind": kind, "said": said})
        with self._lock:
            say(line)
        return kind


async def ask_all(job: Job, ask: Callable[[int], Awaitable[int]]) -> None:
    """All calls of a client that is asyncio."""
    caller = Caller(job)

    async def go_on() -> None:
        while (number := caller.next()) is not None:
            began_s = time.monotonic()
            answer: int | BaseException
            try:
                async with asyncio.timeout(job.timeout_s + TIMEOUT_SLACK_S):
                    answer = await ask(number)
            except asyncio.CancelledError as exc:
                # A library may end a call so although nobody cancelled this task.
                answer = exc
            except Exception as exc:  # noqa: BLE001 - whatever comes is what is counted
                answer = exc
            if caller.tell(number, began_s, answer) != OK:
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(job.in_flight):
            group.create_task(go_on())


def ask_all_in_threads(job: Job, ask: Callable[[int], int]) -> None:
    """All calls of a client that blocks: one thread for each call in flight."""
    caller = Caller(job)

    def go_on() -> None:
        while (number := caller.next()) is not None:
            began_s = time.monotonic()
            answer: int | BaseException
            try:
                answer = ask(number)
            except Exception as exc:  # noqa: BLE001 - whatever comes is what is counted
                answer = exc
            if caller.tell(number, began_s, answer) != OK:
                time.sleep(PAUSE_AFTER_ERROR_S)

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(job.in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def say(word: str) -> None:
    """Tell the parent, in one line."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def die_with_stdin() -> None:
    """The parent is gone, or wants this process to be."""

    def wait() -> None:
        # Not through sys.stdin, whose lock an interpreter that ends by itself would wait for.
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
