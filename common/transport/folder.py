"""A message bus in a folder: queues whose messages are files, shared by any number of processes of one machine.

    messages/<queue>/.queue                      how the queue was declared; its time of change says when it was last used
    messages/<queue>/<stamp>_<writer>.msg        a message that waits; `.r.msg` if it was delivered before
    messages/<queue>/<stamp>_<writer>.msg.<id>   a message that the member <id> holds unsettled
    control/<exchange>.exchange                  its bindings, in kombu's form: [[routing key, pattern, queue], ...]
    control/lock                                 held while bindings and queues are made or dropped
    control/members/<pid>.<n>                    locked by a living member; unlocked, it died, and what it held goes back
    control/consumers/<queue>.<pid>.<n>          a pipe, locked by a living consumer, that wakes it

Every file appears and changes hands by rename(2), which is atomic, so nobody sees half a message and two never get the same.
Queues are not bounded but by the disk. Nothing is synced: it survives the death of any process, not a power cut.
Calls block, as files do; an OSError that is not part of the game comes through.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from common.transport.port import QueueDepth

_ODD = re.compile(r"\A\.|[^A-Za-z0-9._@#:+ -]")
_SUFFIX, _AGAIN = ".msg", ".r.msg"
_TEMPORARY_S = 60.0
"""A temporary file lives for microseconds; one of this age was left by a process that died."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that a member holds."""

    path: Path
    data: bytes
    redelivered: bool


def file_name(name: str) -> str:
    """A queue's or exchange's name as a file name: what is odd in it is percent-encoded."""
    return _ODD.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)


