"""Ceph's programs `rbd` and `ceph`: one method for each command, with deadlines, and errors by their exit status.

librbd in a process of its own: it blocks, and nothing but its process can be killed when a cluster does not answer. The exit status
is the errno. Measured: 40 ms for a command, most of it the connection.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import EACCES, EBUSY, EEXIST, EINVAL, ENOENT, ENOTEMPTY, EPERM, ETIMEDOUT
from pathlib import Path
from typing import TypeVar

from cinder_lite.drivers import rbd_report
from cinder_lite.drivers.rbd_report import Image, ImageSnapshot, Listing, Monitor
from cinder_lite.errors import VolumeBackendAPIException
from common.base.errors import Broken
from common.base.limits import COMMAND_OUTPUT_BYTES_MAX
from common.host.command import Output, run
from common.host.to_its_end import to_its_end

T = TypeVar("T")

OSD_OP_TIMEOUT_S = 30
"""One read or write of an object; a cluster that recovers is slow, and one that hangs shall be told from it."""
BYTES_TIMEOUT_S = 3600.0
"""For what touches every object of an image."""
MIB_PER_GIB = 1024

_NO_ACCESS = {EPERM, EACCES}


class RbdRefused(VolumeBackendAPIException):
    """{command} of {what}: {words}"""

    wire = ("cinder_lite.drivers.rbd_commands", "RbdRefused")  # the name of cinder's is its parent's

    @property
    def status(self) -> int:
        """The errno."""
        return int(self.fields["status"])


@dataclass(frozen=True, slots=True)
class Rbd:
    """One pool as one of Ceph's users sees it; the options are cinder's.

    conf                 rbd_ceph_conf; None: Ceph's own search for it
    connect_timeout_s    rados_connect_timeout: for a monitor to answer
    """

    pool: str = "rbd"
    user: str = ""
    conf: Path | None = None
    cluster: str = "ceph"
    connect_timeout_s: int = 10

    async def ask(self, *words: str, of: str = "", timeout_s: float | None = None) -> str:
        """What `rbd` printed. Raises RbdRefused with its errno, VolumeBackendAPIException, CommandMissing, Timeout."""
        target = (f"{self.pool}/{of}",) if of else (self.pool,)
        return await self._run("rbd", *words, *target, what=target[0], timeout_s=timeout_s)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def names(self) -> set[str]:
        return _read(rbd_report.parse_names, await self.ask("ls", "--format", "json"))

    async def listing(self) -> Listing:
        """Opens every image: a second for some thousands."""
        return _read(rbd_report.parse_listing, await self.ask("ls", "-l", "--format", "json", timeout_s=BYTES_TIMEOUT_S))

    async def info(self, image: str) -> Image | None:
        """None: it is not there, or its making was broken off before it had a size."""
        try:
            return _read(rbd_report.parse_info, await self.ask("info", "--format", "json", of=image))
        except RbdRefused as exc:
            if exc.status == ENOENT:
                return None
            raise

    async def snapshots(self, image: str) -> dict[str, ImageSnapshot]:
        """By name; none of an image that is not there."""
        text = await self._or(ENOENT, "[]", "snap", "ls", "--format", "json", of=image)
        return _read(lambda said: rbd_report.parse_snapshots(said, image), text)

    async def watchers(self, image: str) -> list[str]:
        text = await self._or(ENOENT, '{"watchers":[]}', "status", "--format", "json", of=image)
        return _read(rbd_report.parse_watchers, text)

    async def children(self, image: str, snapshot: str) -> list[str]:
        text = await self._or(ENOENT, "[]", "children", "--format", "json", of=f"{image}@{snapshot}")
        return _read(rbd_report.parse_children, text)

    async def usage(self) -> tuple[int, int] | None:
        """Bytes stored in the pool and bytes that still can be; None when the cluster does not tell, as one without a manager."""
        text = await self._run("ceph", "df", "--format", "json", what="the cluster's room")
        return _read(lambda said: rbd_report.parse_usage(said, self.pool), text)

    async def monitors(self) -> list[Monitor]:
        return _read(rbd_report.parse_monitors, await self._run("ceph", "mon", "dump", "--format", "json", what="the monitors"))

    # -- changing -----------------------------------------------------------------------------------------------------

    async def create(self, image: str, size: int) -> None:
        """What is left of an image whose making was broken off makes way."""
        words = ("create", "--size", str(size * MIB_PER_GIB))
        try:
            await self.ask(*words, of=image)
        except RbdRefused as exc:
            if exc.status != EEXIST or await self.info(image) is not None:
                raise
            await self.remove(image)
            await self.ask(*words, of=image)

    async def remove(self, image: str) -> None:
        """Gone already: nothing happens. Raises RbdRefused, EBUSY or ENOTEMPTY: it is open, or has snapshots."""
        await self._or(ENOENT, "", "rm", "--no-progress", of=image, timeout_s=BYTES_TIMEOUT_S)

    async def resize(self, image: str, size: int) -> None:
        await self.ask("resize", "--no-progress", "--size", str(size * MIB_PER_GIB), of=image, timeout_s=BYTES_TIMEOUT_S)

    async def snap(self, image: str, snapshot: str) -> None:
        """It is there, and may be cloned."""
        await self._or(EEXIST, "", "snap", "create", "--no-progress", of=f"{image}@{snapshot}")
        await self._or(EBUSY, "", "snap", "protect", of=f"{image}@{snapshot}")

    async def unsnap(self, image: str, snapshot: str) -> None:
        """Gone already, or with its image: nothing happens. Raises RbdRefused, EBUSY: it has clones."""
        try:
            await self._or(EINVAL, "", "snap", "unprotect", of=f"{image}@{snapshot}")
            await self.ask("snap", "rm", "--no-progress", of=f"{image}@{snapshot}")
        except RbdRefused as exc:
            if exc.status != ENOENT:
                raise

    async def clone(self, image: str, snapshot: str, to: str) -> None:
        await self.ask("clone", f"{self.pool}/{image}@{snapshot}", of=to)

    async def flatten(self, image: str) -> None:
        """It shares nothing with another image any longer."""
        await self.ask("flatten", "--no-progress", of=image, timeout_s=BYTES_TIMEOUT_S)

    async def rename(self, image: str, to: str) -> None:
        await self.ask("rename", f"{self.pool}/{image}", of=to)

    # -- the command --------------------------------------------------------------------------------------------------

    async def _or(self, status: int, instead: str, *words: str, of: str, timeout_s: float | None = None) -> str:
        """As `ask`, but `instead` when it ends with that errno."""
        try:
            return await self.ask(*words, of=of, timeout_s=timeout_s)
        except RbdRefused as exc:
            if exc.status == status:
                return instead
            raise

    async def _run(self, program: str, *words: str, what: str, timeout_s: float | None = None) -> str:
        wait = str(self.connect_timeout_s)
        limits = (f"--client_mount_timeout={wait}", f"--rados_mon_op_timeout={wait}", f"--rados_osd_op_timeout={OSD_OP_TIMEOUT_S}")
        who = (*(("--id", self.user) if self.user else ()), "--cluster", self.cluster)
        conf = ("--conf", str(self.conf)) if self.conf else ()
        deadline_s = timeout_s or self.connect_timeout_s + 2 * OSD_OP_TIMEOUT_S
        # Not to be broken off: a client that was killed counts as one that has the image open, for half a minute.
        output = await to_its_end(
            run(program, *who, *conf, *limits, *words, timeout_s=deadline_s, env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")})
        )
        if output.status != 0:
            raise self._told(output, f"{program} {words[0]}", what)
        return output.stdout

    def _told(self, output: Output, command: str, what: str) -> VolumeBackendAPIException:
        lines = [line.strip() for line in output.stderr.splitlines() if line.strip()]
        words = lines[-1].removeprefix("rbd: ") if lines else f"exit status {output.status}"
        if output.status == ETIMEDOUT:
            limits = f"{self.connect_timeout_s} s from a monitor, or {OSD_OP_TIMEOUT_S} s from an OSD"
            reason = f"no answer within {limits}; are they up, and is {self._conf} right?"
            return VolumeBackendAPIException(data=f"Ceph cluster: {reason} ({command} of {what}: {words})")
        if output.status in _NO_ACCESS or "couldn't connect" in words:
            reason = f"the cluster does not let {self._user} in, or not to this; are its keyring and caps and {self._conf} right?"
            return VolumeBackendAPIException(data=f"Ceph cluster: {reason} ({command} of {what}: {' / '.join(lines[-2:])})")
        return RbdRefused(command=command, what=what, words=words, status=output.status)

    @property
    def _conf(self) -> str:
        return str(self.conf or f"/etc/ceph/{self.cluster}.conf")

    @property
    def _user(self) -> str:
        return f"client.{self.user or 'admin'}"


HAS_SNAPSHOTS, IS_OPEN, NOT_THERE = ENOTEMPTY, EBUSY, ENOENT
"""What the errnos of a refusal mean to a driver."""


def _read(parse: Callable[[str], T], text: str) -> T:
    """Raises Broken for text that is no report, or that was cut off: an image missed would be made twice."""
    if len(text) >= COMMAND_OUTPUT_BYTES_MAX:
        raise Broken(what="rbd's answer", reason=f"it has more than {COMMAND_OUTPUT_BYTES_MAX} bytes; too many images in the pool")
    try:
        return parse(text)
    except ValueError as exc:
        raise Broken(what="rbd's answer", reason="it is not in the form of Ceph 16") from exc
