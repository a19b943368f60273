"""`cinder-lite rtstool`: the arguments and outcomes of cinder-rtstool (attach-flow 7.3), and what was missing in them.

A password may be given as `-`: then it is the first line of standard input, where no other user of the machine can read it. One tool is
at work at a time, whoever starts it: rtslib is not safe for two.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import msgspec

from cinder_lite.ports.target import Chap
from cinder_lite.targets import lio_tree
from cinder_lite.targets.lio_tree import RtstoolError

USAGE = """Usage:
cinder-lite rtstool create [device] [name] [userid] [password] [iser_enabled] <initiator_iqn,iqn2,iqn3,...> [-a<IP1,IP2,...>] [-pPORT]
cinder-lite rtstool add-initiator [target_iqn] [userid] [password] [initiator_iqn]
cinder-lite rtstool delete-initiator [target_iqn] [initiator_iqn]
cinder-lite rtstool get-targets [--json]
cinder-lite rtstool delete [iqn]
cinder-lite rtstool verify
cinder-lite rtstool save [path_to_file]
cinder-lite rtstool restore [path_to_file]
A password of - is read from standard input, one line.
"""
FROM_STDIN = "-"
LOCK_FILE = Path("/run/cinder-lite-rtstool.lock")
_LOCK_WAIT_S = 60.0
_LOCK_POLL_S = 0.02


class WrongUsage(Exception):  # no error of the machine's: the caller prints the usage
    """The arguments are not those of any command."""


@dataclass(frozen=True, slots=True)
class Tool:
    """`stdin` and `out` of the process, or of a test; `lock_file` holds up other tools."""

    stdin: TextIO
    out: TextIO
    lock_file: Path = LOCK_FILE

    def run(self, words: Sequence[str]) -> int:
        """The exit status: 0, or 1 with the usage for wrong arguments. Raises RtstoolError."""
        try:
            self._run(*words)
        except WrongUsage:
            self.out.write(USAGE)
            return 1
        return 0

    def _run(self, command: str = "", *words: str) -> None:
        if command == "verify":
            _exactly(words)
            lio_tree.verify()
            return
        act = self._commands().get(command)
        if act is None:
            raise WrongUsage
        act(*words)

    def _commands(self) -> dict[str, Callable[..., None]]:
        return {
            "create": self._create,
            "add-initiator": self._add_initiator,
            "delete-initiator": self._delete_initiator,
            "get-targets": self._get_targets,
            "delete": self._delete,
            "save": self._save,
            "restore": self._restore,
        }

    def _create(self, *words: str) -> None:
        if len(words) < 5:
            raise WrongUsage
        device, iqn, userid, password, iser = words[:5]
        options = CreateOptions.parse(words[5:])
        chap = Chap(userid, self._password(password))
        with self._alone():
            warned = lio_tree.create(
                device, iqn, chap, iser=iser == "True", initiators=options.initiators, portals=options.portals, port=options.port
            )
        self._say(*warned.words)

    def _add_initiator(self, *words: str) -> None:
        """On the command line the initiator comes last; in cinder's function it comes second."""
        iqn, userid, password, initiator = _exactly(words, 4)
        chap = Chap(userid, self._password(password))
        with self._alone():
            lio_tree.add_initiator(iqn, initiator, chap)

    def _delete_initiator(self, *words: str) -> None:
        iqn, initiator = _exactly(words, 2)
        with self._alone():
            was_there = lio_tree.delete_initiator(iqn, initiator)
        if not was_there:
            self._say(f"delete_initiator: {initiator} ACL not found. Continuing.")

    def _get_targets(self, *words: str) -> None:
        if words == ("--json",):
            with self._alone():
                self._say(msgspec.json.encode(lio_tree.exports()).decode())
            return
        _exactly(words)
        with self._alone():
            self._say(*lio_tree.get_targets())

    def _delete(self, *words: str) -> None:
        (iqn,) = _exactly(words, 1)
        with self._alone():
            lio_tree.delete(iqn)

    def _save(self, *words: str) -> None:
        with self._alone():
            lio_tree.save(_at_most_one(words))

    def _restore(self, *words: str) -> None:
        with self._alone():
            lio_tree.restore(_at_most_one(words))

    def _password(self, word: str) -> str:
        return self.stdin.readline().rstrip("\n") if word == FROM_STDIN else word

    def _say(self, *lines: str) -> None:
        self.out.writelines(f"{line}\n" for line in lines)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The kernel gives the lock back however its holder ends."""
        try:
            lock = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise RtstoolError(reason=f"{self.lock_file} cannot be used: {exc.strerror}. This tool needs root") from exc
        try:
            _wait_for(lock, self.lock_file)
            yield
        finally:
            os.close(lock)


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What may follow the five arguments of `create`, in any order."""

    initiators: tuple[str, ...] = ()
    portals: tuple[str, ...] = ()
    port: int = 3260

    @classmethod
    def parse(cls, words: Sequence[str]) -> "CreateOptions":
        """Raises WrongUsage."""
        if len(words) > 3:
            raise WrongUsage
        found = cls()
        for word in words:
            if word.startswith("-a"):
                found = replace(found, portals=_listed(word[2:]))
            elif word.startswith("-p"):
                found = replace(found, port=_port(word[2:]))
            else:
                found = replace(found, initiators=_listed(word.strip()))
        return found


def _listed(text: str) -> tuple[str, ...]:
    found = tuple(word for word in text.split(",") if word)
    if not found:
        raise WrongUsage
    return found


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 65536:
        raise WrongUsage
    return int(text)


def _exactly(words: Sequence[str], number: int = 0) -> Sequence[str]:
    if len(words) != number:
        raise WrongUsage
    return words


def _at_most_one(words: Sequence[str]) -> str | None:
    if len(words) > 1:
        raise WrongUsage
    return words[0] if words else None


def _wait_for(lock: int, file: Path) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise RtstoolError(reason=f"another rtstool has held {file} for {_LOCK_WAIT_S:g} s") from exc
            time.sleep(_LOCK_POLL_S)
        else:
            return
