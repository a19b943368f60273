"""`lite failpoints`: the names are those that the code comes past."""

import pytest

from common.app.failpoints_command import places
from common.app.service import services
from common.flow.places import Place, step_place

NAMES = list(places(list(services().values())))


@pytest.mark.parametrize(
    "name",
    [
        "attach_volume.opened",
        "attach_volume.connect_volume.begun",
        "attach_volume.connect_volume.undo.acted",
        "attach_volume.finished",
        "request_attach.reserve_volume.done",
        "initialize_connection.create_export.before",
        "outbox.publishing",
        "outbox.published",
        "outbox.sent",
        "rpc.compute.attach_volume.delivered",
        "rpc.cinder-volume.initialize_connection.handled",
        "rpc.nova-api.attach_volume.replied",
        "rpc.cinder-scheduler.create_volume.handled",
    ],
)
def test_a_place_that_the_code_comes_past_is_listed(name: str) -> None:
    assert name in NAMES


def test_every_step_of_every_saga_has_all_its_places() -> None:
    sagas = [saga for service in services().values() for saga in service.sagas]
    steps = {step_place(saga.name, step.name, place) for saga in sagas for step in saga.steps for place in Place}
    assert steps <= set(NAMES)
    assert not [name for name in NAMES if "/" in name or ":" in name], "a file of that name must be possible"
