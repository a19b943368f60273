"""The words of open-iscsi: the file initiatorname.iscsi, the outcomes and the lists of iscsiadm, node records; pure functions.

Source: open-iscsi, usr/config.c `get_iscsi_initiatorname`, include/iscsi_err.h, iscsiadm(8); RFC 7143 section 4.2.7 for the form of names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

INITIATOR_PREFIX = "iqn.2010-10.org.openstack"
"""The naming authority of the names that we make ourselves; cinder's targets bear the same."""

_NAME = re.compile(r"^[ \t]*InitiatorName=(\S+)", re.MULTILINE)
_SESSION = re.compile(r"^\w+: \[(?P<sid>\d+)\] (?P<portal>\S+),(?P<tpgt>\d+) (?P<target>\S+)(?: \(.*\))?$")
_VOLUME = re.compile(r":volume-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$")


class Status(IntEnum):
    """How iscsiadm ends, as far as we tell the ends apart."""

    SUCCESS = 0
    IDBM = 6
    SESSION_EXISTS = 15
    NOT_CONNECTED = 20
    NOTHING_FOUND = 21
    AUTHENTICATION_FAILED = 24
    NOTHING_TO_DO = 255


@dataclass(frozen=True, slots=True)
class Session:
    """A login of this host. `portal` is "host:port"."""

    sid: int
    portal: str
    target: str


def parse_initiator_name(text: str) -> str | None:
    """The name that open-iscsi takes from the file's text: the last one, up to its first blank; None when there is none."""
    names = _NAME.findall(text)
    return names[-1] if names else None


def format_initiator_name(name: str) -> str:
    """A file's text that names this initiator."""
    return f"InitiatorName={name}\n"


def parse_sessions(text: str) -> list[Session]:
    """What `iscsiadm -m session` lists; lines that are no sessions are passed over."""
    matches = [_SESSION.match(line.strip()) for line in text.splitlines()]
    return [Session(int(found["sid"]), found["portal"], found["target"]) for found in matches if found]


def with_settings(record: str, settings: Mapping[str, str]) -> str:
    """The text of a node record with other values of these settings. Raises ValueError for a value of more than one line."""
    if any("\n" in value for value in settings.values()):
        raise ValueError("a setting's value must be one line")
    kept = [line for line in record.splitlines() if line.partition("=")[0].strip() not in settings]
    end = kept.index("# END RECORD") if "# END RECORD" in kept else len(kept)
    added = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join([*kept[:end], *added, *kept[end:]]) + "\n"


def volume_of_target(target: str) -> str | None:
    """The volume id in the name of one of cinder's targets; None in a foreign one."""
    match = _VOLUME.search(target)
    return match[1] if match else None
