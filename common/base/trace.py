"""W3C Trace Context: which request a message belongs to, across services and brokers.

Source: https://www.w3.org/TR/trace-context/ (version 00). `tracestate` is passed on as it came.
"""

import re
from typing import Self

import msgspec

from common.base.ids import new_hex, new_span_id

_TRACEPARENT = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")
_STATE_MAX = 512
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Trace(msgspec.Struct, frozen=True, gc=False):
    """One hop of a trace. `trace_id` stays over all hops, `span_id` is this one's."""

    trace_id: str
    span_id: str
    flags: str = "01"
    state: str | None = None

    @property
    def traceparent(self) -> str:
        """The header of that name."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @classmethod
    def new(cls) -> Self:
        """The first hop of a new trace."""
        return cls(new_hex(), new_span_id())

    @classmethod
    def parse(cls, traceparent: object, tracestate: object = None) -> Self | None:
        """None for what is no traceparent: an unreadable one starts no trace and breaks none."""
        found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
        if found is None:
            return None
        trace_id, span_id, flags = found.groups()
        if trace_id == _NO_TRACE or span_id == _NO_SPAN:
            return None
        state = tracestate if isinstance(tracestate, str) and len(tracestate) <= _STATE_MAX else None
        return cls(trace_id, span_id, flags, state)

    def child(self) -> Self:
        """The next hop."""
        return type(self)(self.trace_id, new_span_id(), self.flags, self.state)
