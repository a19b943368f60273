"""LVM on a machine with device-mapper, as its programs answer: a model for the drivers' tests where the kernel has none.

It knows what LVM's manuals say of the commands that the driver gives, and refuses the rest. It proves the driver's sequence of
commands against that model, not LVM.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from cinder_lite.contract import Snapshot, Volume
from cinder_lite.drivers import lvm_bytes, lvm_commands
from cinder_lite.drivers.lvm import UNFINISHED, LvmDriver
from common.base.ids import new_uuid
from common.host.command import Output

GROUP = "cinder-volumes"
GIB = 1024**3
BLOCK = 4096
Blocks = dict[int, int]


class Refused(Exception):
    """What LVM says on stderr."""


@dataclass
class Lv:
    """blocks   offset of a block -> the byte that fills it"""

    size: int
    origin: str = ""
    pool: str = ""
    is_pool: bool = False
    is_open: bool = False
    is_active: bool = True
    tags: set[str] = field(default_factory=set)
    blocks: Blocks = field(default_factory=dict)

    @property
    def attr(self) -> str:
        kind = "t" if self.is_pool else "V" if self.pool else "s" if self.origin else "-"
        return f"{kind}wi-{'a' if self.is_active else '-'}{'o' if self.is_open else '-'}----"


class MappedMachine:
    """`asked` is what was asked of it, as lines."""

    def __init__(self, *, size_gib: int = 16) -> None:
        self.size = size_gib * GIB
        self.volumes: dict[str, Lv] = {}
        self.asked: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lvm_commands, "run", self.run)
        monkeypatch.setattr(lvm_bytes, "run", self.run)

    async def run(
        self, *argv: str, timeout_s: float, stdin: bytes | None = None, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> Output:
        self.asked.append(" ".join(argv))
        try:
            return Output(0, getattr(self, f"_{argv[0]}")(list(argv[1:])) or "", "  WARNING: noise\n")
        except Refused as exc:
            return Output(5, "", f"  WARNING: noise\n  {exc}\n")

    @property
    def free(self) -> int:
        return self.size - sum(lv.size for lv in self.volumes.values() if not lv.pool)

    # -- programs -----------------------------------------------------------------------------------------------------

    def _dmsetup(self, words: list[str]) -> str:
        return "Driver version:    4.48.0"

    def _vgs(self, words: list[str]) -> str:
        row = {"vg_name": GROUP, "vg_size": str(self.size), "vg_free": str(self.free), "vg_extent_size": str(4 * 1024**2)}
        return json.dumps({"report": [{"vg": [row]}]})

    def _lvs(self, words: list[str]) -> str:
        rows = [
            {
                "lv_name": name, "lv_size": str(lv.size), "lv_attr": lv.attr, "origin": lv.origin, "pool_lv": lv.pool,
                "lv_tags": ",".join(sorted(lv.tags)), "data_percent": "0.00" if lv.is_pool else "", "seg_pe_ranges": "",
            }
            for name, lv in self.volumes.items()
        ]  # fmt: skip
        return json.dumps({"report": [{"lv": rows}]})

    def _lvcreate(self, words: list[str]) -> None:
        options, rest = _parsed(words, flags={"-y", "-kn", "-T", "-s"}, valued={"-L", "-V", "-n", "--addtag"})
        name = options["-n"][0] if "-n" in options else rest[0].partition("/")[2]
        if name in self.volumes:
            raise Refused(f'Logical Volume "{name}" already exists in volume group "{GROUP}"')
        tags = set(options.get("--addtag", []))
        if "-s" in options:
            origin = self._lv(rest[0])
            kept = dict(origin.blocks)
            size = origin.size if origin.pool else _bytes(options["-L"][0])
            made = Lv(size, origin=rest[0].partition("/")[2], pool=origin.pool, tags=tags, blocks=kept)
        elif "-V" in options:
            made = Lv(_bytes(options["-V"][0]), pool=rest[0].partition("/")[2], tags=tags)
        else:
            made = Lv(_bytes(options["-L"][0]), tags=tags, is_pool="-T" in options)
        if not made.pool and made.size > self.free:
            raise Refused(f'Volume group "{GROUP}" has insufficient free space')
        self.volumes[name] = made

    def _lvextend(self, words: list[str]) -> None:
        options, (path,) = _parsed(words, flags=set(), valued={"-L"})
        lv, size = self._lv(path), _bytes(options["-L"][0])
        if not lv.pool and lv.is_active and any(other.origin == path.partition("/")[2] for other in self.volumes.values()):
            raise Refused("Snapshot origin volumes can be resized only while inactive: try lvchange -an.")
        if size <= lv.size:
            raise Refused("New size matches existing size.")
        if not lv.pool and size - lv.size > self.free:
            raise Refused("Insufficient free space")
        lv.size = size

    def _lvchange(self, words: list[str]) -> None:
        options, (path,) = _parsed(words, flags={"-an", "-ay", "-K"}, valued={"--deltag", "--config"})
        lv, name = self._lv(path), path.partition("/")[2]
        if lv.origin and not lv.pool and ("-an" in options or "-ay" in options):
            raise Refused(f"Change of snapshot {name} will also change its origin; use -y.")
        family = [lv, *(other for other in self.volumes.values() if other.origin == name and not other.pool)]
        if "-an" in options and any(each.is_open for each in family):
            raise Refused(f"Logical volume {path} in use.")
        for each in family:
            each.is_active = "-ay" in options or (each.is_active and "-an" not in options)
        lv.tags -= set(options.get("--deltag", []))

    def _lvremove(self, words: list[str]) -> None:
        _, (path,) = _parsed(words, flags={"-y"}, valued=set())
        name = path.partition("/")[2]
        if self._lv(path).is_open:
            raise Refused(f"Logical volume {path} contains a filesystem in use.")
        if any(other.origin == name and not other.pool for other in self.volumes.values()):
            raise Refused(f"Logical volume {path} is origin of snapshots.")  # with -y LVM would take them along
        del self.volumes[name]
        for other in self.volumes.values():
            other.origin = "" if other.origin == name else other.origin

    def _fallocate(self, words: list[str]) -> None:
        length, device = int(words[words.index("--length") + 1]), words[-1]
        if device.endswith("-cow"):
            self.volumes[device.split(f"{GROUP.replace('-', '--')}-")[1].removesuffix("-cow").replace("--", "-")].blocks.clear()
            return
        blocks = self._device(device).blocks
        for offset in [offset for offset in blocks if offset < length]:
            del blocks[offset]

    def _dd(self, words: list[str]) -> None:
        given = dict(word.split("=", 1) for word in words)
        source, target, count = self._device(given["if"]), self._device(given["of"]), int(given["count"])
        target.blocks.update({offset: byte for offset, byte in source.blocks.items() if offset < count})

    def _device(self, path: str) -> Lv:
        lv = self.volumes.get(path.removeprefix(f"/dev/{GROUP}/"))
        if lv is None or not lv.is_active:
            raise Refused(f"cannot open {path}: No such file or directory")
        return lv

    def _lv(self, path: str) -> Lv:
        group, _, name = path.partition("/")
        if group != GROUP or name not in self.volumes:
            raise Refused(f'Failed to find logical volume "{path}"')
        return self.volumes[name]


def _parsed(words: list[str], *, flags: set[str], valued: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options with their values, and what is no option. Raises Refused for an option that this model does not know."""
    options: dict[str, list[str]] = {}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word in valued:
            options.setdefault(word, []).append(next(left))
        elif word in flags:
            options[word] = []
        elif word.startswith("-"):
            raise Refused(f"unrecognized option {word}")
        else:
            rest.append(word)
    return options, rest


