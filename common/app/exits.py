"""Exit codes of every command, and which ending an error gives. Numbers from 64 on are those of BSD's sysexits(3)."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from common.base.errors import Fault, Misconfigured, Timeout, Unavailable
from common.transport.port import Unroutable


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    REFUSED = 1
    """The service refused, or it failed at its work."""
    NO_REPLY = 2
    """No reply in time: the outcome is unknown."""
    NOBODY_LISTENS = 3
    """No process takes requests of that kind."""
    USAGE = 64
    UNAVAILABLE = 69
    """A needed part (bus, database) is not available."""
    BUG = 70
    NOT_DRAINED = 75
    """Told to stop, it did not end its work in time."""
    CONFIG = 78
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as a shell gives it."""
    BROKEN_PIPE = 141
    """Whoever read the output went away: 128 + SIGPIPE, as a shell gives it."""


def exit_code(fault: Fault) -> Exit:
    """The exit code of a command that ends with `fault`; what a peer raised is that peer's refusal, whatever its class."""
    match fault:
        case Fault(is_remote=True):
            return Exit.REFUSED
        case Unroutable():
            return Exit.NOBODY_LISTENS
        case Timeout():
            return Exit.NO_REPLY
        case Unavailable():
            return Exit.UNAVAILABLE
        case Misconfigured():
            return Exit.CONFIG
        case _:
            return Exit.REFUSED


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ends because of an error: its exit code and what it says on stderr, without a newline at the end."""

    code: Exit
    text: str


def ending(error: BaseException, *, trace: bool) -> Ending:
    """How a process ends that `error` has left.

    Faults give their messages and no traceback, also those within exception groups; the first one decides the code.
    Anything else is a bug of ours; its traceback is shown if `trace`.
    """
    leaves = list(_leaves(error))
    faults = [leaf for leaf in leaves if isinstance(leaf, Fault)]
    bugs = [leaf for leaf in leaves if not isinstance(leaf, Fault)]
    if not bugs:
        return Ending(exit_code(faults[0]), "\n".join(dict.fromkeys(f"error: {fault.message}" for fault in faults)))
    lines = [f"error: {type(bug).__name__}: {_first_line(bug)} (this is a bug)" for bug in bugs]
    if trace:
        lines.append("".join(traceback.format_exception(error)).rstrip())
    else:
        lines[-1] += "; LITE_DEBUG=1 shows where"
    return Ending(Exit.BUG, "\n".join(lines))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from _leaves(child)
    else:
        yield error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["without a word"])[0]
