"""A delivery in the test's hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.transport.port import BusUnavailable


@dataclass
class Given:
    """Implements `Delivery`. `is_lost`: the connection that brought it is gone."""

    body: bytes
    is_lost: bool = False
    settled: str = ""
    content_type: str | None = "application/json"
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False

    async def ack(self) -> None:
        self._settle("acked")

    def ack_soon(self) -> None:
        if not self.is_lost:
            self._settle("acked")

    async def reject(self, *, requeue: bool) -> None:
        self._settle("given back" if requeue else "dropped")

    def _settle(self, how: str) -> None:
        if self.is_lost:
            raise BusUnavailable(url="test", reason="the connection is gone")
        assert not self.settled
        self.settled = how
