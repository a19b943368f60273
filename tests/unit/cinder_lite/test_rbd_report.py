"""Reports of rbd and ceph 16.2.15, captured from a private cluster (data/rbd.json)."""

import json
from pathlib import Path

import pytest

from cinder_lite.drivers import rbd_report
from cinder_lite.drivers.rbd_report import Image, ImageSnapshot, Monitor

SAID: dict[str, str] = json.loads(Path(__file__).with_name("data").joinpath("rbd.json").read_text())
GIB = 1024**3


def test_images_snapshots_and_what_hangs_on_them_are_read() -> None:
    listing = rbd_report.parse_listing(SAID["ls -l"])
    assert listing.images == {
        "volume-1": Image("volume-1", GIB),
        "volume-2": Image("volume-2", GIB, ("volume-1", "snapshot-1")),
    }
    assert listing.snapshots == {
        ("volume-1", "snapshot-1"): ImageSnapshot("volume-1", "snapshot-1", GIB, is_protected=True),
        ("volume-1", "half"): ImageSnapshot("volume-1", "half", GIB, is_protected=False),
    }
    assert rbd_report.parse_names(SAID["ls"]) == {"volume-1", "volume-2"}
    assert rbd_report.parse_info(SAID["info"]) == listing.images["volume-2"]
    assert rbd_report.parse_snapshots(SAID["snap ls"], "volume-1") == {name: kept for (_, name), kept in listing.snapshots.items()}
    assert rbd_report.parse_children(SAID["children"]) == ["volume-2"]


def test_who_has_an_image_open_is_read() -> None:
    (watcher,) = rbd_report.parse_watchers(SAID["status"])
    assert watcher.startswith("127.0.0.1:0/")
    assert rbd_report.parse_watchers('{"watchers":[]}') == []


def test_monitors_are_read_in_either_family() -> None:
    (monitor,) = rbd_report.parse_monitors(SAID["mon dump"])
    assert monitor.host == "127.0.0.1"
    assert rbd_report.parse_monitors('{"mons": [{"addr": "[2001:db8::1]:6789/0"}]}') == [Monitor("2001:db8::1", "6789")]


def test_a_cluster_without_a_manager_does_not_tell_its_room() -> None:
    assert rbd_report.parse_usage(SAID["df without a manager"], "volumes") is None
    told = '{"pools": [{"name": "volumes", "stats": {"stored": 5, "max_avail": 95}}, {"name": "other", "stats": {"max_avail": 1}}]}'
    assert rbd_report.parse_usage(told, "volumes") == (5, 95)


@pytest.mark.parametrize("text", ["", "no", "[]", '{"size": 3}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no report of this kind"):
        rbd_report.parse_info(text)
