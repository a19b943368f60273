"""nova-api's ear for what happens to servers outside of nova (os-server-external-events)."""

import structlog

from common.base.context import Context
from nova_lite.contract import InstanceExternalEvent
from nova_lite.errors import InstanceNotFound
from nova_lite.flows.parts import ApiParts
from nova_lite.ports.volumes import ServerEvents, ServerExternalEvent

_log = structlog.get_logger(__name__)


class ExternalEvents(ServerEvents):
    """Implements the contract of who sends them. Each goes on to its server's host; a server that is gone needs none."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts

    async def external_instance_event(self, ctx: Context, *, events: list[ServerExternalEvent]) -> None:
        for event in events:
            try:
                instance = await self._parts.instances.get(event.server_uuid)
            except InstanceNotFound:
                _log.info("event of a server that is gone", server=event.server_uuid, event_name=event.name, tag=event.tag)
                continue
            if instance.host is not None:
                told = InstanceExternalEvent(instance_uuid=instance.uuid, name=event.name, tag=event.tag, status=event.status)
                await self._parts.on(instance).external_instance_event(ctx.elevated(), instances=[instance], events=[told])
