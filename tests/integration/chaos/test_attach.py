"""Kill -9 in the middle of an attach, and outages, with real processes: the short form of `make chaos`."""

import pytest

from common.testing.servers import PostgresServer, RabbitServer
from tests.conftest import RealParts
from tests.integration.chaos.cases import short_form
from tests.integration.chaos.stage import stage

pytestmark = [pytest.mark.real("rabbitmq", "postgresql", "tgt", "qemu"), pytest.mark.timeout(420, func_only=True)]


async def test_whatever_dies_in_the_middle_of_attaching_all_is_well_a_minute_later(real_parts: RealParts, tmp_path) -> None:
    async with (
        RabbitServer(tmp_path / "rabbit") as broker,
        PostgresServer(tmp_path / "pg", keeps_its_word=True) as postgres,
        stage(tmp_path, broker, connection=postgres.create_database("chaos"), database=postgres) as bench,
    ):
        outcomes = await bench.run(short_form("attach"), print)
    assert [f"{outcome.case}: {wrong}" for outcome in outcomes for wrong in outcome.wrong] == []
    assert sum(outcome.reached for outcome in outcomes) >= len(outcomes) - 2, "the places are no longer on the way"
    assert len(outcomes) == 15
