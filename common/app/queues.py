"""The queues of a bus as data, and what is wrong with them. Pure.

Sources: https://www.rabbitmq.com/docs/deprecated-features (4.3 refuses transient queues that are not exclusive; 4.0 dropped mirrored
ones), oslo_messaging/_drivers/impl_rabbit.py for the options.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common.transport.port import QueueDepth
from common.wire.address import dead_letter_queue, is_reply_queue, routing_key

_DEAD_LETTERS = dead_letter_queue("")
_CLASSIC = "classic"


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue; None is what nobody could say.

    kind       "classic", "quorum" or "stream" of RabbitMQ; "folder"
    oldest_s   seconds that the oldest message has waited
    policy     the name of the policy on it, `policy_definition` what that and operator policies set
    """

    name: str
    ready: int
    unsettled: int | None = None
    consumers: int | None = None
    kind: str | None = None
    durable: bool | None = None
    exclusive: bool | None = None
    oldest_s: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None
    policy_definition: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, depth: QueueDepth, *, kind: str | None = None, durable: bool | None = None) -> "QueueRow":
        """What a transport tells of a queue."""
        return cls(name, depth.ready, depth.unsettled, depth.consumers, kind, durable, oldest_s=depth.oldest_s)

    @property
    def is_dead_letters(self) -> bool:
        """True for the queue of a topic's dead letters."""
        return self.name.endswith(_DEAD_LETTERS)

    @property
    def is_passing(self) -> bool:
        """True for queues with names of one process: of replies and fanout."""
        return is_reply_queue(self.name) or "_fanout" in self.name

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with some queues, and what mends it."""

    problem: str
    mend: str
    queues: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.queues[:3]) + (f" and {len(self.queues) - 3} more" if len(self.queues) > 3 else "")
        return f"{shown}: {self.problem}. {self.mend}"


def warnings_of(rows: Iterable[QueueRow], *, wanted: Iterable[str] = ()) -> list[Finding]:
    """What is wrong, each thing once with all of its queues. `wanted`: queues of services that say that they are up."""
    rows = list(rows)
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for word in _wrong(row):
            found.setdefault(word, []).append(row.name)
    there = {row.name for row in rows}
    if missing := sorted(set(wanted) - there):
        word = ("is not there, though a service that is up listens on it", "That process is on another bus, or deaf: restart it")
        found[word] = missing
    return [Finding(problem, mend, tuple(queues)) for (problem, mend), queues in found.items()]


def _wrong(row: QueueRow) -> Iterable[tuple[str, str]]:
    """(problem, what mends it)"""
    if row.kind == _CLASSIC and row.durable is False and row.exclusive is False:
        option = (
            "rabbit_transient_quorum_queue = true"
            if row.is_passing
            else "amqp_durable_queues = true, or rabbit_quorum_queue = true"
        )
        yield (
            "transient and not exclusive, which RabbitMQ 4.3 refuses",
            f"Set [oslo_messaging_rabbit] {option}, and delete the queue while its processes are stopped",
        )
    if "x-ha-policy" in row.arguments:
        yield (
            "declared with x-ha-policy, which RabbitMQ has ignored since 3.0 and a quorum queue does not take",
            "Set [oslo_messaging_rabbit] rabbit_ha_queues = false, and rabbit_quorum_queue = true for copies on several nodes",
        )
    if "ha-mode" in row.policy_definition:
        yield (
            f"mirrored by the policy {row.policy or '?'}, which RabbitMQ 4 does not know",
            f"Set [oslo_messaging_rabbit] rabbit_quorum_queue = true, then `rabbitmqctl clear_policy {row.policy or 'NAME'}`",
        )
    if row.is_dead_letters:
        if row.ready:
            yield f"dead letters: {row.ready}", f"`lite dlq list {row.name.removesuffix(_DEAD_LETTERS)}` shows them"
    elif row.consumers == 0 and (row.ready or not row.is_passing):
        waiting = f"messages that wait and that nobody takes: {row.ready}" if row.ready else "nobody consumes it"
        yield waiting, "Start the service, or delete the queue if it is gone for good"


def implied(topics: Sequence[str], services: Iterable[tuple[str, str]]) -> list[str]:
    """The queues that these topics and (topic, host) of the services table lead to, by name, with the dead letters'."""
    found = {name for topic in topics for name in (routing_key(topic, None), dead_letter_queue(topic))}
    for topic, host in services:
        found.add(routing_key(topic, host))
        if "@" in host:  # a backend has a topic of its own too
            found |= {routing_key(topic, host), routing_key(f"{topic}.{host}", host.partition("@")[0])}
    return sorted(found)
