"""Where messages go, and what an endpoint takes: oslo.messaging's Target."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.base.errors import Invalid
from common.base.version import parse_version


class InvalidTarget(Invalid, ValueError):
    """{reason}: {target}"""

    wire = ("oslo_messaging.exceptions", "InvalidTarget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A client's or server's address; of an endpoint, the namespace and version that it takes.

    exchange            the control exchange; None: that of the process's options
    topic               what the service is called on the bus
    server              one server of the topic, in OpenStack its host; None: any
    fanout              all servers of the topic: casts only; `server` then counts for nothing
    namespace           None: the one without a name
    version             major.minor[.revision]; None: 1.0
    legacy_namespaces   further namespaces that an endpoint takes
    Raises InvalidTarget for a version that is none.
    """

    exchange: str | None = None
    topic: str | None = None
    namespace: str | None = None
    version: str | None = None
    server: str | None = None
    fanout: bool | None = None
    legacy_namespaces: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            check_version(self.version, self)

    @property
    def namespaces(self) -> tuple[str | None, ...]:
        """All that an endpoint with this target takes."""
        return (self.namespace, *(self.legacy_namespaces or ()))


def check_version(version: str, target: Target) -> None:
    """Raises InvalidTarget unless `version` is one."""
    try:
        parse_version(version)
    except ValueError as exc:
        raise InvalidTarget(reason=str(exc), target=str(target)) from None
