"""What a backend's reconciler decides: every row of the table at the head of cinder_lite.domain.settle, and what holds for all."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from cinder_lite.contract import ExportReport
from cinder_lite.domain.settle import Action, AttachmentFact, Facts, Mend, SnapshotFact, VolumeFact, settle
from cinder_lite.domain.volume import VOLUME
from common.base.settling import Busy, due

NOW = datetime(2026, 11, 28, 12)  # noqa: DTZ001 - as rows have it
OLD, YOUNG = NOW - timedelta(minutes=5), NOW - timedelta(seconds=19)
V = "00000000-0000-4000-8000-000000000001"
P = "00000000-0000-4000-8000-00000000000a"
WHO, FOREIGN = "iqn.2010-10.org.openstack:cmp1", "iqn.2010-10.org.openstack:cmp9"
HELD = AttachmentFact(id="a1", who=frozenset({WHO, "cmp1"}))
RESERVED = AttachmentFact(id="a1")


def volume(status: str = "available", **fields) -> VolumeFact:
    return VolumeFact(**{"id": V, "status": status, "changed_at": OLD, **fields})


def used(status: str = "in-use", **fields) -> VolumeFact:
    return volume(status, **{"attachments": (HELD,), "provider_location": "x", "has_auth": True, **fields})


def export(path: str | None = f"/v/volume-{V}", *let_in: str) -> ExportReport:
    return ExportReport(volume_id=V, path=path, let_in=list(let_in))


SOUND = export(f"/v/volume-{V}", WHO)


def facts(row: VolumeFact | None, *exports: ExportReport, kept: frozenset[str] | None = frozenset(), **fields) -> Facts:
    named: Mapping[str, ExportReport] = {str(number): found for number, found in enumerate(exports)}
    rows = {} if row is None else {row.id: row}
    return Facts(**{"now": NOW, "volumes": rows, "exports": named, "kept": kept, **fields})


TABLE: dict[str, tuple[Facts, Mend | None, bool]] = {
    "creating": (facts(volume("creating")), Mend.CREATE_VOLUME, False),
    "deleting": (facts(volume("deleting")), Mend.DELETE_VOLUME, False),
    "extending": (facts(volume("extending")), Mend.EXTEND_VOLUME, False),
    "extending and held": (facts(used("extending"), SOUND), Mend.EXTEND_VOLUME, False),
    "extending and not exported": (facts(used("extending")), Mend.RESTORE_EXPORT, False),
    "extending in vain, and said to be exported": (
        facts(volume("error_extending", provider_location="x")), Mend.REMOVE_STALE_EXPORT, True,
    ),
    "available": (facts(volume()), None, False),
    "in-use and exported": (facts(used(), SOUND), None, False),
    "in-use and not exported": (facts(used()), Mend.RESTORE_EXPORT, False),
    "attaching and not exported": (facts(used("attaching")), Mend.RESTORE_EXPORT, False),
    "detaching and not exported": (facts(used("detaching")), Mend.RESTORE_EXPORT, False),
    "held, and in error": (facts(used("error")), None, False),
    "held, and its row knows no export yet": (facts(used("attaching", provider_location=None)), None, False),
    "exported as nothing": (facts(used(), export(None, WHO)), Mend.RESTORE_EXPORT, False),
    "exported as something else": (facts(used(), export("/etc/passwd", WHO)), Mend.RESTORE_EXPORT, False),
    "nobody let in": (facts(used(), export()), Mend.RESTORE_EXPORT, False),
    "a stranger instead": (facts(used(), export(f"/v/volume-{V}", FOREIGN)), Mend.RESTORE_EXPORT, False),
    "a stranger too": (facts(used(), export(f"/v/volume-{V}", WHO, FOREIGN)), Mend.RESTORE_EXPORT, True),
    "a stranger at a shared one": (facts(used(multiattach=True), export(f"/v/volume-{V}", WHO, FOREIGN)), None, False),
    "exported and held by nobody": (facts(volume(), SOUND), Mend.REMOVE_STALE_EXPORT, True),
    "exported and only reserved": (facts(volume("attaching", attachments=(RESERVED,)), SOUND), Mend.REMOVE_STALE_EXPORT, True),
    "exported and deleted": (facts(volume("deleted", is_deleted=True), SOUND), Mend.REMOVE_STALE_EXPORT, True),
    "said to be exported": (facts(volume(provider_location="x")), Mend.REMOVE_STALE_EXPORT, True),
    "credentials of nobody": (facts(volume(has_auth=True)), Mend.REMOVE_STALE_EXPORT, True),
    "reserved, with an old location": (facts(volume("attaching", attachments=(RESERVED,), provider_location="x")), None, False),
    "bytes of a deleted one": (
        facts(volume("deleted", is_deleted=True), kept=frozenset({f"volume-{V}"})), Mend.REMOVE_STALE_VOLUME, True,
    ),
    "deleted and gone": (facts(volume("deleted", is_deleted=True)), None, False),
    "bytes of a live one": (facts(volume(), kept=frozenset({f"volume-{V}"})), None, False),
    "export and bytes that no row knows": (facts(None, SOUND, kept=frozenset({f"volume-{V}"})), None, False),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_row_of_the_table(name: str) -> None:
    given_, mend, destroys = TABLE[name]
    assert [(found.mend, found.destroys, found.subject) for found in settle(given_)] == (
        [] if mend is None else [(mend, destroys, f"volume:{V}")]
    )


@pytest.mark.parametrize("name", TABLE)
def test_nothing_is_done_about_what_somebody_works_on_but_that_others_get_a_lost_export_back(name: str) -> None:
    given_, mend, _ = TABLE[name]
    for busy in (Busy(frozenset({V})), Busy(is_everything=True)):
        is_lost = mend is Mend.RESTORE_EXPORT and not any(
            export.path is not None and export.path.endswith(f"volume-{V}") for export in (given_.exports or {}).values()
        )
        assert [found.mend for found in settle(replace(given_, busy=busy))] == ([Mend.RESTORE_EXPORT] if is_lost else [])
        assert settle(replace(given_, busy=busy, own=frozenset({V}))) == []


@pytest.mark.parametrize("name", TABLE)
def test_what_changed_a_moment_ago_is_left_alone_but_for_an_export_that_is_lost(name: str) -> None:
    young = {row.id: replace(row, changed_at=YOUNG) for row in TABLE[name][0].volumes.values()}
    found = settle(replace(TABLE[name][0], volumes=young))
    lost = "not exported" in name or "exported as" in name
    assert [each.mend for each in found] == ([Mend.RESTORE_EXPORT] if lost and TABLE[name][1] else [])


@pytest.mark.parametrize("name", TABLE)
def test_of_a_part_that_is_silent_nothing_is_decided(name: str) -> None:
    found = settle(replace(TABLE[name][0], exports=None, kept=None))
    assert {each.mend for each in found} <= {Mend.CREATE_VOLUME, Mend.DELETE_VOLUME, Mend.EXTEND_VOLUME}


def snapshot(status: str = "available", **fields) -> SnapshotFact:
    return SnapshotFact(**{"id": P, "volume_id": V, "status": status, "changed_at": OLD, **fields})


KEPT = frozenset({f"volume-{V}", f"snapshot-{P}"})
SNAPSHOTS: dict[str, tuple[SnapshotFact, frozenset[str] | None, Mend | None]] = {
    "creating": (snapshot("creating"), frozenset(), Mend.CREATE_SNAPSHOT),
    "creating, half there": (snapshot("creating"), KEPT, Mend.CREATE_SNAPSHOT),
    "creating, of a silent backend": (snapshot("creating"), None, Mend.CREATE_SNAPSHOT),
    "creating since a moment": (snapshot("creating", changed_at=YOUNG), frozenset(), None),
    "deleting": (snapshot("deleting"), KEPT, Mend.DELETE_SNAPSHOT),
    "available": (snapshot(), KEPT, None),
    "error": (snapshot("error"), frozenset(), None),
    "error_deleting": (snapshot("error_deleting"), KEPT, None),
    "deleted, and its bytes are there": (snapshot("deleted", is_deleted=True), KEPT, Mend.REMOVE_STALE_SNAPSHOT),
    "deleted, of a silent backend": (snapshot("deleted", is_deleted=True), None, None),
    "deleted a moment ago": (snapshot("deleted", is_deleted=True, changed_at=YOUNG), KEPT, None),
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_row_of_the_table_about_snapshots(name: str) -> None:
    row, kept, mend = SNAPSHOTS[name]
    found = settle(facts(volume(), kept=kept, snapshots=(row,)))
    destroys = mend is Mend.REMOVE_STALE_SNAPSHOT
    assert found == ([] if mend is None else [Action(mend, V, destroys, snapshot_id=P)])
    assert settle(facts(volume(), kept=kept, snapshots=(row,), busy=Busy(frozenset({V})))) == []


def test_what_is_left_of_a_snapshot_goes_before_its_volume_and_a_guest_that_waits_goes_before_both() -> None:
    stale = snapshot("deleted", is_deleted=True)
    of_deleted = facts(volume("deleted", is_deleted=True), kept=KEPT, snapshots=(stale,))
    assert [found.mend for found in settle(of_deleted)] == [Mend.REMOVE_STALE_SNAPSHOT]
    assert [found.mend for found in settle(facts(used(), kept=KEPT, snapshots=(stale,)))] == [Mend.RESTORE_EXPORT]


ROWS = st.builds(
    VolumeFact,
    id=st.sampled_from([V, V[:-1] + "2"]),
    status=st.sampled_from(sorted(VOLUME.states)),
    changed_at=st.sampled_from([None, OLD, YOUNG]),
    is_deleted=st.booleans(),
    multiattach=st.booleans(),
    provider_location=st.sampled_from([None, "x"]),
    has_auth=st.booleans(),
    attachments=st.lists(st.sampled_from([HELD, RESERVED]), max_size=2).map(tuple),
)
EXPORTS = st.lists(st.sampled_from([SOUND, export(), export(None), export(f"/v/volume-{V}", WHO, FOREIGN)]), max_size=2)
FACTS = st.builds(
    lambda rows, exports, kept, busy: facts(
        None, *exports, kept=kept, volumes={row.id: row for row in rows}, busy=Busy(frozenset(busy))
    ),
    st.lists(ROWS, max_size=3), EXPORTS, st.none() | st.frozensets(st.just(f"volume-{V}")), st.frozensets(st.just(V)),
)  # fmt: skip


@given(FACTS)
def test_the_same_facts_give_the_same_actions_one_for_a_volume_and_for_a_busy_one_its_lost_export_only(known: Facts) -> None:
    found = settle(known)
    assert found == settle(known)
    assert len({each.subject for each in found}) == len(found)
    assert all(each.volume_id in known.volumes for each in found)
    assert {each.mend for each in found if each.volume_id in known.busy} <= {Mend.RESTORE_EXPORT}


@given(st.lists(st.builds(Action, st.sampled_from(list(Mend)), st.sampled_from("abc"), st.booleans()), unique=True))
def test_what_takes_something_away_waits_for_the_next_round(found: list[Action]) -> None:
    first = due(found, frozenset())
    assert not any(each.destroys for each in first.actions)
    again = due(found, first.suspects)
    assert list(again.actions) == found
    assert due([], again.suspects).suspects == frozenset()
    assert len(due(found, first.suspects, limit=1).actions) == min(1, len(found))
