"""kombu's filesystem transport, on `common.transport.folder`.

kombu 5.7's own loses and doubles messages as soon as several processes use a folder: a reader may move a file that is still being
written; a message is removed when it is read, not when it is acked; two processes that bind at once overwrite each other's
binding; messages of one millisecond are read in any order; a requeued fanout message goes to all queues again; `#` asks for a dot.
So this channel replaces how messages and bindings are kept, and leaves the rest to kombu: connection, encoding, channel, acks.
"""

import json
import logging
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem, virtual

from common.transport.folder import BusFolder, Claim, Member

_KombuQoS: Any = virtual.QoS
_KombuChannel: Any = filesystem.Channel
_KombuTransport: Any = filesystem.Transport
"""kombu's types say nothing."""

_LOG = logging.getLogger(__name__)

FOLDER = "folder"
"""The transport option that names the root of the bus."""


class FolderQoS(_KombuQoS):  # type: ignore[misc]  # as said above
    """Settles at the folder what is settled at kombu."""

    def ack(self, delivery_tag: str) -> None:
        self.channel.settle(delivery_tag, requeue=False)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.settle(delivery_tag, requeue=requeue)
        self._quick_ack(delivery_tag)


class FolderChannel(_KombuChannel):  # type: ignore[misc]  # as said above
    """A kombu channel whose queues are a `BusFolder`'s."""

    QoS = FolderQoS
    do_restore = False

    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, **options)
        self.folder = BusFolder(Path(self.transport_options[FOLDER]))
        self.folder.create()
        self._member: Member | None = None
        self._claims: dict[str, tuple[Claim, str]] = {}

    def exchange_declare(self, **_: Any) -> None:
        """An exchange is its bindings; what kind it is, the publisher knows."""

    def queue_declare(self, queue: str, passive: bool = False, **options: Any) -> None:
        """Raises ChannelError 404 for a passive one of a queue that is not there."""
        if not passive:
            expires_ms = (options.get("arguments") or {}).get("x-expires")
            self.folder.declare(queue, auto_delete=bool(options.get("auto_delete")), expires_ms=expires_ms)
        elif not self.folder.has(queue):
            raise _no_queue(queue)

    def queue_bind(self, queue: str, exchange: str, routing_key: str = "", **_: Any) -> None:
        pattern = self.exchange_types["topic"].key_to_pattern(routing_key)
        self.folder.bind(exchange, routing_key, pattern, queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:  # noqa: ARG002 - kombu's
        self.folder.delete(queue)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        return self.folder.table(exchange)

    def settle(self, delivery_tag: str, *, requeue: bool) -> None:
        """Let go of the file that `basic_get` claimed."""
        claim, queue = self._claims.pop(delivery_tag)
        assert self._member is not None
        if requeue:
            self._member.give_back(claim, queue)
        else:
            self._member.release(claim)

    def close(self) -> None:
        """What is unsettled goes back."""
        for tag in list(self._claims):
            self.settle(tag, requeue=True)
        if self._member is not None:
            self._member.close()
            self._member = None
        super().close()

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        if not self.folder.put(queue, json.dumps(payload).encode()):
            raise _no_queue(queue)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        if self._member is None:
            self._member = Member(self.folder)
        while (claim := self._member.take(queue)) is not None:
            try:
                message: dict[str, Any] = json.loads(claim.data)
                message["properties"]["redelivered"] = claim.redelivered
                self._claims[message["properties"]["delivery_tag"]] = claim, queue
            except (ValueError, KeyError, TypeError):
                # A power cut may leave an empty file; nobody could read it at a second try either.
                _LOG.exception("dropped a file of queue %s that is no message", queue)
                self._member.release(claim)
            else:
                return message
        raise Empty


class FolderTransport(_KombuTransport):  # type: ignore[misc]  # as said above
    """What `kombu.Connection` is given instead of the name `filesystem`."""

    Channel = FolderChannel


def _no_queue(queue: str) -> ChannelError:
    return ChannelError(f"NOT_FOUND - no queue {queue!r}", (50, 10), "Queue.declare", "404")
