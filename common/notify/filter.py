"""Which notifications an endpoint wants (oslo_messaging/notify/filter.py)."""

import re
from collections.abc import Mapping
from typing import Any


class NotificationFilter:
    r"""Regular expressions that must match at the beginning (`re.match`) of each thing named; what is not named does not matter.

        filter_rule = NotificationFilter(event_type=r"compute\\.instance\\..*", payload={"state": "active$"})

    A value that is missing or no text never matches. Raises re.error for what is no regular expression.
    """

    def __init__(
        self, *, context: Mapping[str, str] | None = None, publisher_id: str | None = None, event_type: str | None = None,
        metadata: Mapping[str, str] | None = None, payload: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._publisher_id = _compiled({"": publisher_id})
        self._event_type = _compiled({"": event_type})
        self._context = _compiled(context)
        self._metadata = _compiled(metadata)
        self._payload = _compiled(payload)

    def match(
        self, context: Mapping[str, Any], publisher_id: str | None, event_type: str, metadata: Mapping[str, Any], payload: Any
    ) -> bool:
        """True when the endpoint wants it."""
        return (
            _matches(self._publisher_id, {"": publisher_id})
            and _matches(self._event_type, {"": event_type})
            and _matches(self._context, context)
            and _matches(self._metadata, metadata)
            and _matches(self._payload, payload)
        )


def _compiled(patterns: Mapping[str, str | None] | None) -> dict[str, re.Pattern[str]]:
    return {key: re.compile(pattern) for key, pattern in (patterns or {}).items() if pattern is not None}


def _matches(wanted: Mapping[str, re.Pattern[str]], values: Any) -> bool:
    return not wanted or (
        isinstance(values, Mapping) and all(_is_match(pattern, values.get(key)) for key, pattern in wanted.items())
    )


def _is_match(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.match(value) is not None
