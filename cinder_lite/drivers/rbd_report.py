"""What `rbd` and `ceph` say with --format json, as values. Pure. Sizes are bytes.

All functions raise ValueError for text that is no such report.
"""

from dataclasses import dataclass
from typing import TypeVar

import msgspec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Image:
    """parent   (image, snapshot) that it shares blocks with still; None: it stands by itself"""

    name: str
    size: int
    parent: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ImageSnapshot:
    image: str
    name: str
    size: int
    is_protected: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything in a pool. `images` by name, `snapshots` by image and name."""

    images: dict[str, Image]
    snapshots: dict[tuple[str, str], ImageSnapshot]


@dataclass(frozen=True, slots=True)
class Monitor:
    host: str
    port: str


class _Parent(msgspec.Struct):
    image: str
    snapshot: str


class _Image(msgspec.Struct):
    name: str
    size: int
    parent: _Parent | None = None


class _Row(msgspec.Struct):
    image: str
    size: int
    snapshot: str | None = None
    protected: str = "false"
    parent: _Parent | None = None


class _Snapshot(msgspec.Struct):
    name: str
    size: int
    protected: str = "false"


class _Watcher(msgspec.Struct):
    address: str


class _Status(msgspec.Struct):
    watchers: list[_Watcher]


class _Child(msgspec.Struct):
    image: str


class _PoolStats(msgspec.Struct):
    stored: int = 0
    max_avail: int = 0


class _Pool(msgspec.Struct):
    name: str
    stats: _PoolStats


class _Usage(msgspec.Struct):
    pools: list[_Pool]


class _Mon(msgspec.Struct):
    addr: str


class _Monmap(msgspec.Struct):
    mons: list[_Mon]


def parse_info(text: str) -> Image:
    found = _decoded(text, _Image)
    return Image(found.name, found.size, _parent(found.parent))


def parse_listing(text: str) -> Listing:
    """Of `rbd ls -l`."""
    rows = _decoded(text, list[_Row])
    return Listing(
        images={row.image: Image(row.image, row.size, _parent(row.parent)) for row in rows if row.snapshot is None},
        snapshots={
            (row.image, row.snapshot): ImageSnapshot(row.image, row.snapshot, row.size, row.protected == "true")
            for row in rows
            if row.snapshot is not None
        },
    )


def parse_names(text: str) -> set[str]:
    """Of `rbd ls`."""
    return set(_decoded(text, list[str]))


def parse_snapshots(text: str, image: str) -> dict[str, ImageSnapshot]:
    """Of `rbd snap ls`, by name."""
    return {
        found.name: ImageSnapshot(image, found.name, found.size, found.protected == "true")
        for found in _decoded(text, list[_Snapshot])
    }


def parse_watchers(text: str) -> list[str]:
    """Of `rbd status`: the addresses of who has the image open, as "192.0.2.7:0/1234"."""
    return [watcher.address for watcher in _decoded(text, _Status).watchers]


def parse_children(text: str) -> list[str]:
    """Of `rbd children`: names of images."""
    return [child.image for child in _decoded(text, list[_Child])]


def parse_usage(text: str, pool: str) -> tuple[int, int] | None:
    """Of `ceph df`: bytes that are stored in the pool, and that still can be. None: the cluster does not tell."""
    found = [one.stats for one in _decoded(text, _Usage).pools if one.name == pool]
    return (found[0].stored, found[0].max_avail) if found and found[0].max_avail else None


def parse_monitors(text: str) -> list[Monitor]:
    """Of `ceph mon dump`: "192.0.2.1:6789/0" or "[2001:db8::1]:6789/0" each."""
    addresses = [mon.addr.rpartition("/")[0].rpartition(":") for mon in _decoded(text, _Monmap).mons]
    return [Monitor(host.strip("[]"), port) for host, _, port in addresses]


def _parent(found: _Parent | None) -> tuple[str, str] | None:
    return (found.image, found.snapshot) if found else None


def _decoded(text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as exc:
        raise ValueError(f"no report of this kind: {text[:80]!r}: {exc}") from exc
