"""Several services as child processes of one command (`lite up`): begun in order, kept alive, stopped in reverse order.

1. A child is begun when the one before it has said READY=1 on its $NOTIFY_SOCKET.
2. A child that dies is begun again after a growing delay; one that dies before it was ever ready, too often in a row, or because of its
   configuration, ends them all: `ChildFailed`, or `Misconfigured`.
3. Stopping is SIGTERM, then a grace, then SIGKILL, by pid. A child has a session of its own, so that Ctrl-C reaches it through us only.
4. When this process is killed outright, the kernel sends every child SIGTERM (`die_with_parent`).
5. What a child writes appears on stderr line by line behind its name.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.app.exits import Exit
from common.app.notify import READY, notifications
from common.base.clock import Clock
from common.base.errors import Broken, Misconfigured
from common.base.limits import DRAIN_TIMEOUT_S
from common.base.retry import Retry
from common.host.clock import SystemClock

RESTARTS = Retry(attempts=5, first_delay_s=0.5, factor=2.0, delay_s_max=10.0)
"""Lives that a child may lose in a row; one that was ready for HEALTHY_S begins to count anew."""

HEALTHY_S = 60.0
READY_TIMEOUT_S = 30.0
LAST_WORDS_S = 0.5
"""What a dead child wrote is already in the pipe; a grandchild may hold that open for ever."""

KILL_TIMEOUT_S = 5.0
"""After SIGKILL only the kernel can still hold a process."""

LINE_BYTES_MAX = 16 * 1024
"""A longer line of a child is shown in pieces."""

_COLORS = (36, 33, 35, 32, 34, 31)
_PLAIN = "\x1b[0m"


class ChildFailed(Broken):
    """Process {name} {how}. Its last words: {words}"""


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep.

    argv   the program and its arguments; no secrets, since everybody on the host can read them
    env    added to this process's environment
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class Children:
    """Numbered promises at the head of this module.

    grace_s    seconds from SIGTERM to SIGKILL; more than the children's own grace
    ready_s    seconds that a child may take until it is ready
    write      takes the text that is shown, whole lines; None: stderr
    """

    def __init__(
        self,
        *,
        grace_s: float = DRAIN_TIMEOUT_S + 5,
        ready_s: float = READY_TIMEOUT_S,
        restarts: Retry = RESTARTS,
        clock: Clock | None = None,
        write: Callable[[str], object] | None = None,
        colors: bool | None = None,
    ) -> None:
        self._grace_s = grace_s
        self._ready_s = ready_s
        self._restarts = restarts
        self._clock = clock or SystemClock()
        self._write = write or _to_stderr
        self._colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR") if colors is None else colors
        self._keepers: list[_Keeper] = []

    @property
    def pids(self) -> dict[str, int]:
        """Name of each child that lives now -> its process id."""
        return {keeper.name: keeper.pid for keeper in self._keepers if keeper.pid is not None}

    @asynccontextmanager
    async def running(self, children: Sequence[Child]) -> AsyncIterator[None]:
        """All of them are ready inside, and gone after it. The inside is cancelled when one cannot be kept alive.

        Raises ChildFailed, and Misconfigured when a child said so of itself.
        """
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        try:
            with tempfile.TemporaryDirectory(prefix="lite-") as directory:
                keepers = self._keepers_of(children, Path(directory), lost)
                async with asyncio.TaskGroup() as lives:
                    try:
                        async with asyncio.TaskGroup() as inside:
                            alarm = inside.create_task(_raise(lost))
                            for keeper in keepers:
                                self._keepers.append(keeper)
                                await keeper.begin(lives)
                            yield
                            alarm.cancel()
                    finally:
                        await self._stop_all()
        except BaseExceptionGroup as errors:
            raise _only(errors) from None

    def _keepers_of(self, children: Sequence[Child], directory: Path, lost: asyncio.Future[Exception]) -> list["_Keeper"]:
        width = max((len(child.name) for child in children), default=0)
        keepers = []
        for number, child in enumerate(children):
            color = f"\x1b[{_COLORS[number % len(_COLORS)]}m" if self._colors else ""
            keepers.append(
                _Keeper(
                    child,
                    show=self._shower(f"{color}{child.name:<{width}} | {color and _PLAIN}", lost),
                    socket=directory / f"{number}.sock",
                    ready_s=self._ready_s,
                    restarts=self._restarts,
                    clock=self._clock,
                    lost=lost,
                )
            )
        return keepers

    def _shower(self, prefix: str, lost: asyncio.Future[Exception]) -> Callable[[str], None]:
        """Shows a line behind `prefix`. When nobody is there to read, there is nobody to serve either: all end."""

        def show(line: str) -> None:
            try:
                self._write(f"{prefix}{line}\n")
            except BrokenPipeError as exc:
                _lose(lost, exc)

        return show

    async def _stop_all(self) -> None:
        """When this is cancelled the rest is not left: their keepers are cancelled with their group, and kill them."""
        try:
            for keeper in reversed(self._keepers):
                await keeper.stop(self._grace_s)
        finally:
            self._keepers.clear()


async def _raise(lost: asyncio.Future[Exception]) -> None:
    raise await lost


def _lose(lost: asyncio.Future[Exception], error: Exception) -> None:
    """Only the first failure counts; what follows from it is of no interest."""
    if not lost.done():
        lost.set_result(error)


def _only(errors: BaseException) -> BaseException:
    """The error itself when it is the only one in its groups."""
    while isinstance(errors, BaseExceptionGroup) and len(errors.exceptions) == 1:
        errors = errors.exceptions[0]
    return errors


class _Keeper:
    """Keeps one child alive."""

    def __init__(
        self,
        child: Child,
        *,
        show: Callable[[str], None],
        socket: Path,
        ready_s: float,
        restarts: Retry,
        clock: Clock,
        lost: asyncio.Future[Exception],
    ) -> None:
        self._child = child
        self._show = show
        self._socket = socket
        self._ready_s = ready_s
        self._restarts = restarts
        self._clock = clock
        self._lost = lost
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._is_stopping = False
        self._words = "none"

    @property
    def name(self) -> str:
        return self._child.name

    @property
    def pid(self) -> int | None:
        """None while it does not live."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Returns when the child is ready. Its keeping goes on in `group`; when it cannot be kept, `lost` has the reason."""
        self._task = group.create_task(self._keep(), name=self.name)
        await self._started.wait()

    async def stop(self, grace_s: float) -> None:
        """Returns when the child is gone."""
        self._is_stopping = True
        if self._task is None:
            return
        if self.pid is None:
            self._task.cancel()
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=grace_s)
        if not done:
            self._show(f"did not end within {grace_s:g} s after SIGTERM; it is killed")
            self.kill()
            await asyncio.wait({self._task}, timeout=KILL_TIMEOUT_S)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """By pid: the child is not reaped while `pid` is there, so that the number is still its own."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _keep(self) -> None:
        """Returns when the child is gone for good."""
        reading, writing = os.pipe()
        end = None
        async with notifications(self._socket, self._told), asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump(reading))
            try:
                end = await self._lives(writing)
            finally:
                os.close(writing)
                await asyncio.wait({pump}, timeout=LAST_WORDS_S)
                pump.cancel()
        if end is not None:
            _lose(self._lost, self._failure(*end))

    def _failure(self, status: int, how: str) -> Exception:
        if status == Exit.CONFIG:
            return Misconfigured(reason=f"process {self.name} refused its configuration. Its last words: {self._words}")
        return ChildFailed(name=self.name, how=how, words=self._words)

    async def _lives(self, output: int) -> tuple[int, str] | None:
        """None when it was stopped, else its last exit status and how it came to be given up."""
        failures = 0
        while True:
            status, ready_for_s = await self._life(output)
            if self._is_stopping:
                return None
            if not self._started.is_set() or status == Exit.CONFIG:
                return status, f"ended with {_how(status)} before it was ready ({self._ready_s:g} s at most)"
            failures = 1 if ready_for_s >= HEALTHY_S else failures + 1
            if failures >= self._restarts.attempts:
                return status, f"ended {failures} times in a row, now with {_how(status)}"
            delay_s = self._restarts.delay_s(failures)
            self._show(f"ended with {_how(status)}; it begins again in {delay_s:g} s")
            await self._clock.sleep(delay_s)

    async def _life(self, output: int) -> tuple[int, float]:
        """One life of the child: its exit status, and for how many seconds it was ready."""
        self._ready.clear()
        self._process = process = await self._spawn(output)
        try:
            async with asyncio.TaskGroup() as group:
                readiness = group.create_task(self._readiness())
                status = await process.wait()
                readiness.cancel()
        finally:
            if process.returncode is None:
                self.kill()
                await process.wait()
        since = None if readiness.cancelled() else readiness.result()
        return status, 0.0 if since is None else self._clock.monotonic() - since

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        follow = (sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py")), str(os.getpid()))
        return await asyncio.create_subprocess_exec(
            *follow,
            *self._child.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **self._child.env, "NOTIFY_SOCKET": str(self._socket)},
            start_new_session=True,
        )

    async def _readiness(self) -> float | None:
        """The second at which the child was ready; None when it was not in time, and was killed for it."""
        try:
            async with asyncio.timeout(self._ready_s):
                await self._ready.wait()
        except TimeoutError:
            self._show(f"was not ready within {self._ready_s:g} s; it is killed")
            self.kill()
            return None
        self._started.set()
        return self._clock.monotonic()

    def _told(self, lines: list[str]) -> None:
        if READY in lines:
            self._ready.set()

    async def _pump(self, reading: int) -> None:
        """Shows what the child writes, line by line, until nobody can write any more."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(reading, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            rest = b""
            while chunk := await reader.read(LINE_BYTES_MAX):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_BYTES_MAX:
                    lines, rest = [*lines, rest], b""
                self._show_lines(lines)
            self._show_lines([rest] if rest else [])
        finally:
            transport.close()

    def _show_lines(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            self._words = text or self._words
            self._show(text)


def _how(status: int) -> str:
    """An exit status in words; a negative one is a signal, as subprocess has it."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
