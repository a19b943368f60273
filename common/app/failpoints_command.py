"""`lite failpoints`: every named place at which a test or an operator can make a process die or stand still."""

from collections.abc import Iterator, Sequence

import typer

from common.app.cli import print_json
from common.app.commands import AsJson
from common.app.service import Service, services
from common.flow.places import places_of
from common.flow.relay import PUBLISHED, PUBLISHING, SENT
from common.rpc.contract import methods_of
from common.rpc.server import DELIVERED, HANDLED, REPLIED, request_place


def failpoints(json: AsJson = False) -> None:
    """List the places at which a process can be made to die or to stop, to see that nothing is lost.

    Start a process with LITE_FAILPOINTS=FOLDER. A file in FOLDER named PROCESS:PLACE, such as
    nova-compute.cmp1:attach_volume.connect_volume.begun, that holds the word kill or stop, makes that process send itself SIGKILL or
    SIGSTOP when it comes past the place, once: the file is renamed to PROCESS:PLACE.reached. Places of requests begin with rpc.,
    those of letters with outbox., the others with the name of a saga.
    """
    names = list(dict.fromkeys(places(list(services().values()))))
    if json:
        print_json(names)
        return
    for name in names:
        typer.echo(name)


def places(installed: Sequence[Service]) -> Iterator[str]:
    """Those of the sagas, of the outbox, and of the requests of these services."""
    for service in installed:
        for saga in service.sagas:
            yield from places_of(saga)
    yield from (PUBLISHING, PUBLISHED, SENT)
    for service in installed:
        for contract in service.contracts:
            for method in methods_of(contract):
                yield from (request_place(contract.__rpc_route__.topic, method, place) for place in (DELIVERED, HANDLED, REPLIED))
