"""Cinder's audit: each planted violation is found, and nothing else; a sound cloud has none."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from cinder_lite.contract import BackendReport, ExportReport, VolumeStatus
from cinder_lite.domain.audit import AttachmentFact, Facts, SnapshotFact, VolumeFact, audit
from cinder_lite.domain.volume import VOLUME, attach_status_of, volume_id_of
from common.base.violation import UNKNOWN

BACKEND = "h1@file"
USED, FREE, STRAY = ("00000000-0000-4000-8000-00000000000" + digit for digit in "123")
WHO = "iqn.2010-10.org.openstack:cmp1"
FOREIGN = "iqn.2010-10.org.openstack:cmp9"
IQN = "iqn.2010-10.org.openstack:volume-"

ATTACHED = AttachmentFact(
    id="a1", volume_id=USED, status="attached", instance_uuid="s1", attached_host="cmp1", who=frozenset({WHO, "cmp1"})
)


def volume(volume_id: str = FREE, status: str = "available", size: int = 2, **fields) -> VolumeFact:
    attach_status = attach_status_of(VolumeStatus(status)) or ("attached" if fields.get("attachments") else "detached")
    known = {"host": f"{BACKEND}#file", "attach_status": str(attach_status)}
    return VolumeFact(**{"id": volume_id, "status": status, "size": size, **known, **fields})


def used(status: str = "in-use", **fields) -> VolumeFact:
    held = {"attachments": (ATTACHED,), "has_auth": True, "provider_location": "192.0.2.1:3260,1 iqn 1"}
    return volume(USED, status, **{**held, **fields})


def export(volume_id: str = USED, *, let_in: tuple[str, ...] = (WHO,), sessions: tuple[str, ...] = (WHO,)) -> ExportReport:
    return ExportReport(volume_id=volume_id, path=f"/v/volume-{volume_id}", let_in=list(let_in), sessions=list(sessions))


def report(backend: str = BACKEND, **fields) -> BackendReport:
    sound = {"exports": {IQN + USED: export()}, "volumes": [f"volume-{USED}", f"volume-{FREE}"], "provisioned_gb": 4.0}
    return BackendReport(**{"backend": backend, "kind": "tgt", "capacity_gb": 10.0, **sound, **fields})


def facts(*volumes: VolumeFact, at: BackendReport | None = None, **fields) -> Facts:
    """Two volumes on one backend, one of them attached, unless something else is given."""
    known = {"backends": frozenset({BACKEND}), "reports": {BACKEND: at or report()}}
    return Facts(volumes=volumes or (used(), volume()), **{**known, **fields})


def exported(**exports: ExportReport) -> BackendReport:
    return report(exports={IQN + USED: export(), **{name.replace("_", ":"): found for name, found in exports.items()}})


SNAPSHOT = "snapshot:p1"


def with_snapshot(kept: dict[str, str] | None = None, **fields) -> Facts:
    row = SnapshotFact(**{"id": "p1", "volume_id": USED, "status": "available", "backend": BACKEND, **fields})
    return facts(at=report(snapshots={"snapshot-p1": f"volume-{USED}"} if kept is None else kept), snapshots=(row,))


PLANTED: dict[str, tuple[Facts, str, str, str]] = {
    "two attachments": (facts(used(attachments=(ATTACHED, replace(ATTACHED, id="a2"))), volume()), "S1", f"volume:{USED}", "2 attachments"),
    "two sessions": (facts(at=exported(**{IQN + USED: export(sessions=(WHO, WHO))})), "S1", f"volume:{USED}", "2 sessions"),
    "a stranger's session": (facts(at=exported(**{IQN + USED: export(sessions=(FOREIGN,))})), "S2", f"volume:{USED}", FOREIGN),
    "a session of the host before": (
        facts(
            used("attaching", attachments=(replace(ATTACHED, status="reserved", who=frozenset()),)), volume(),
        ), "S2", f"volume:{USED}", "is held for another",
    ),
    "a word that is no status": (facts(used(), replace(volume(), status="banana")), "S7", f"volume:{FREE}", "banana"),
    "a status that nothing leads to": (facts(used(), replace(volume(), status="reserved")), "S7", f"volume:{FREE}", "reserved"),
    "an attach_status of another status": (facts(used(), volume(attach_status="attached")), "S7", f"volume:{FREE}", "wanted: detached"),
    "an attachment's word": (
        facts(used("error", attachments=(replace(ATTACHED, status="banana"),)), volume()), "S7", f"volume:{USED}", "banana",
    ),
    "available and nowhere": (facts(used(), volume(host=None), at=report(volumes=[f"volume-{USED}"], provisioned_gb=2)), "S7", f"volume:{FREE}", "never placed"),
    "in-use by nobody": (facts(used(attachments=()), volume(), at=report(exports={})), "S8", f"volume:{USED}", "attachments are: none"),
    "in-use by one who only begins": (
        facts(used(attachments=(replace(ATTACHED, status="attaching"),)), volume()), "S8", f"volume:{USED}", "wanted: one that is attached",
    ),
    "available and attached": (
        facts(used("available", attachments=(ATTACHED,)), volume()), "S8", f"volume:{USED}", "has attachments all the same",
    ),
    "available and exported by its row": (facts(used(), volume(provider_location="x")), "S8", f"volume:{FREE}", "exported as x"),
    "attached and not exported": (facts(at=report(exports={})), "S8", f"volume:{USED}", "does not export"),
    "attached and not let in": (facts(at=exported(**{IQN + USED: export(let_in=(), sessions=())})), "S8", f"volume:{USED}", "not let in"),
    "another's bytes": (
        facts(at=report(exports={IQN + USED: ExportReport(volume_id=USED, path=f"/v/volume-{FREE}", let_in=[WHO])})),
        "S12", f"volume:{USED}", f"serves /v/volume-{FREE}",
    ),
    "more on the backend": (facts(at=report(provisioned_gb=5)), "S13", f"backend:{BACKEND}", "4 GiB by their rows, and 5 GiB"),
    "less on the backend": (facts(at=report(provisioned_gb=3)), "S13", f"backend:{BACKEND}", "4 GiB by their rows, and 3 GiB"),
    "more promised than there is": (facts(at=report(capacity_gb=3)), "S13", f"backend:{BACKEND}", "4 GiB are promised in its rows, and there are 3 GiB"),
    "credentials of an available volume": (facts(used(), volume(has_auth=True)), "S14", f"volume:{FREE}", "credentials"),
    "credentials of a deleted volume": (facts(secrets=(STRAY,)), "S14", f"volume:{STRAY}", "it is deleted"),
    "creating for ever": (facts(used(), volume(status="creating", is_old=True)), "L1", f"volume:{FREE}", "has been creating"),
    "deleting for ever": (facts(used(), volume(status="deleting", is_old=True)), "L1", f"volume:{FREE}", "has been deleting"),
    "attaching for ever": (
        facts(used("attaching", is_old=True, attachments=(replace(ATTACHED, status="attaching"),)), volume()), "L1", f"volume:{USED}", "has been attaching",
    ),
    "an export of nobody": (
        facts(at=exported(**{IQN + STRAY: export(STRAY, sessions=())})), "L3", f"volume:{STRAY}", "there is no such volume",
    ),
    "an export with a strange name": (
        facts(at=exported(**{"iqn.x:y": ExportReport(sessions=[FOREIGN])})), "L3", "export:iqn.x:y", f"has sessions of {FOREIGN}",
    ),
    "an export without an attachment": (facts(at=exported(**{IQN + FREE: export(FREE)})), "L3", f"volume:{FREE}", f"lets in {WHO} and has sessions of {WHO}"),
    "a rule of nobody": (facts(at=exported(**{IQN + USED: export(let_in=(WHO, FOREIGN))})), "L3", f"volume:{USED}", f"lets in {FOREIGN}"),
    "a volume without a row": (
        facts(at=report(volumes=[f"volume-{each}" for each in (USED, FREE, STRAY)])), "L3", f"volume:{STRAY}", "no row of that backend knows it",
    ),
    "a row without a volume": (facts(at=report(volumes=[f"volume-{USED}"], provisioned_gb=2)), "L3", f"volume:{FREE}", "does not keep it"),
    "an attachment without a volume": (
        facts(orphans=(replace(ATTACHED, volume_id=STRAY),)), "L3", f"volume:{STRAY}", "its volume is gone",
    ),
    "extending for ever": (facts(used(), volume(status="extending", is_old=True)), "L1", f"volume:{FREE}", "has been extending"),
    "extending, and its attachment only begins": (
        facts(used("extending", attachments=(replace(ATTACHED, status="attaching"),)), volume()), "S8", f"volume:{USED}", "wanted: one that is attached",
    ),
    "a snapshot's word": (with_snapshot(status="banana"), "S7", SNAPSHOT, "banana"),
    "a snapshot of a deleted volume": (with_snapshot(volume_id=STRAY), "L3", SNAPSHOT, "its volume"),
    "a snapshot creating for ever": (with_snapshot(status="creating", is_old=True), "L1", SNAPSHOT, "has been creating"),
    "a snapshot that is not kept": (with_snapshot(kept={}), "L3", SNAPSHOT, "does not keep it"),
    "a snapshot without a row": (
        facts(at=report(snapshots={"snapshot-p1": f"volume-{USED}"})), "L3", SNAPSHOT, f"keeps snapshot-p1 of volume-{USED}",
    ),
    "a backend that never was": (
        facts(used(), volume(), volume(STRAY, host="h2@gone#p")), UNKNOWN, "backend:h2@gone", "volumes in its rows: 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_each_planted_violation_is_found_and_nothing_else(what: str) -> None:
    given, invariant, subject, words = PLANTED[what]
    found = audit(given)
    assert [(each.invariant, each.subject) for each in found] == [(invariant, subject)], found
    assert words in found[0].evidence
    assert found[0].mend


SOUND: dict[str, Callable[[], Facts]] = {
    "as it should be": facts,
    "nothing at all": lambda: Facts(volumes=(), reports={}),
    "local, by the host's name": lambda: facts(at=exported(**{IQN + USED: export(let_in=("cmp1",), sessions=())})),
    "creating, not there yet": lambda: facts(used(), volume(status="creating"), at=report(volumes=[f"volume-{USED}"], provisioned_gb=2)),
    "creating, half there": lambda: facts(used(), volume(status="creating"), at=report(provisioned_gb=2)),
    "creating, before it was placed": lambda: facts(used(), volume(status="creating", host=None), at=report(volumes=[f"volume-{USED}"], provisioned_gb=2)),
    "deleting, gone already": lambda: facts(used(), volume(status="deleting"), at=report(volumes=[f"volume-{USED}"], provisioned_gb=2)),
    "error, never made": lambda: facts(used(), volume(status="error"), at=report(volumes=[f"volume-{USED}"], provisioned_gb=2)),
    "error for ever": lambda: facts(used(), volume(status="error", is_old=True)),
    "attaching, not exported yet": lambda: facts(used("attaching", attachments=(replace(ATTACHED, status="attaching"),)), volume(), at=report(exports={})),
    "detaching, put out already": lambda: facts(
        used("detaching", attachments=(replace(ATTACHED, status="detaching"),)), volume(), at=exported(**{IQN + USED: export(let_in=(), sessions=())})
    ),
    "multiattach": lambda: facts(
        used(multiattach=True, attachments=(ATTACHED, replace(ATTACHED, id="a2", who=frozenset({FOREIGN})))), volume(),
        at=exported(**{IQN + USED: export(let_in=(WHO, FOREIGN), sessions=(WHO, FOREIGN))}),
    ),
    "a backend that gave no report": lambda: facts(used(), volume(), reports={}),
    "two backends with one target": lambda: facts(
        backends=frozenset({BACKEND, "h1@other"}),
        reports={BACKEND: report(), "h1@other": report("h1@other", volumes=[], provisioned_gb=0)},
    ),
    "an operator put it into error": lambda: facts(used("error"), volume()),
    "extending, grown already": lambda: facts(used("extending"), volume(), at=report(provisioned_gb=6)),
    "extending, nobody's": lambda: facts(used(), volume(status="extending")),
    "a snapshot": with_snapshot,
    "a snapshot that could not be taken": lambda: with_snapshot(status="error", kept={}),
    "a snapshot that is being deleted": lambda: with_snapshot(status="deleting", kept={}),
}  # fmt: skip


@pytest.mark.parametrize("what", SOUND)
def test_what_is_right_or_in_motion_is_no_violation(what: str) -> None:
    assert audit(SOUND[what]()) == []


def test_an_export_that_two_backends_tell_of_and_nobody_needs_is_told_of_by_both_under_one_name() -> None:
    at = exported(**{IQN + STRAY: export(STRAY)})
    found = audit(
        facts(
            backends=frozenset({BACKEND, "h1@other"}),
            reports={BACKEND: at, "h1@other": msgspec.structs.replace(at, backend="h1@other", volumes=[], provisioned_gb=0)},
        )
    )
    assert {(each.invariant, each.subject) for each in found} == {("L3", f"volume:{STRAY}")}


def test_a_volume_on_another_backend_than_its_row_says_is_found_on_both() -> None:
    found = audit(
        facts(
            used(), volume(host="h1@other#p"),
            backends=frozenset({BACKEND, "h1@other"}),
            reports={BACKEND: report(), "h1@other": report("h1@other", volumes=[], exports={}, provisioned_gb=0)},
        )
    )  # fmt: skip
    assert [(each.invariant, each.evidence.split(",")[0]) for each in found] == [
        ("L3", "it is available"), ("L3", f"{BACKEND} keeps volume-{FREE}"),
    ]  # fmt: skip


@pytest.mark.parametrize("status", sorted(VOLUME.states))
def test_no_status_of_a_volume_makes_the_audit_fail(status: VolumeStatus) -> None:
    audit(facts(used(status), volume(status=status)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"volume-{USED}", USED),
        (IQN + USED, USED),
        ("volume-of-another", None),
        (USED, None),
        ("", None),
        (f"volume-{USED}.old", None),
    ],
)
def test_the_id_in_a_name(name: str, expected: str | None) -> None:
    assert volume_id_of(name) == expected
