"""What all services share in `lite doctor`: audits put together, flows, messages, queues, and who does not answer."""

from datetime import datetime, timedelta

import pytest

from common.app.auditing import Audit, asked, unanswered
from common.app.doctor_command import _as_json, _print
from common.app.queues import QueueRow
from common.app.shared_audit import of_flows, of_messages, of_queues, of_services
from common.base.errors import Broken
from common.base.violation import UNKNOWN, Violation
from common.db.hosts import ServiceRow
from common.db.open_work import OpenFlow, Waiting, is_named
from common.wire.address import dead_letter_queue

NOW = datetime(2026, 5, 1, 12)  # noqa: DTZ001 - naive UTC, as the database gives it
LATE = NOW - timedelta(seconds=100)
LATELY = NOW - timedelta(seconds=10)
ONE = Violation("S8", "volume:1", "it is so since 1 s", "mend it")
TWO = Violation("L3", "volume:2", "it is there", "remove it")


def service(host: str) -> ServiceRow:
    return ServiceRow(
        uuid=host, host=host, binary="nova-compute", topic="compute", availability_zone=None, report_count=1, disabled=False,
        disabled_reason=None, last_seen_up=LATE, forced_down=False, version=0, created_at=LATE, updated_at=LATE,
    )  # fmt: skip


def flow(name: str, state: str = "running", since: datetime = LATE, error: str | None = None) -> OpenFlow:
    return OpenFlow(name, "boot", "server:1", "nova-compute.cmp1", state, error, since)


def test_audits_are_added_and_a_finding_of_two_is_one() -> None:
    found = Audit.of([Audit((ONE, TWO), {"volumes": 2}), Audit((TWO,), {"volumes": 1, "servers": 3})])
    assert found == Audit((ONE, TWO), {"volumes": 3, "servers": 3})
    assert Audit.of([]) == Audit()


def test_a_finding_stays_when_the_next_look_has_it_with_another_age() -> None:
    older = Violation("S8", "volume:1", "it is so since 3 s", "mend it")
    assert Audit((ONE, TWO)).still(Audit((older,), {"volumes": 2})) == Audit((older,), {"volumes": 2})
    assert Audit((ONE,)).still(Audit((TWO,))).violations == ()


def test_services_that_do_not_answer_are_told_with_their_last_sign_of_life() -> None:
    (found,) = of_services([service("cmp1"), service("cmp2")], {("nova-compute", "cmp2"): "nobody listens there"}, NOW)
    assert (found.invariant, found.subject) == (UNKNOWN, "service:nova-compute on cmp2")
    assert found.evidence.startswith("nobody listens there; last sign of life 100 s ago")


def test_flows_that_are_parked_or_old_are_told_without_secrets() -> None:
    found = of_flows([flow("old"), flow("new", since=LATELY), flow("p", "parked", LATELY, "auth_password=hunter2")], NOW, 60)
    assert [(each.invariant, each.subject) for each in found] == [("L2", "flow:old"), ("L2", "flow:p")]
    assert "lite flow resume p" in found[1].mend
    assert "hunter2" not in str(found)
    assert len(of_flows([flow("new", since=LATELY)], NOW, 5)) == 1


def test_messages_that_are_not_sent_and_requests_that_do_not_end_are_told() -> None:
    found = of_messages([Waiting("cinder-api", 3, LATE)], ["nova-api.h1"], NOW)
    assert [each.subject for each in found] == ["outbox:cinder-api", "inbox:nova-api.h1"]
    assert "3, the oldest 100 s ago" in found[0].evidence


@pytest.mark.parametrize(
    ("row", "subject"),
    [
        (QueueRow("compute.cmp1", 2, consumers=0), "queue:compute.cmp1"),
        (QueueRow("compute.cmp1", 2, consumers=1, oldest_s=61), "queue:compute.cmp1"),
        (QueueRow("compute.cmp1", 2, consumers=1, oldest_s=5), None),
        (QueueRow("compute.cmp1", 2), None),
        (QueueRow("compute.cmp1", 0, consumers=0), None),
        (QueueRow("compute_lite_dead_letters", 0), None),
    ],
)
def test_messages_that_nobody_takes_or_that_wait_are_told(row: QueueRow, subject: str | None) -> None:
    assert [each.subject for each in of_queues([row], 60)] == ([] if subject is None else [subject])


def test_dead_letters_are_told_by_their_topic() -> None:
    (found,) = of_queues([QueueRow(dead_letter_queue("compute"), 2, consumers=0)], 60)
    assert (found.invariant, found.subject, found.evidence) == ("L2", "topic:compute", "dead letters: 2")


def test_a_flow_is_about_everything_whose_id_it_names() -> None:
    texts = ['volume:1 {"instance": {"uuid": "s-7"}}']
    assert is_named("volume:1", texts)
    assert is_named("server:s-7", texts)
    assert not is_named("server:s-8", texts)


async def test_all_hosts_are_asked_and_one_that_fails_is_told() -> None:
    async def ask(host: str) -> int:
        if host == "bad":
            raise Broken(what="its disk", reason="smoke")
        return len(host)

    answers, faults = await asked(["a", "bad", "ccc"], ask)
    assert answers == {"a": 1, "ccc": 3}
    (found,) = unanswered("nova-compute", faults)
    assert (found.invariant, found.subject) == (UNKNOWN, "service:nova-compute on bad")
    assert "smoke" in found.evidence


async def test_a_bug_in_an_answer_is_not_taken_for_a_finding() -> None:
    async def ask(host: str) -> int:
        raise ValueError(host)

    with pytest.RaisesGroup(ValueError):
        await asked(["a"], ask)


def test_nothing_wrong_says_how_much_was_looked_at(capsys) -> None:
    _print(Audit((), {"volumes": 2, "servers": 1}), [], None)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Nothing is wrong. Looked at servers: 1, volumes: 2.\n")


def test_after_mending_it_says_what_was_mended_and_what_is_left(capsys) -> None:
    _print(Audit((ONE, TWO)), ["cmp1: took a disk"], Audit((TWO,), {"volumes": 2}))
    out, err = capsys.readouterr()
    assert "Found: 2; mended: 1." in err
    assert "mended: cmp1: took a disk" in err
    assert "Still wrong: 1. Looked at volumes: 2." in err
    assert "volume:2" in out
    assert "volume:1" not in out


def test_the_json_has_all_of_it() -> None:
    two = {"invariant": "L3", "subject": "volume:2", "evidence": "it is there", "mend": "remove it"}
    assert _as_json(Audit((TWO,), {"volumes": 2}), [], None) == {"checked": {"volumes": 2}, "violations": [two]}
    assert _as_json(Audit((TWO,)), ["x"], Audit((), {"volumes": 2})) == {
        "checked": {"volumes": 2}, "violations": [], "done": ["x"], "mended": [two],
    }  # fmt: skip
