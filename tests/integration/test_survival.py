"""2,000 calls, 64 at a time, while the broker or a server fails under them; the bench of the same name holds other libraries to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.testing.servers import RabbitServer
from tests.bench.survival.counts import Counts
from tests.bench.survival.faults import FAULTS
from tests.bench.survival.job import Job
from tests.bench.survival.run import survive
from tests.conftest import RealParts

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(120, func_only=True)]

JOB = Job(url="", record="", timeout_s=30)
"""Three times longer than any of the outages."""

BACK_S = 5.0


@pytest.fixture(scope="module")
def broker(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A node that these tests may kill."""
    real_parts.need("rabbitmq")
    with RabbitServer(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture
def over_amqp(request: pytest.FixtureRequest) -> str:
    """What stands behind the name of a peer that is asked to go over our own engine: `--amqp`."""
    return "_amqp" if request.config.getoption("--amqp") else ""


@pytest.mark.parametrize("name", ["stalled", pytest.param("broker-killed", marks=pytest.mark.long)])
async def test_so_it_is_over_our_own_engine(name: str, broker: RabbitServer, tmp_path: Path) -> None:
    """All faults by `make test-amqp`."""
    assert_survived(await survive("ours_amqp", FAULTS[name], broker, job=JOB, folder=tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "connections-closed",
        "broker-killed",
        "broker-killed-durable",
        "queue-deleted",
        "consumer-cancelled",
        "stalled",
        "blocked",
    ],
)
async def test_no_call_is_lost_and_none_is_done_twice_when_the_broker_fails(
    name: str, broker: RabbitServer, tmp_path: Path, over_amqp: str
) -> None:
    assert_survived(await survive(f"ours{over_amqp}", FAULTS[name], broker, job=JOB, folder=tmp_path))


@pytest.mark.parametrize("name", ["server-killed", "server-restarted"])
async def test_what_a_killed_server_had_in_hand_is_done_by_the_next(
    name: str, broker: RabbitServer, tmp_path: Path, over_amqp: str
) -> None:
    counts = await survive(f"ours{over_amqp}", FAULTS[name], broker, job=JOB, folder=tmp_path)
    assert_all_answered(counts)
    assert counts.executed_twice <= JOB.prefetch


@pytest.mark.parametrize("name", ["server-killed", "connections-closed"])
async def test_servers_that_share_an_inbox_execute_nothing_twice_whichever_is_killed(
    name: str, broker: RabbitServer, tmp_path: Path, over_amqp: str
) -> None:
    counts = await survive(f"ours_inbox{over_amqp}", FAULTS[name], broker, job=JOB, folder=tmp_path)
    assert counts.executed_twice == 0
    assert counts.hung == 0
    assert counts.errors.keys() <= {"OutcomeUnknown"}
    assert counts.correct + sum(counts.errors.values()) == JOB.calls
    assert sum(counts.errors.values()) <= JOB.prefetch


def assert_survived(counts: Counts) -> None:
    assert_all_answered(counts)
    assert counts.executed_twice == 0
    # None: all had their answers before the fault was over, as a cancelled consumer's may when the broker's command line is slow.
    assert counts.first_success_s is None or counts.first_success_s <= BACK_S
    assert counts.longest_gap_s <= counts.away_s + BACK_S


def assert_all_answered(counts: Counts) -> None:
    assert (counts.correct, counts.wrong, counts.errors, counts.hung) == (JOB.calls, 0, {}, 0)
