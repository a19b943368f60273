"""The bench of the file driver: half-made files and other people's."""

from pathlib import Path

from cinder_lite.certify.driver_bench import GIB
from cinder_lite.contract import Snapshot, Volume
from common.base.ids import new_uuid

_GARBAGE = b"\x77" * 4096
"""What must not be seen of a half-made copy, at its beginning and in its middle."""


class FileStaging:
    """Implements `cinder_lite.certify.benches.staging.Staging` for one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staged: list[Path] = []

    async def others(self) -> set[str]:
        return {path.name for path in self._folder.iterdir() if not path.name.startswith("volume-")}

    async def add_strangers(self) -> None:
        stranger = f"volume-{new_uuid()}"
        names = ("volume-of-another", f"backup-{stranger}", f"{stranger}.old", f"{stranger}.snapshot-1", "not-ours", f".{stranger}")
        for name in names:
            self._add(name, b"")

    async def begin_volume(self, volume: Volume) -> None:
        self._add(f".{volume.name}.unfinished", b"")

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        self._add(f".{snapshot.volume_name}.{snapshot.name}.unfinished", _GARBAGE)

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        self._add(f".{volume.name}.unfinished", _GARBAGE)

    async def close(self) -> None:
        for path in self._staged:
            path.unlink(missing_ok=True)

    def _add(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.write_bytes(content)
        if content:
            with path.open("r+b") as file:
                file.seek(GIB // 2)
                file.write(content)
                file.truncate(GIB)
        self._staged.append(path)
