import threading
from pathlib import Path

import pytest

from common.base.errors import Misconfigured
from nova_lite.brick.iscsi_text import format_initiator_name, parse_initiator_name
from nova_lite.brick.properties import ensure_initiator_name, read_initiator_name

DEBIAN = """\
## DO NOT EDIT OR REMOVE THIS FILE!
## If you change the InitiatorName=iqn.of:nobody, access lists may reject this initiator.
InitiatorName=iqn.1993-08.org.debian:01:44a42c8ddb8b
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (DEBIAN, "iqn.1993-08.org.debian:01:44a42c8ddb8b"),
        ("", None),
        ("#InitiatorName=iqn.x:1\n", None),
        ("InitiatorName=\n", None),
        ("InitiatorName= iqn.x:1\n", None),
        ("initiatorname=iqn.x:1\n", None),
        ("InitiatorAlias=iqn.x:1\n", None),
        ("  InitiatorName=iqn.x:1  # mine\n", "iqn.x:1"),
        ("InitiatorName=iqn.x:1\nInitiatorName=iqn.x:2\n", "iqn.x:2"),
        ("InitiatorName=iqn.x:1\nInitiatorName=\n", "iqn.x:1"),
        ("InitiatorName=iqn.x:1\r\n", "iqn.x:1"),
    ],
)
def test_the_name_is_read_as_open_iscsi_reads_it(text: str, name: str | None) -> None:
    assert parse_initiator_name(text) == name


def test_a_written_name_is_read_back() -> None:
    assert parse_initiator_name(format_initiator_name("iqn.x:1")) == "iqn.x:1"


def test_a_name_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "iscsi" / "initiatorname.iscsi"
    name = ensure_initiator_name(path)
    assert name.startswith("iqn.2010-10.org.openstack:")
    assert len(name.rpartition(":")[2]) == 12
    assert ensure_initiator_name(path) == name == read_initiator_name(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_name_that_is_there_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "initiatorname.iscsi"
    path.write_text(DEBIAN)
    assert ensure_initiator_name(path) == "iqn.1993-08.org.debian:01:44a42c8ddb8b"
    assert path.read_text() == DEBIAN


def test_of_several_that_make_a_name_at_once_all_get_the_same(tmp_path: Path) -> None:
    path, names, gate = tmp_path / "initiatorname.iscsi", [], threading.Barrier(8)

    def make() -> None:
        gate.wait()
        names.append(ensure_initiator_name(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names)) == 1


def test_a_file_of_somebody_else_without_a_name_is_not_mended(tmp_path: Path) -> None:
    path = tmp_path / "initiatorname.iscsi"
    path.write_text("GenerateName=yes\n")
    with pytest.raises(Misconfigured, match="holds no line"):
        ensure_initiator_name(path)
    assert path.read_text() == "GenerateName=yes\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be"):
        ensure_initiator_name(tmp_path / "file" / "initiatorname.iscsi")
