"""What LVM's reports say, as values: `lvs`, `vgs` and `pvs` with --reportformat json (lvmreport(7)), and losetup's --json. Pure.

Sizes are bytes (--units b --nosuffix). All functions raise ValueError for text that is no such report.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

LV_FIELDS = "lv_name,lv_size,lv_attr,origin,pool_lv,lv_tags,data_percent,seg_pe_ranges"
VG_FIELDS = "vg_name,vg_size,vg_free,vg_extent_size"
PV_FIELDS = "pv_name,pe_start,pv_pe_count,vg_name"
LOOP_FIELDS = "NAME,OFFSET,SIZELIMIT,BACK-FILE"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extents:
    """Physical extents `first` to `last`, both included, of one physical volume."""

    device: str
    first: int
    last: int

    @property
    def number(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A row or, for one of several segments, several rows of lvs.

    attr           lv_attr, ten characters (lvs(8))
    origin         what it is a snapshot of; empty: nothing
    pool           its thin pool; empty: it is thick
    data_percent   how full a thin pool or a snapshot is; None for what cannot be
    extents        of a thick one, where its bytes are, in order
    """

    name: str
    size: int
    attr: str
    origin: str = ""
    pool: str = ""
    tags: frozenset[str] = frozenset()
    data_percent: float | None = None
    extents: tuple[Extents, ...] = ()

    @property
    def is_open(self) -> bool:
        """Its device is open, by the kernel's own count."""
        return self.attr[5:6] == "o"

    @property
    def is_active(self) -> bool:
        return self.attr[4:5] == "a"

    @property
    def is_thin_pool(self) -> bool:
        return self.attr[:1] == "t"

    @property
    def is_thick_snapshot(self) -> bool:
        """It shares its volume's blocks, and is active when that is."""
        return bool(self.origin) and not self.pool

    @property
    def is_invalid(self) -> bool:
        """A snapshot that ran full: what it kept is lost (lvs(8), state I or S)."""
        return self.attr[4:5] in {"I", "S"}


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    name: str
    size: int
    free: int
    extent_size: int


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """pe_start   where its first extent begins, in bytes; pe_count   how many extents it has"""

    device: str
    pe_start: int
    pe_count: int
    vg_name: str


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """A loop device over `size` bytes at `offset` of a file or device; size 0: to its end."""

    device: str
    offset: int
    size: int
    backing: str


class _Report(msgspec.Struct):
    report: list[dict[str, list[dict[str, str]]]]


class _Loops(msgspec.Struct):
    loopdevices: list["_Loop"] = []


class _Loop(msgspec.Struct, rename={"backing": "back-file"}):
    name: str
    offset: int = 0
    sizelimit: int = 0
    backing: str | None = None


def parse_lvs(text: str) -> dict[str, LogicalVolume]:
    """By name. `lvs` has a row for each segment when it is asked for seg_pe_ranges."""
    found: dict[str, LogicalVolume] = {}
    for row in _rows(text, "lv"):
        name, before = row["lv_name"], found.get(row["lv_name"])
        found[name] = LogicalVolume(
            name=name,
            size=int(row["lv_size"]),
            attr=row["lv_attr"],
            origin=row["origin"],
            pool=row["pool_lv"],
            tags=frozenset(row["lv_tags"].split(",")) - {""},
            data_percent=float(row["data_percent"]) if row["data_percent"] else None,
            extents=(*(before.extents if before else ()), *_extents(row["seg_pe_ranges"])),
        )
    return found


def parse_vgs(text: str) -> dict[str, VolumeGroup]:
    rows = _rows(text, "vg")
    return {
        row["vg_name"]: VolumeGroup(row["vg_name"], int(row["vg_size"]), int(row["vg_free"]), int(row["vg_extent_size"]))
        for row in rows
    }


def parse_pvs(text: str) -> tuple[PhysicalVolume, ...]:
    return tuple(
        PhysicalVolume(row["pv_name"], int(row["pe_start"]), int(row["pv_pe_count"]), row["vg_name"]) for row in _rows(text, "pv")
    )


def parse_loops(text: str) -> tuple[LoopDevice, ...]:
    """`losetup --list --json`, which says nothing at all when there is none."""
    loops = msgspec.json.decode(text.strip() or "{}", type=_Loops).loopdevices
    return tuple(LoopDevice(loop.name, loop.offset, loop.sizelimit, loop.backing or "") for loop in loops)


def place_in_gap(physical: PhysicalVolume, taken: Iterable[Extents], wanted: int) -> Extents | None:
    """Where `wanted` extents go so that they lie together and may grow: in the middle of the largest gap. None: no gap is so large.

    Only for machines without device-mapper, where a volume must be one piece. A gap that begins the device is filled from its start.
    """
    gaps = sorted(_gaps(physical, taken), key=lambda gap: gap.number, reverse=True)
    if not gaps or gaps[0].number < wanted:
        return None
    first = gaps[0].first if gaps[0].first == 0 else gaps[0].first + (gaps[0].number - wanted) // 2
    return Extents(physical.device, first, first + wanted - 1)


def _gaps(physical: PhysicalVolume, taken: Iterable[Extents]) -> Iterable[Extents]:
    begin = 0
    for extents in sorted((one for one in taken if one.device == physical.device), key=lambda one: one.first):
        if extents.first > begin:
            yield Extents(physical.device, begin, extents.first - 1)
        begin = max(begin, extents.last + 1)
    if begin < physical.pe_count:
        yield Extents(physical.device, begin, physical.pe_count - 1)


def _extents(ranges: str) -> Iterable[Extents]:
    """ "/dev/sda:0-255 /dev/sdb:7-9"; the parts of a thin volume are extents of its pool, and nothing here."""
    for found in ranges.split():
        device, _, span = found.rpartition(":")
        first, _, last = span.partition("-")
        if device.startswith("/"):
            yield Extents(device, int(first), int(last))


def _rows(text: str, kind: str) -> list[dict[str, str]]:
    try:
        reports = msgspec.json.decode(text, type=_Report).report
        return [row for report in reports for row in report[kind]]
    except (msgspec.DecodeError, KeyError) as exc:
        raise ValueError(f"no report of {kind}s: {text[:80]!r}") from exc
