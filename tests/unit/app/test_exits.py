"""Which exit code an error gives, and what is said with it."""

import pytest

from cinder_lite.errors import VolumeNotFound
from common.app.exits import Exit, ending, exit_code
from common.base.errors import Broken, Conflict, Fault, Invalid, Misconfigured, NotFound, Timeout, Unavailable
from common.transport.port import BusUnavailable, Unroutable


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(reason="x"), 1),
        (Invalid(reason="x"), 1),
        (NotFound(kind="Volume", name="v"), 1),
        (Conflict(kind="Volume", name="v", found="in-use", expected="available"), 1),
        (Broken(what="x", reason="y"), 1),
        (VolumeNotFound(volume_id="v"), 1),
        (Timeout(what="x", timeout_s=1.0), 2),
        (Unroutable(address="nova-api"), 3),
        (BusUnavailable(url="rabbit://h", reason="refused"), 69),
        (Unavailable(what="the database", reason="gone"), 69),
        (Misconfigured(reason="x"), 78),
    ],
)
def test_the_class_of_a_fault_decides_the_exit_code(fault: Fault, code: int) -> None:
    assert exit_code(fault) == code
    assert ending(fault, trace=True) == (ending(fault, trace=False))
    assert ending(fault, trace=True).code == code
    assert ending(fault, trace=True).text == f"error: {fault}"


@pytest.mark.parametrize("kind", [Timeout, Unroutable, Unavailable, BusUnavailable, Misconfigured, Conflict])
def test_what_a_peer_raised_is_a_refusal_whatever_its_class(kind: type[Fault]) -> None:
    assert exit_code(kind.rebuilt("the peer's words", {})) == Exit.REFUSED


def test_faults_within_groups_are_told_once_each_and_the_first_decides() -> None:
    away = Unavailable(what="the database", reason="gone")
    group = ExceptionGroup("g", [away, ExceptionGroup("h", [away, Timeout(what="x", timeout_s=1.0)])])
    end = ending(group, trace=True)
    assert end.code == Exit.UNAVAILABLE
    assert end.text.splitlines() == [
        f"error: {away}",
        "error: x gave no answer within 1 s. It may still happen: look at its state before you repeat it.",
    ]


def test_a_bug_is_named_in_one_line_with_its_traceback_only_on_request() -> None:
    bug = ValueError("bad\nthings")
    assert ending(bug, trace=False).code == Exit.BUG
    assert ending(bug, trace=False).text == "error: ValueError: bad (this is a bug); LITE_DEBUG=1 shows where"
    assert ending(bug, trace=True).text.splitlines()[0] == "error: ValueError: bad (this is a bug)"
    assert "ValueError: bad\nthings" in ending(bug, trace=True).text


def test_a_bug_beside_a_fault_is_a_bug() -> None:
    end = ending(ExceptionGroup("g", [Fault(reason="x"), KeyError("k")]), trace=False)
    assert (end.code, end.text) == (Exit.BUG, "error: KeyError: 'k' (this is a bug); LITE_DEBUG=1 shows where")
