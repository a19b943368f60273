"""One process of a name on a machine: a file whose lock (flock(2)) the process holds as long as it lives, however that ends.

A process that was stopped (SIGSTOP) still holds it. So whoever has the lock knows that every process which had the name before is
dead, and can act in this machine's storage and on its guests without fearing that one of them wakes up.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from common.base.errors import Misconfigured


class RunsAlready(Misconfigured):
    """{name} runs on this machine already (pid {pid}, lock {file}). Stop it, or give this one another [DEFAULT] host."""


@contextmanager
def hold_name(folder: Path, name: str) -> Iterator[None]:
    """The process bears `name` alone inside the block. Raises RunsAlready, and Misconfigured when the folder cannot be used."""
    file = folder / "locks" / f"{quote(name, safe='@')}.lock"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Misconfigured(reason=f"[DEFAULT] state_path: {file} cannot be used: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            pid = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            raise RunsAlready(name=name, pid=pid, file=file) from exc
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)
