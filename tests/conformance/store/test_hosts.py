"""The table of services, on each database."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from common.base.errors import NotFound
from common.db.engine import Database
from common.db.hosts import Hosts, ServiceRow, is_up
from common.host.clock import SystemClock

COMPUTE = {"binary": "nova-compute", "host": "cmp1", "topic": "compute", "availability_zone": "nova"}
VOLUME = {"binary": "cinder-volume", "host": "h1@lvm", "topic": "cinder-volume", "availability_zone": "nova"}
NOW = datetime(2026, 11, 23, 12, 0, 0)  # noqa: DTZ001 - rows hold naive UTC


@pytest.fixture
def hosts(database: Database) -> Hosts:
    return Hosts(database, SystemClock())


async def test_a_service_registers_and_is_up(hosts: Hosts) -> None:
    await hosts.register(**COMPUTE)
    (row,) = await hosts.list()
    assert (row.binary, row.host, row.topic, row.availability_zone, row.report_count) == (*COMPUTE.values(), 0)
    assert hosts.is_up(row, 60)


class WrongClock(SystemClock):
    """Set wrong by an hour."""

    def utcnow(self) -> datetime:
        return super().utcnow() + timedelta(hours=1)


async def test_a_host_whose_clock_is_wrong_is_up_and_sees_who_is(database: Database, hosts: Hosts) -> None:
    wrong = Hosts(database, WrongClock())
    await wrong.register(**COMPUTE)
    await hosts.register(**VOLUME)
    await wrong.report_state(binary="nova-compute", host="cmp1")
    assert [hosts.is_up(row, 60) for row in await hosts.list()] == [True, True]
    assert [wrong.is_up(row, 60) for row in await wrong.list()] == [True, True]


async def test_registering_again_renews_the_row(hosts: Hosts) -> None:
    await hosts.register(**COMPUTE)
    await hosts.report_state(binary="nova-compute", host="cmp1")
    (first,) = await hosts.list()
    await hosts.register(**{**COMPUTE, "availability_zone": "other"})
    (again,) = await hosts.list()
    assert (again.uuid, again.report_count, again.availability_zone) == (first.uuid, 1, "other")


async def test_many_processes_that_register_one_service_at_once_make_one_row(hosts: Hosts) -> None:
    await asyncio.gather(*(hosts.register(**COMPUTE) for _ in range(10)))
    assert len(await hosts.list()) == 1


async def test_a_heartbeat_counts_and_moves_the_time(hosts: Hosts) -> None:
    await hosts.register(**COMPUTE)
    (before,) = await hosts.list()
    await asyncio.gather(*(hosts.report_state(binary="nova-compute", host="cmp1") for _ in range(5)))
    (after,) = await hosts.list()
    assert after.report_count == 5
    assert after.last_seen_up is not None
    assert before.last_seen_up is not None
    assert after.last_seen_up > before.last_seen_up


async def test_a_heartbeat_of_a_service_that_is_not_registered_is_refused(hosts: Hosts) -> None:
    with pytest.raises(NotFound, match="nova-compute on cmp1"):
        await hosts.report_state(binary="nova-compute", host="cmp1")


async def test_services_are_listed_by_binary_and_host(hosts: Hosts) -> None:
    await hosts.register(**COMPUTE)
    await hosts.register(**VOLUME)
    await hosts.register(**{**COMPUTE, "host": "cmp0"})
    assert [row.host for row in await hosts.list()] == ["h1@lvm", "cmp0", "cmp1"]
    assert [row.host for row in await hosts.list("nova-compute")] == ["cmp0", "cmp1"]


@pytest.mark.parametrize(
    ("heard", "forced_down", "up"),
    [
        (NOW - timedelta(seconds=60), False, True),
        (NOW - timedelta(seconds=60, microseconds=1), False, False),
        (NOW + timedelta(seconds=61), False, False),
        (NOW, True, False),
        (None, False, False),
    ],
)
def test_a_service_is_up_while_its_heartbeat_is_recent(heard: datetime | None, forced_down: bool, up: bool) -> None:
    row = ServiceRow(
        uuid="u", host="h", binary="b", topic="t", availability_zone=None, report_count=0, disabled=False, disabled_reason=None,
        last_seen_up=heard, forced_down=forced_down, version=0, created_at=None, updated_at=None,
    )  # fmt: skip
    assert is_up(row, now=NOW, service_down_time_s=60) is up


def test_a_service_that_never_beat_counts_from_its_making() -> None:
    row = ServiceRow(
        uuid="u", host="h", binary="b", topic="t", availability_zone=None, report_count=0, disabled=False, disabled_reason=None,
        last_seen_up=None, forced_down=False, version=0, created_at=NOW, updated_at=None,
    )  # fmt: skip
    assert is_up(row, now=NOW, service_down_time_s=1)
    assert not is_up(replace(row, created_at=NOW - timedelta(seconds=2)), now=NOW, service_down_time_s=1)
