"""What is wrong with what all services share: services that do not answer, flows, queues. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from common.app.auditing import service_subject
from common.app.masking import mask_text
from common.app.queues import QueueRow
from common.base.violation import UNKNOWN, Violation
from common.db.hosts import ServiceRow
from common.db.journal import FlowState
from common.db.open_work import OpenFlow, Waiting
from common.wire.address import dead_letter_queue

_DEAD = dead_letter_queue("")


def of_services(rows: Iterable[ServiceRow], silent: Mapping[tuple[str, str], str], now: datetime) -> list[Violation]:
    """Those that do not answer, with the reason."""
    return [
        Violation(
            UNKNOWN,
            service_subject(row.binary, row.host),
            f"{silent[row.binary, row.host]}; last sign of life {_ago(row.last_seen_up, now)}: nothing can be said of what it has",
            "Start it; if that host is gone for good, delete its row of services",
        )
        for row in rows
        if (row.binary, row.host) in silent
    ]


def of_flows(flows: Iterable[OpenFlow], now: datetime, older_than_s: float) -> list[Violation]:
    """Parked ones, and those that have run for too long."""
    found = []
    for flow in flows:
        if flow.state == FlowState.PARKED:
            why = mask_text(flow.error or "no reason is recorded")
            evidence = f"{flow.saga} of {flow.subject} is parked since {_ago(flow.created_at, now)}: {why}"
            mend = f"Mend the cause, then `lite flow resume {flow.id}`; or give it up by `lite flow abandon {flow.id}`"
            found.append(Violation("L2", f"flow:{flow.id}", evidence, mend))
        elif (now - flow.created_at).total_seconds() > older_than_s:
            evidence = f"{flow.saga} of {flow.subject} was begun {_ago(flow.created_at, now)} by {flow.owner} and has not ended"
            mend = f"{flow.owner} must run, and reach what the flow needs: its log says what it waits for"
            found.append(Violation("L2", f"flow:{flow.id}", evidence, mend))
    return found


def of_messages(outbox: Iterable[Waiting], held: Iterable[str], now: datetime) -> list[Violation]:
    """Messages that were promised and not sent, and requests that were begun and not ended."""
    return [
        Violation(
            "L2",
            f"outbox:{waiting.address}",
            f"messages that are promised and not yet sent: {waiting.number}, the oldest {_ago(waiting.since, now)}"
            + (f"; {waiting.error}" if waiting.error else ""),
            "The process that promised them must run and reach the bus",
        )
        for waiting in outbox
    ] + [
        Violation("L2", f"inbox:{owner}", "it has had a request in hand for too long", f"Look into the log of {owner}")
        for owner in held
    ]


def of_queues(rows: Iterable[QueueRow], older_than_s: float) -> list[Violation]:
    """Dead letters, and messages that nobody takes or that wait for too long."""
    found = []
    for row in rows:
        if row.is_dead_letters and row.ready:
            topic = row.name.removesuffix(_DEAD)
            mend = f"`lite dlq list {topic}` shows them; `lite dlq requeue` or `lite dlq drop` ends it"
            found.append(Violation("L2", f"topic:{topic}", f"dead letters: {row.ready}", mend))
        elif row.ready and not row.is_dead_letters and (row.consumers == 0 or (row.oldest_s or 0.0) > older_than_s):
            who = "nobody takes them" if row.consumers == 0 else f"the oldest has waited for {row.oldest_s:.0f} s"
            mend = "Start the service that listens there, or look why it is slow: `lite bus inspect`"
            found.append(Violation("L2", f"queue:{row.name}", f"messages that wait: {row.ready}; {who}", mend))
    return found


def _ago(moment: datetime | None, now: datetime) -> str:
    return "never" if moment is None else f"{max((now - moment).total_seconds(), 0):.0f} s ago"
