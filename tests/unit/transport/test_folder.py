"""What the folder does about the dead, the late and the half done."""

import os
import time
from pathlib import Path

import pytest

from common.transport.folder import BusFolder, Member, Presence, file_name


@pytest.fixture
def bus(tmp_path: Path) -> BusFolder:
    bus = BusFolder(tmp_path)
    bus.create()
    bus.declare("q", auto_delete=False, expires_ms=None)
    return bus


def die(presence: Presence) -> None:
    """As the kernel ends the locks of a killed process."""
    os.close(presence.pipe)
    presence.pipe = -1


def test_messages_of_one_writer_are_taken_in_the_order_of_its_calls(bus: BusFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_000)  # a clock that stands still, or was set back
    for number in range(12):
        assert bus.put("q", b"%d" % number)
    member = Member(bus)
    assert [claim.data for claim in (member.take("q") for _ in range(12)) if claim] == [b"%d" % number for number in range(12)]
    assert member.take("q") is None
    member.close()


def test_half_a_message_is_never_taken_and_goes_when_it_is_old(bus: BusFolder) -> None:
    half = bus.messages / "q" / ".1_2-3.tmp"
    half.write_bytes(b"hal")
    member = Member(bus)
    assert member.take("q") is None
    bus.sweep(now_s=time.time() + 30)
    assert half.exists()
    bus.sweep(now_s=time.time() + 61)
    assert not half.exists()
    member.close()


def test_two_members_never_take_the_same_message(bus: BusFolder) -> None:
    for number in range(10):
        bus.put("q", b"%d" % number)
    one, two = Member(bus), Member(bus)
    taken = [claim.data for _ in range(5) for member in (one, two) if (claim := member.take("q"))]
    assert sorted(taken) == [b"%d" % number for number in range(10)]
    one.close()
    two.close()


def test_what_a_dead_member_held_is_taken_again_before_what_came_later(bus: BusFolder) -> None:
    bus.put("q", b"first")
    dead = Member(bus)
    assert dead.take("q") is not None
    bus.put("q", b"second")
    die(dead._lock)
    bus.sweep(now_s=time.time())
    member = Member(bus)
    claims = [member.take("q"), member.take("q")]
    assert [(claim.data, claim.redelivered) for claim in claims if claim] == [(b"first", True), (b"second", False)]
    assert [path.name for path in (bus.control / "members").iterdir()] == [member._lock.name]
    member.close()


def test_what_a_living_member_holds_is_left_to_it(bus: BusFolder) -> None:
    bus.put("q", b"held")
    one, two = Member(bus), Member(bus)
    assert one.take("q") is not None
    bus.sweep(now_s=time.time() + 1000)
    assert two.take("q") is None
    one.close()
    two.close()


def test_a_message_requeued_twice_keeps_one_mark(bus: BusFolder) -> None:
    bus.put("q", b"again")
    member = Member(bus)
    for _ in range(3):
        claim = member.take("q")
        assert claim is not None
        member.give_back(claim, "q")
    (left,) = [path.name for path in (bus.messages / "q").iterdir() if path.name != ".queue"]
    assert left.endswith(".r.msg")
    assert left.count(".r") == 1
    member.close()


def test_dead_consumers_are_not_counted_and_are_swept_away(bus: BusFolder) -> None:
    folder = bus.control / "consumers"
    living, dead = Presence(folder, "q"), Presence(folder, "q")
    other = Presence(folder, "q.other")
    die(dead)
    assert bus.consumers("q") == 1
    bus.sweep(now_s=time.time())
    assert sorted(path.name for path in folder.iterdir()) == sorted([living.name, other.name])
    living.close()
    other.close()
    assert bus.consumers("q") == 0


def test_an_auto_delete_queue_ends_when_its_last_consumer_died(bus: BusFolder) -> None:
    bus.declare("auto", auto_delete=True, expires_ms=None)
    die(Presence(bus.control / "consumers", "auto"))
    assert bus.has("auto")
    bus.sweep(now_s=time.time())
    assert not bus.has("auto")
    assert bus.has("q")


def test_a_queue_expires_when_nobody_used_it_for_its_time(bus: BusFolder) -> None:
    bus.declare("reply", auto_delete=False, expires_ms=1_800_000)
    bus.bind("fanout", "", "", "reply")
    bus.put("reply", b"nobody reads this")
    bus.sweep(now_s=time.time() + 1799)
    assert bus.has("reply")
    consumer = Presence(bus.control / "consumers", "reply")
    bus.sweep(now_s=time.time() + 1801)
    assert bus.has("reply"), "it has a consumer"
    consumer.close()
    bus.sweep(now_s=time.time() + 1801)
    assert not bus.has("reply")
    assert bus.table("fanout") == []
    assert not bus.put("reply", b"late")


def test_a_deleted_queue_takes_its_bindings_and_its_held_messages_along(bus: BusFolder) -> None:
    bus.declare("other", auto_delete=False, expires_ms=None)
    for queue in ("q", "other"):
        bus.bind("nova", queue, "", queue)
    bus.put("q", b"held")
    member = Member(bus)
    claim = member.take("q")
    assert claim is not None
    bus.delete("q")
    member.give_back(claim, "q")
    member.release(claim)
    assert bus.table("nova") == [("other", "", "other")]
    bus.declare("q", auto_delete=False, expires_ms=None)
    assert member.take("q") is None
    member.close()


@pytest.mark.parametrize("name", ["a/b", "..", ".", ".q", "%2E", "é", "a\nb", "x.msg", "q.1.2"])
def test_an_odd_name_is_one_plain_file_name_of_its_own(name: str) -> None:
    encoded = file_name(name)
    assert "/" not in encoded
    assert not encoded.startswith(".")
    assert encoded.isascii()


def test_a_usual_name_is_its_own_file_name() -> None:
    for name in ("compute", "cinder-volume.host@file.host", "compute_fanout_0123abc", "reply_0123abc"):
        assert file_name(name) == name