class BusFolder:
    """The shared part: bindings, queues, putting. Each thread has its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.messages = root / "messages"
        self.control = root / "control"
        self.writer = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._last_stamp = 0

    def create(self) -> None:
        """Make the folders, for this user alone."""
        for folder in (self._root, self.messages, self.control, self.control / "members", self.control / "consumers"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def declare(self, queue: str, *, auto_delete: bool, expires_ms: int | None) -> bool:
        """Make the queue unless it is there; True when it was not."""
        folder = self._queue(queue)
        with self._locked():
            folder.mkdir(mode=0o700, exist_ok=True)
            if (folder / ".queue").exists():
                return False
            self._replace(folder / ".queue", json.dumps({"auto_delete": auto_delete, "expires_ms": expires_ms}).encode())
            return True

    def has(self, queue: str) -> bool:
        """True when it was declared and not deleted."""
        return (self._queue(queue) / ".queue").exists()

    def delete(self, queue: str) -> None:
        """Drop the queue, its bindings and messages, those that somebody holds too. Nothing happens when there is none."""
        grave = self.control / f".deleted-{self._stamp()}_{self.writer}"
        with self._locked():
            for exchange in self.control.glob("*.exchange"):
                rows = self._rows(exchange)
                kept = [row for row in rows if row[2] != queue]
                if not kept:
                    exchange.unlink()
                elif len(kept) < len(rows):
                    self._replace(exchange, json.dumps(kept).encode())
            with suppress(FileNotFoundError):
                self._queue(queue).rename(grave)
        shutil.rmtree(grave, ignore_errors=True)
        self.wake(queue)

    def bind(self, exchange: str, key: str, pattern: str, queue: str) -> None:
        """The queue takes from the exchange; a second time nothing happens."""
        path = self.control / f"{file_name(exchange)}.exchange"
        with self._locked():
            rows = self._rows(path)
            if [key, pattern, queue] not in rows:
                self._replace(path, json.dumps([*rows, [key, pattern, queue]]).encode())

    def table(self, exchange: str) -> list[tuple[str, str, str]]:
        """(routing key, pattern, queue) of each binding; none when there is no such exchange."""
        return [(row[0], row[1], row[2]) for row in self._rows(self.control / f"{file_name(exchange)}.exchange")]

    def put(self, queue: str, data: bytes) -> bool:
        """Append a message and wake the queue's consumers; False when there is no such queue.

        Messages of one writer sort in the order of its calls.
        """
        folder = self._queue(queue)
        name = f"{self._stamp():020d}_{self.writer}{_SUFFIX}"
        try:
            if not self.has(queue):
                return False
            self._replace(folder / name, data)
        except FileNotFoundError:
            return False
        self.wake(queue)
        return True

    def consumers(self, queue: str) -> int:
        """How many living consumers the queue has."""
        return sum(_is_locked(path) for path in self._presences(queue))

    def queues(self) -> list[str]:
        """The names of all queues."""
        try:
            return sorted(unquote(folder.name) for folder in _plain(self.messages) if (folder / ".queue").exists())
        except FileNotFoundError:
            return []

    def depth(self, queue: str, *, now_s: float) -> QueueDepth | None:
        """None when there is no such queue. `now_s` is the time of day, seconds since 1970."""
        if not self.has(queue):
            return None
        folder = self._queue(queue)
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - names suffice
        waiting = sorted(name for name in names if name.endswith(_SUFFIX))
        oldest_s = None
        if waiting:
            with suppress(FileNotFoundError):  # taken in this moment
                oldest_s = max(0.0, now_s - (folder / waiting[0]).stat().st_mtime)
        return QueueDepth(len(waiting), len(names) - len(waiting), self.consumers(queue), oldest_s)

    def wake(self, queue: str) -> None:
        """Tell the queue's consumers to look; those that cannot take the word will look anyway."""
        for path in self._presences(queue):
            with suppress(OSError):  # ENXIO: died; EAGAIN: it has words enough; ENOENT: left
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.write(pipe, b"!")
                finally:
                    os.close(pipe)

    def touch(self, queue: str) -> None:
        """The queue is in use now."""
        with suppress(FileNotFoundError):
            os.utime(self._queue(queue) / ".queue")

    def sweep(self, *, now_s: float) -> None:
        """Give back what dead members held; drop queues whose `x-expires` ran out and what dead processes left half done.

        now_s    the time of day, seconds since 1970
        """
        for path in _plain(self.control / "members"):
            if not _is_locked(path):
                self._bury(path)
        for path in _plain(self.control / "consumers"):
            if not _is_locked(path):
                path.unlink(missing_ok=True)
                self._drop_if_unused(unquote(path.name.rsplit(".", 2)[0]), now_s=None)
        for folder in _plain(self.messages):
            self._drop_if_unused(unquote(folder.name), now_s=now_s)
            _drop_old_temporaries(folder, now_s)
        for folder in (self.control, self.control / "members", self.control / "consumers"):
            _drop_old_temporaries(folder, now_s)

    def drop_auto_delete(self, queue: str) -> None:
        """Delete the queue if it was declared to end with its last consumer, and has none."""
        self._drop_if_unused(queue, now_s=None)

    def _drop_if_unused(self, queue: str, *, now_s: float | None) -> None:
        """By its `auto_delete` without a time, by its `x-expires` with one."""
        marker = self._queue(queue) / ".queue"
        try:
            declared, used_s = json.loads(marker.read_bytes()), marker.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return
        if now_s is None:
            is_over = declared["auto_delete"]
        else:
            is_over = declared["expires_ms"] is not None and now_s - used_s > declared["expires_ms"] / 1000
        if is_over and self.consumers(queue) == 0:
            self.delete(queue)

    def _bury(self, member: Path) -> None:
        """Claims first: as long as the member's file is there, whoever comes next goes on with it."""
        for held in self.messages.glob(f"*/*{_SUFFIX}.{member.name}"):
            give_back(held)
            self.wake(unquote(held.parent.name))
        member.unlink(missing_ok=True)

    def _queue(self, queue: str) -> Path:
        return self.messages / file_name(queue)

    def _presences(self, queue: str) -> list[Path]:
        name = file_name(queue)
        return [path for path in _plain(self.control / "consumers") if path.name.rsplit(".", 2)[0] == name]

    def _stamp(self) -> int:
        """Nanoseconds of the day's time, never the same and never back for one writer."""
        self._last_stamp = max(self._last_stamp + 1, time.time_ns())
        return self._last_stamp

    def _replace(self, path: Path, data: bytes) -> None:
        """Write so that others see all of it or nothing. Raises FileNotFoundError when the folder is gone."""
        temporary = path.with_name(f".{self._stamp()}_{self.writer}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            written = 0
            while written < len(data):
                written += file.write(data[written:])
        temporary.rename(path)

    @staticmethod
    def _rows(path: Path) -> list[list[str]]:
        try:
            rows: list[list[str]] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return []
        return rows

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.control / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


class Member:
    """One who takes messages. `close` gives nothing back by itself; a death does, when others sweep."""

    def __init__(self, folder: BusFolder) -> None:
        self._folder = folder
        self._lock = Presence(folder.control / "members", "")
        self._listed: dict[str, deque[str]] = {}

    def take(self, queue: str) -> Claim | None:
        """The queue's first message; None when none waits or there is no such queue."""
        folder = self._folder.messages / file_name(queue)
        # A listing is used up before the next one is made: else a long queue would be listed once for each message.
        return self._take_first(folder, self._listed.get(queue, deque())) or self._take_first(folder, self._list(queue, folder))

    def _take_first(self, folder: Path, names: deque[str]) -> Claim | None:
        while names:
            name = names.popleft()
            held = folder / f"{name}.{self._lock.name}"
            try:
                (folder / name).rename(held)
                return Claim(held, held.read_bytes(), name.endswith(_AGAIN))
            except FileNotFoundError:
                continue  # somebody else was quicker, or the queue was deleted
        return None

    def release(self, claim: Claim) -> None:
        """Done with it."""
        claim.path.unlink(missing_ok=True)

    def give_back(self, claim: Claim, queue: str) -> None:
        """To its old place in the queue."""
        give_back(claim.path)
        self._listed.pop(queue, None)
        self._folder.wake(queue)

    def give_back_others(self, claims: Collection[Claim]) -> None:
        """What this member holds, `claims` excepted."""
        kept = {claim.path for claim in claims}
        for held in self._folder.messages.glob(f"*/*{_SUFFIX}.{self._lock.name}"):
            if held not in kept:
                give_back(held)
                self._folder.wake(unquote(held.parent.name))

    def close(self) -> None:
        """No longer a member; call it with nothing held."""
        self._lock.close()

    def _list(self, queue: str, folder: Path) -> deque[str]:
        try:
            names = deque(sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIX)))  # noqa: PTH208 - names suffice
        except FileNotFoundError:
            names = deque()
        self._listed[queue] = names
        return names


