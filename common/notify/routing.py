"""The driver `routing`: a YAML file says which drivers a notification goes to, by its event type and priority.

    group:
      messagingv2:
        accepted_events: ["compute.instance.*"]
        accepted_priorities: ["warn", "error"]
      log: {}

A driver takes what matches one pattern of each kind that it names (fnmatch); without patterns it takes everything. Groups only
order the file. Source: oslo_messaging/notify/_impl_routing.py.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from common.base.errors import Fault, Misconfigured
from common.notify.driver import Driver, DriverSetup, load_driver
from common.wire.notification import Notification

_EVENTS = "accepted_events"
_PRIORITIES = "accepted_priorities"
_NAME = "routing"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one driver takes. None: any."""

    driver: str
    events: Sequence[str] | None = None
    priorities: Sequence[str] | None = None

    def takes(self, notification: Notification) -> bool:
        """True when this rule sends it."""
        return _is_one_of(notification.event_type, self.events) and _is_one_of(notification.priority, self.priorities)


class RoutingDriver:
    """Implements `Driver`. The file is read once, and raises Misconfigured for what is wrong in it."""

    def __init__(self, setup: DriverSetup) -> None:
        if not setup.options.routing_config:
            raise Misconfigured(reason="the notification driver routing needs a file; set routing_config to its path")
        self._rules = read_rules(Path(setup.options.routing_config))
        self._drivers: Mapping[str, Driver] = {rule.driver: load_driver(rule.driver, setup) for rule in self._rules}

    async def notify(self, notification: Notification, *, retry: int) -> None:
        names = dict.fromkeys(rule.driver for rule in self._rules if rule.takes(notification))
        sending = (self._drivers[name].notify(notification, retry=retry) for name in names)
        ended = await asyncio.gather(*sending, return_exceptions=True)
        errors = [error for error in ended if isinstance(error, Exception)]
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup(f"{len(errors)} drivers failed", errors)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file. Raises Misconfigured."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise Misconfigured(reason=f"routing_config {path} cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise Misconfigured(reason=f"routing_config {path} is no YAML: {exc}") from exc
    try:
        return tuple(_rules(found))
    except Fault as exc:
        raise Misconfigured(reason=f"routing_config {path}: {exc.fields['reason']}") from None


def _rules(found: Any) -> Iterator[Rule]:
    for group, drivers in _mapping(found, "the file").items():
        for driver, given in _mapping(drivers, str(group)).items():
            where = f"{group}: {driver}"
            if driver == _NAME:
                raise Misconfigured(reason=f"{where}: routing cannot go to routing")
            patterns = _mapping(given, where)
            unknown = patterns.keys() - {_EVENTS, _PRIORITIES}
            if unknown:
                raise Misconfigured(reason=f"{where}: found {', '.join(map(str, unknown))}; wanted: {_EVENTS}, {_PRIORITIES}")
            priorities = _patterns(patterns, _PRIORITIES, where)
            lower = None if priorities is None else [pattern.lower() for pattern in priorities]
            yield Rule(str(driver), _patterns(patterns, _EVENTS, where), lower)


def _mapping(found: Any, where: str) -> Mapping[Any, Any]:
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise Misconfigured(reason=f"{where}: found {type(found).__name__}; wanted a mapping")
    return found


def _patterns(given: Mapping[Any, Any], key: str, where: str) -> list[str] | None:
    if key not in given:
        return None
    found = given[key]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Misconfigured(reason=f"{where}: {key}: found {type(found).__name__}; wanted a list of patterns")
    return found


def _is_one_of(text: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(text, pattern) for pattern in patterns)
