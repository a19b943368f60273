"""What a certification says, and when it is passed."""

from xml.etree import ElementTree as ET

import pytest

from cinder_lite.certify.report import Report, as_html, as_junit, as_text
from cinder_lite.certify.run import Outcome, Result
from cinder_lite.certify.specification import Specification


async def _check(_: object) -> None:
    """Nothing is looked at here."""


SPEC: Specification[object] = Specification(2, "a volume in use is not deleted", _check)
PASSED = Result("driver", SPEC, Outcome.PASSED, 0.5)
FAILED = Result("driver", SPEC, Outcome.FAILED, 1.25, 'found "<nothing>" & \x1b[31m')
SKIPPED = Result("target", SPEC, Outcome.SKIPPED, 0.0, "no hosts here")


@pytest.mark.parametrize(
    ("results", "leaks", "is_passed"),
    [
        ([PASSED, SKIPPED], [], True),
        ([PASSED, FAILED], [], False),
        ([PASSED], ["volume-1"], False),
        ([SKIPPED], [], False),
        ([], [], False),
    ],
)
def test_it_is_passed_when_something_was_tried_nothing_failed_and_nothing_is_left(
    results: list[Result], leaks: list[str], *, is_passed: bool
) -> None:
    assert Report("lvm", "driver lvm", results, leaks).is_passed is is_passed


def test_the_text_has_what_failed_and_why_and_counts_the_rest() -> None:
    text = as_text(Report("lvm", "driver lvm", [PASSED, FAILED, SKIPPED], ["volume-1"], ["the target was not tried"]))
    assert text.splitlines() == [
        f" FAILED  driver 2 a volume in use is not deleted  (1.25 s): {FAILED.message}",
        "skipped  target 2 a volume in use is not deleted  (0.00 s): no hosts here",
        "left behind: volume-1",
        "the target was not tried",
        "lvm (driver lvm): NOT certified; 3 specifications: 1 passed, 1 failed, 1 skipped; 1 left behind; 1.8 s",
    ]


def test_junit_has_a_case_for_each_and_one_for_leaks() -> None:
    root = ET.fromstring(as_junit(Report("lvm", "driver lvm", [PASSED, FAILED, SKIPPED], ["volume-1"])).encode())
    assert {suite.get("name"): (suite.get("tests"), suite.get("failures"), suite.get("skipped")) for suite in root} == {
        "driver": ("2", "1", "0"),
        "target": ("1", "0", "1"),
        "leaks": ("1", "1", "0"),
    }
    failure = root.find("./testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message") == 'found "<nothing>" & \ufffd[31m'
    assert root.find("./testsuite[@name='leaks']/testcase/failure") is not None


def test_html_escapes_what_a_driver_said() -> None:
    page = as_html(Report("lvm", "driver lvm", [FAILED], ["<b>"]))
    assert "&lt;nothing&gt;&quot; &amp;" in page
    assert "<b>" not in page
