"""Become another program that is told to stop (SIGTERM) when the process which started it dies, however it dies.

    python die_with_parent.py PARENT_PID PROGRAM [ARGUMENT...]

A file to be run, not imported: it asks the kernel for PR_SET_PDEATHSIG (prctl(2)), which stays in force over execve(2), and so needs
no code between fork and exec in the parent. SIGTERM and not SIGKILL: a service that drains takes its own children with it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    parent, program = int(argv[0]), argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.stderr.write(f"error: prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}\n")
        return 70
    if os.getppid() != parent:  # it died before prctl; nobody would tell us
        return 75
    try:
        os.execvp(program[0], program)  # noqa: S606 - becoming another program is what this file is for
    except OSError as exc:
        sys.stderr.write(f"error: {program[0]} cannot be run: {exc.strerror}\n")
    return 69


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
