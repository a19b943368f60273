"""LVM's reports as LVM 2.03.16 and losetup 2.38 gave them (data/lvs.json and its neighbours were captured on loop devices)."""

from pathlib import Path

import pytest

from cinder_lite.drivers.lvm_report import (
    Extents,
    LoopDevice,
    PhysicalVolume,
    VolumeGroup,
    parse_loops,
    parse_lvs,
    parse_pvs,
    parse_vgs,
    place_in_gap,
)

DATA = Path(__file__).with_name("data")
VOLUME = "volume-3e1a6b0e-0f1f-4c55-9a0e-4f8f9b1c2d11"
SNAPSHOT = "_snapshot-7d0c7b54-3a52-4b8e-8a5b-0d6f6f6a1b22"
GIB = 1024**3


def read(name: str) -> str:
    return (DATA / name).read_text()


def test_the_segments_of_a_volume_are_one_volume() -> None:
    found = parse_lvs(read("lvs.json"))
    assert set(found) == {VOLUME, SNAPSHOT}
    assert (found[VOLUME].size, found[VOLUME].tags) == (2 * GIB, frozenset())
    assert found[VOLUME].extents == (Extents("/dev/loop0", 0, 255), Extents("/dev/loop0", 512, 767))
    assert found[SNAPSHOT].tags == {"cinder_unfinished", f"cinder_origin={VOLUME}"}
    assert (found[SNAPSHOT].origin, found[SNAPSHOT].pool, found[SNAPSHOT].data_percent) == ("", "", None)


def test_groups_physical_volumes_and_loop_devices_are_read() -> None:
    assert parse_vgs(read("vgs.json")) == {"cinder-volumes": VolumeGroup("cinder-volumes", 17175674880, 13954449408, 4194304)}
    assert parse_pvs(read("pvs.json")) == (PhysicalVolume("/dev/loop0", 1048576, 4095, "cinder-volumes"),)
    assert parse_loops(read("losetup.json")) == (
        LoopDevice("/dev/loop1", 1048576, GIB, "/dev/loop0"),
        LoopDevice("/dev/loop0", 0, 0, "/tmp/g/pv.img"),
    )
    assert parse_loops("") == ()


ROW = (
    '{"report": [{"lv": [{"lv_name":"v", "lv_size":"4194304", "lv_attr":"%s", "origin":"%s", "pool_lv":"%s", "lv_tags":"", '
    '"data_percent":"%s", "seg_pe_ranges":""}]}]}'
)


@pytest.mark.parametrize(
    ("attr", "origin", "pool", "what"),
    [
        ("-wi-ao----", "", "", {"is_active", "is_open"}),
        ("-wi-a-----", "", "", {"is_active"}),
        ("-wi-------", "", "", set()),
        ("swi-a-s---", "volume-1", "", {"is_active", "is_thick_snapshot"}),
        ("swi-I-s---", "volume-1", "", {"is_invalid", "is_thick_snapshot"}),
        ("Vwi-a-tz--", "volume-1", "pool", {"is_active"}),
        ("twi-aotz--", "", "", {"is_active", "is_open", "is_thin_pool"}),
    ],
)
def test_the_letters_of_lv_attr_are_those_of_the_manual(attr: str, origin: str, pool: str, what: set[str]) -> None:
    """lvs(8); written after the manual, for this machine has no device-mapper to show them."""
    found = parse_lvs(ROW % (attr, origin, pool, "12.50"))["v"]
    asked = ("is_active", "is_open", "is_thick_snapshot", "is_invalid", "is_thin_pool")
    assert {name for name in asked if getattr(found, name)} == what
    assert found.data_percent == 12.5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"report": [{"vg": []}]}', "  WARNING: nothing"])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no report of lvs"):
        parse_lvs(text)


PHYSICAL = PhysicalVolume("/dev/a", 1048576, 1000, "g")


@pytest.mark.parametrize(
    ("taken", "wanted", "place"),
    [
        ((), 1000, (0, 999)),
        ((), 1001, None),
        ((), 100, (0, 99)),
        (((0, 99),), 100, (500, 599)),
        (((0, 99), (500, 599)), 100, (250, 349)),
        (((0, 99), (500, 599)), 401, None),
        (((400, 599),), 400, (0, 399)),
        (((0, 999),), 1, None),
    ],
)
def test_a_volume_of_one_piece_gets_room_to_grow(
    taken: tuple[tuple[int, int], ...], wanted: int, place: tuple[int, int] | None
) -> None:
    found = place_in_gap(PHYSICAL, [Extents("/dev/a", *span) for span in taken] + [Extents("/dev/b", 0, 999)], wanted)
    assert (found and (found.device, found.first, found.last)) == (place and ("/dev/a", *place))
