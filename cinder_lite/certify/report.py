"""What a certification came to: as text, as JUnit XML for machines that watch builds, as a page of HTML for people. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from xml.etree import ElementTree as ET

from cinder_lite.certify.run import Outcome, Result

_MARKS = {Outcome.PASSED: "ok", Outcome.FAILED: "FAILED", Outcome.SKIPPED: "skipped"}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font-family: sans-serif; margin: 2em; }} table {{ border-collapse: collapse; }} td, th {{ padding: .2em .8em; text-align: left;
vertical-align: top; border-bottom: 1px solid #ddd; }} .passed td:nth-child(3) {{ color: #070; }} .failed {{ background: #fdd; }}
.skipped {{ color: #777; }} td:nth-child(4) {{ text-align: right; }}
</style></head><body><h1>{title}</h1><p>{summary}</p>{leaks}
<table><tr><th>port</th><th>specification</th><th>outcome</th><th>s</th><th></th></tr>
{rows}
</table></body></html>
"""


@dataclass(frozen=True, slots=True)
class Report:
    """backend   the stanza
    about     what it is, "driver lvm, target tgt"
    leaks     what was not there before and is there after
    notes     what was not tried, and why
    """

    backend: str
    about: str
    results: Sequence[Result]
    leaks: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def is_passed(self) -> bool:
        """Nothing failed, nothing is left behind, and something was tried."""
        return not self.leaks and not self.number(Outcome.FAILED) and self.number(Outcome.PASSED) > 0

    def number(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.results)

    @property
    def summary(self) -> str:
        counts = ", ".join(f"{self.number(outcome)} {outcome}" for outcome in Outcome)
        seconds = sum(result.seconds for result in self.results)
        leaks = f"; {len(self.leaks)} left behind" if self.leaks else "; nothing left behind"
        return f"{len(self.results)} specifications: {counts}{leaks}; {seconds:.1f} s"


def line(result: Result) -> str:
    """One result on one line."""
    why = f": {result.message}" if result.message else ""
    return f"{_MARKS[result.outcome]:>7}  {result.port} {result.specification}  ({result.seconds:.2f} s){why}"


def as_text(report: Report) -> str:
    """What failed and what was skipped, with the reasons, and the sum; what passed is only counted."""
    told = [line(result) for result in report.results if result.outcome is not Outcome.PASSED]
    leaks = [f"left behind: {name}" for name in report.leaks]
    verdict = "certified" if report.is_passed else "NOT certified"
    return "\n".join([*told, *leaks, *report.notes, f"{report.backend} ({report.about}): {verdict}; {report.summary}"])


def as_junit(report: Report) -> str:
    """In the form that JUnit's consumers read: a suite for each port, a case for each specification, and one for what was left."""
    root = ET.Element("testsuites", name=f"lite driver certify {report.backend}")
    for port in dict.fromkeys(result.port for result in report.results):
        _add_suite(root, report, port)
    leaks = ET.SubElement(root, "testsuite", name="leaks", tests="1", failures=str(int(bool(report.leaks))), skipped="0")
    case = ET.SubElement(leaks, "testcase", classname=f"{report.backend}.leaks", name="nothing is left behind", time="0")
    if report.leaks:
        ET.SubElement(case, "failure", message=", ".join(report.leaks))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: ET.Element, report: Report, port: str) -> None:
    found = [result for result in report.results if result.port == port]
    numbers = {
        "tests": len(found),
        "failures": sum(result.outcome is Outcome.FAILED for result in found),
        "skipped": sum(result.outcome is Outcome.SKIPPED for result in found),
    }
    suite = ET.SubElement(root, "testsuite", name=port, time=f"{sum(result.seconds for result in found):.3f}")
    for key, value in numbers.items():
        suite.set(key, str(value))
    for result in found:
        name = f"{report.backend}.{port}.guarantee_{result.specification.guarantee}"
        case = ET.SubElement(suite, "testcase", classname=name, name=result.specification.name, time=f"{result.seconds:.3f}")
        if result.outcome is Outcome.FAILED:
            ET.SubElement(case, "failure", message=_printable(result.message))
        elif result.outcome is Outcome.SKIPPED:
            ET.SubElement(case, "skipped", message=_printable(result.message))


def _printable(text: str) -> str:
    """XML has no form for most control characters."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def as_html(report: Report) -> str:
    rows = "\n".join(
        f'<tr class="{result.outcome}"><td>{escape(result.port)}</td><td>{escape(str(result.specification))}</td>'
        f"<td>{result.outcome}</td><td>{result.seconds:.2f}</td><td>{escape(result.message)}</td></tr>"
        for result in report.results
    )
    verdict = "certified" if report.is_passed else "NOT certified"
    left = [*report.leaks, *report.notes]
    return _PAGE.format(
        title=escape(f"{report.backend} ({report.about}): {verdict}"),
        summary=escape(report.summary),
        leaks=f"<ul>{''.join(f'<li>{escape(word)}</li>' for word in left)}</ul>" if left else "",
        rows=rows,
    )
