"""LIO on a folder that behaves as configfs does: the sequence of calls is real, the bytes are not."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from cinder_lite.ports.target import Export
from cinder_lite.targets.lio import LioOptions, LioTarget
from cinder_lite.targets.rtstool import Tool
from common.app.exits import ending
from common.base.errors import Fault
from common.host.clock import SystemClock
from common.host.command import Output
from tests.support.configfs import FakeConfigfs

MIB = 1024**2
OPTIONS = LioOptions("192.0.2.4", session_timeout_s=1.0)


class ToolHere:
    """The tool in this process, as the command line runs it. `asked` are its words."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._lock_file = folder / "rtstool.lock"

    async def __call__(self, words: tuple[str, ...], stdin: bytes | None) -> Output:
        self.asked.append(words)
        return await asyncio.to_thread(self.run, words, (stdin or b"").decode())

    def run(self, words: tuple[str, ...], stdin: str = "") -> Output:
        out = io.StringIO()
        try:
            status = Tool(io.StringIO(stdin), out, self._lock_file).run(words)
        except Fault as exc:
            end = ending(exc, trace=False)
            return Output(int(end.code), out.getvalue(), end.text)
        return Output(status, out.getvalue(), "")


class LioRig:
    """`is_block`: its disks pass for block devices."""

    def __init__(self, folder: Path, configfs: FakeConfigfs, *, is_block: bool = True) -> None:
        self._folder = folder
        self._is_block = is_block
        self.configfs = configfs
        self.tool = ToolHere(folder)
        self.options = OPTIONS
        self.target = LioTarget(OPTIONS, SystemClock(), rtstool=self.tool)

    def backing(self, name: str) -> str:
        path = self._folder / name
        path.touch()
        os.truncate(path, MIB)
        if self._is_block:
            self.configfs.blocks.add(str(path))
        return str(path)

    def grow(self, path: str, size: int) -> None:
        os.truncate(path, size)

    async def gets_in(self, export: Export, connector: dict[str, Any]) -> bool:
        return self._log_in(export, connector) == export.path

    @asynccontextmanager
    async def session(self, export: Export, connector: dict[str, Any]) -> AsyncIterator[None]:
        assert await self.gets_in(export, connector)
        yield

    async def sessions(self, export: Export) -> set[str]:
        found = self.configfs.sessions(self.target.export_name(export.volume))
        return {initiator.rpartition(":")[2] for initiator in found}

    async def capacity(self, export: Export, connector: dict[str, Any]) -> int:
        path = self._log_in(export, connector)
        assert path is not None
        return self.configfs.capacity(path, self.target.export_name(export.volume))

    def break_exporting(self, export: Export) -> None:
        Path(export.path).unlink()

    def _log_in(self, export: Export, connector: dict[str, Any]) -> str | None:
        return self.configfs.log_in(self.target.export_name(export.volume), connector["initiator"], export.chap)


@contextmanager
def lio_rig(folder: Path, *, is_block: bool = True) -> Iterator[LioRig]:
    configfs = FakeConfigfs(folder / "configfs")
    with configfs.mounted():
        yield LioRig(folder, configfs, is_block=is_block)