def _bytes(size: str) -> int:
    assert size.endswith("b"), size
    return int(size.removesuffix("b"))


class MappedBench:
    """Implements `cinder_lite.certify.driver_bench.DriverBench`."""

    def __init__(self, machine: MappedMachine, driver: LvmDriver) -> None:
        self.machine = machine
        self.driver = driver

    async def names(self) -> set[str]:
        return {name.removeprefix("_") for name, lv in self.machine.volumes.items() if not lv.is_pool}

    async def size_of(self, name: str) -> int:
        return self.machine.volumes[name].size

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        lv = self.machine.volumes[volume.name]
        assert lv.is_active
        assert offset + length <= lv.size
        return bytes([lv.blocks.get(offset, 0)]) * length

    async def write(self, volume: Volume, offset: int, data: bytes) -> None:
        lv = self.machine.volumes[volume.name]
        assert lv.is_active
        assert offset + len(data) <= lv.size
        lv.blocks[offset] = data[0]

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        self.machine.volumes[volume.name].is_open = True
        try:
            yield
        finally:
            self.machine.volumes[volume.name].is_open = False

    async def add_strangers(self) -> None:
        for name in ("root", "volume-of-another", f"backup-volume-{new_uuid()}", f"clone-snap-{new_uuid()}"):
            self.machine.volumes[name] = Lv(4 * 1024**2)

    async def begin_volume(self, volume: Volume) -> None:
        self.machine.volumes[volume.name] = Lv(GIB, tags={UNFINISHED}, pool=self._pool)

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        made = Lv(
            GIB, tags={UNFINISHED, f"cinder_origin={snapshot.volume_name}"}, pool=self._pool, blocks={0: 0x77, GIB // 2: 0x77}
        )
        self.machine.volumes[f"_{snapshot.name}"] = made

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        self.machine.volumes[volume.name] = Lv(GIB, tags={UNFINISHED}, pool=self._pool, blocks={0: 0x77, GIB // 2: 0x77})
        if not self._pool:
            moment = f"clone-snap-{volume.id}"
            self.machine.volumes[moment] = Lv(GIB, origin=source.name)

    async def close(self) -> None:
        """The machine goes with the test."""

    @property
    def _pool(self) -> str:
        return next((name for name, lv in self.machine.volumes.items() if lv.is_pool), "")
