"""What is killed, and when: every failpoint that an attach or a detach comes past, in every process that it goes through."""

from collections.abc import Iterator
from dataclasses import dataclass

from cinder_lite.flows.initialize_connection import INITIALIZE_CONNECTION
from cinder_lite.flows.terminate_connection import DETACH, TERMINATE_CONNECTION
from common.flow.places import places_of
from common.flow.relay import PUBLISHED, PUBLISHING, SENT
from common.machine.saga import Saga
from common.rpc.server import DELIVERED, HANDLED, REPLIED, request_place
from nova_lite.flows.attach_volume import ATTACH_VOLUME
from nova_lite.flows.detach_volume import DETACH_VOLUME
from nova_lite.flows.request_attach import REQUEST_ATTACH
from nova_lite.flows.request_detach import REQUEST_DETACH

API, COMPUTE, CINDER, VOLUME = "nova-api", "nova-compute", "cinder-api", "cinder-volume"


@dataclass(frozen=True, slots=True)
class Case:
    """One fault in one operation.

    verb      "attach" or "detach"
    process   the binary that it happens to
    place     the failpoint at which it does; None: as soon as the operation has begun
    fault     "kill", "stop" (longer than the lease), "broker" (killed and started again), "database" (restarted), "tgtd" (killed)
    """

    verb: str
    process: str
    place: str | None
    fault: str = "kill"

    def __str__(self) -> str:
        return f"{self.verb}|{self.process}|{self.place or '-'}|{self.fault}"


def kills() -> list[Case]:
    """SIGKILL at each place."""
    return [
        *_of("attach", API, _ways(REQUEST_ATTACH)),
        *_of("attach", API, (PUBLISHING, PUBLISHED, SENT)),
        *_of("attach", API, _request("nova-api", "attach_volume")),
        *_of("attach", COMPUTE, _request("compute", "reserve_block_device_name", "attach_volume")),
        *_of("attach", CINDER, _request("cinder-api", "get", "reserve_volume", "initialize_connection", "attach")),
        *_of("attach", COMPUTE, _ways(ATTACH_VOLUME)),
        *_of("attach", VOLUME, _request("cinder-volume", "initialize_connection", "attach_volume")),
        *_of("attach", VOLUME, _ways(INITIALIZE_CONNECTION)),
        *_of("detach", API, _ways(REQUEST_DETACH)),
        *_of("detach", API, (PUBLISHING, PUBLISHED, SENT)),
        *_of("detach", API, _request("nova-api", "detach_volume")),
        *_of("detach", COMPUTE, _request("compute", "detach_volume")),
        *_of("detach", CINDER, _request("cinder-api", "get", "begin_detaching", "terminate_connection", "detach")),
        *_of("detach", COMPUTE, _ways(DETACH_VOLUME)),
        *_of("detach", VOLUME, _request("cinder-volume", "terminate_connection", "detach_volume")),
        *_of("detach", VOLUME, _ways(TERMINATE_CONNECTION)),
        *_of("detach", VOLUME, _ways(DETACH)),
    ]


def outages() -> list[Case]:
    """A broker, a database, a target daemon that dies in the middle, and a process that sleeps for longer than its lease."""
    middles = {
        "attach": (
            (API, "request_attach.reserve_volume.begun"),
            (API, "outbox.published"),
            (COMPUTE, "attach_volume.initialize_connection.begun"),
            (COMPUTE, "attach_volume.attach_volume.acted"),
            (VOLUME, "initialize_connection.create_export.acted"),
        ),
        "detach": (
            (API, "request_detach.begin_detaching.done"),
            (COMPUTE, "detach_volume.detach_volume.acted"),
            (COMPUTE, "detach_volume.terminate_connection.begun"),
            (VOLUME, "detach.remove_export.acted"),
        ),
    }
    return [
        Case(verb, process, place, fault)
        for fault in ("stop", "broker", "database", "tgtd")
        for verb, places in middles.items()
        for process, place in places
    ]


def short_form(verb: str) -> list[Case]:
    """Fifteen cases of each verb for every CI run: kills spread over the whole way, and one of each outage."""
    outage = {case.fault: case for case in reversed(outages()) if case.verb == verb}
    return [*some([case for case in kills() if case.verb == verb], 11), *(outage[fault] for fault in sorted(outage))]


def some(cases: list[Case], number: int) -> list[Case]:
    """So many of them, spread evenly, the same each time."""
    return [cases[index * len(cases) // number] for index in range(min(number, len(cases)))]


def _ways(saga: Saga) -> Iterator[str]:
    """The places of the way forward: nothing fails, so nothing is undone."""
    return (place for place in places_of(saga) if ".undo." not in place)


def _request(topic: str, *methods: str) -> Iterator[str]:
    return (request_place(topic, method, place) for method in methods for place in (DELIVERED, HANDLED, REPLIED))


def _of(verb: str, process: str, places: Iterator[str] | tuple[str, ...]) -> Iterator[Case]:
    return (Case(verb, process, place) for place in places)
