"""cinder-api over the bus."""

from cinder_lite.contract import VolumeAPI
from common.rpc.contract import Sender
from nova_lite.ports.volumes import Volumes


def volumes(sender: Sender, *, exchange: str | None = None) -> Volumes:
    """The volume service. `exchange`: [cinder] control_exchange, when an operator changed cinder's."""
    return VolumeAPI.over(sender, exchange=exchange)
