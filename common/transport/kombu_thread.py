"""A thread that owns one kombu channel: kombu blocks, and a channel is for one thread."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from kombu.exceptions import KombuError

from common.base.limits import SETTLE_TIMEOUT_S
from common.transport.port import BusUnavailable, Closed

JOBS_MAX = 1000
"""Jobs of one thread that wait; who brings one more waits in the event loop."""

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


class ChannelThread:
    """Runs jobs one after another, in the order they were given.

    connect    makes the kombu connection; called in the thread, before the first job
    url        for errors, without a password
    """

    def __init__(self, connect: Callable[[], Any], *, name: str, url: str) -> None:
        self._connect = connect
        self._name = name
        self._url = url
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._slots = asyncio.Semaphore(JOBS_MAX)
        self._connection: Any = None
        self._channel: Any = None
        self._is_closed = False
        self._errors: tuple[type[BaseException], ...] = (KombuError, OSError)

    @property
    def is_running(self) -> bool:
        """True when a job was ever given to it."""
        return self._channel is not None

    async def run(self, job: Callable[[Any], Result], *, on_queued: Callable[[], None] = lambda: None) -> Result:
        """What `job` returns when it is given the channel; the caller sets the time limit.

        on_queued   called when the job has its place behind those that were given before
        A job that has begun goes on when its caller is cancelled. Raises BusUnavailable for every error of kombu's, Closed.
        """
        async with self._slots:
            if self._is_closed:
                raise Closed(url=self._url)
            running = asyncio.get_running_loop().run_in_executor(self._executor, self._run, job)
            on_queued()
            try:
                return await running
            except asyncio.CancelledError as exc:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # `close` gave up waiting for the thread and cancelled its jobs.
                raise Closed(url=self._url) from exc

    async def close(self) -> None:
        """End channel, connection and thread, within SETTLE_TIMEOUT_S; a thread that hangs is left to end by itself."""
        self._is_closed = True
        is_idle = False
        with suppress(BusUnavailable, TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await asyncio.get_running_loop().run_in_executor(self._executor, self._disconnect)
            is_idle = True
        if not is_idle:
            _LOG.warning("thread %s did not end in time", self._name)
        self._executor.shutdown(wait=is_idle, cancel_futures=True)

    def _run(self, job: Callable[[Any], Result]) -> Result:
        try:
            if self._channel is None:
                self._open()
            return job(self._channel)
        except self._errors as exc:
            raise BusUnavailable(url=self._url, reason=reason_of(exc)) from exc

    def _open(self) -> None:
        self._connection = self._connect()
        self._errors = (KombuError, OSError, *self._connection.connection_errors, *self._connection.channel_errors)
        self._channel = self._connection.channel()

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            # RuntimeError: kombu's memory transport walks a dictionary that other threads change.
            with suppress(RuntimeError, *self._errors):
                connection.close()


def reason_of(exc: BaseException) -> str:
    """The system's words for an OSError, the driver's for a database's error, else the error's own; one line."""
    exc = getattr(exc, "orig", None) or exc  # sqlalchemy's own words hold the statement
    words = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return str(words).partition("\n")[0]