class Presence:
    """A named pipe that is locked as long as this process lives or until `close`."""

    def __init__(self, folder: Path, queue: str) -> None:
        end = f"{os.getpid()}.{secrets.token_hex(4)}"
        self.name = f"{file_name(queue)}.{end}" if queue else end
        self._path = folder / self.name
        # Nobody shall find it unlocked: it gets its name when it is locked.
        temporary = folder / f".{self.name}"
        os.mkfifo(temporary, 0o600)
        # Open for both directions, so that it is never without a writer and never reads as ended.
        self.pipe = os.open(temporary, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(self.pipe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(self._path)

    def drain(self) -> None:
        """Forget the words that wait."""
        with suppress(BlockingIOError):
            while os.read(self.pipe, 4096):
                pass

    def close(self) -> None:
        """A second call does nothing."""
        if self.pipe >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self.pipe)
            self.pipe = -1


def give_back(held: Path) -> None:
    """A held message waits again, marked as delivered before."""
    name = held.name.partition(_SUFFIX)[0].removesuffix(".r")
    with suppress(FileNotFoundError):
        held.rename(held.with_name(f"{name}{_AGAIN}"))


def _is_locked(path: Path) -> bool:
    try:
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(pipe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(pipe)
    return False


def _plain(folder: Path) -> list[Path]:
    return [folder / name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - names suffice


def _drop_old_temporaries(folder: Path, now_s: float) -> None:
    with suppress(FileNotFoundError):
        for path in folder.glob(".*"):
            if path.name != ".queue" and now_s - path.stat().st_mtime > _TEMPORARY_S:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
