"""Failpoints that a test arms from outside, by files.

A process that was started with LITE_FAILPOINTS=<folder> looks there whenever it comes past a named place. A file named
`<process>:<place>`, such as `nova-compute.cmp1:attach_volume.connect_volume.begun`, is done once: it is gone before it acts.

    kill      SIGKILL to itself
    stop      SIGSTOP to itself; whoever wants it to go on sends SIGCONT
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import structlog

from common.base.errors import Misconfigured
from common.base.failpoints import OFF, Failpoints

VARIABLE = "LITE_FAILPOINTS"

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_log = structlog.get_logger(__name__)


class Armed(Failpoints):
    """Those of one process ("nova-compute.cmp1"), by the files of `folder`."""

    is_on: ClassVar[bool] = True

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._process = process

    async def reach(self, name: str) -> None:
        file = self._folder / f"{self._process}:{name}"
        if not file.exists():
            return
        taken = file.with_name(f"{file.name}.reached")
        try:
            file.rename(taken)
            action = taken.read_text().strip()
        except FileNotFoundError:  # another task of this process came past a moment ago
            return
        if action not in _SIGNALS:
            _log.error("failpoint not understood", name=name, found=action, wanted=" or ".join(_SIGNALS))
            return
        os.kill(os.getpid(), _SIGNALS[action])


def armed(process: str, environ: Mapping[str, str] = os.environ) -> Failpoints:
    """What the environment says. Raises Misconfigured when it names no folder."""
    found = environ.get(VARIABLE)
    if not found:
        return OFF
    if not Path(found).is_dir():
        raise Misconfigured(reason=f"{VARIABLE} is {found!r}; wanted: a folder that is there")
    _log.warning("failpoints are on: this process dies when a file says so", folder=found)
    return Armed(Path(found), process)
