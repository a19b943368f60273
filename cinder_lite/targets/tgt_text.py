"""What tgtd says and hears, as values: the text of `tgtadm --op show`, refusals, and one management request. Pure.

Sources: tgtadm(8); what tgt 1.0.85 prints, recorded in the tests; its header files for the request's layout.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cinder_lite.ports.target import Chap
from cinder_lite.targets.iscsi_names import Portal

CONTROLLER_LUN = 0
"""Every target of tgtd has it; it is not a disk."""


class Refusal(StrEnum):
    """tgtadm's words for the refusals that we act upon."""

    NO_TARGET = "can't find the target"
    TARGET_EXISTS = "this target already exists"
    TARGET_ACTIVE = "this target is still active"
    LUN_ACTIVE = "this logical unit is still active"
    NO_SESSION = "can't find the session"
    NO_CONNECTION = "can't find the connection"
    NO_ACCOUNT = "can't find the account"
    ACCOUNT_EXISTS = "this account already exists"
    ACL_EXISTS = "this access control rule already exists"
    NO_ACL = "this access control rule does not exist"


@dataclass(frozen=True, slots=True)
class Lun:
    """A logical unit; `path` is None when nothing backs it, `size_mb` its size as tgtd shows it."""

    number: int
    path: str | None
    is_online: bool
    size_mb: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """A target as `show --mode target` prints it.

    nexuses    the initiator of each session, those among them that are ending and have no connection any more
    luns       without LUN 0
    accounts   users that may log in, in the order in which tgtd keeps them
    acl        initiator names and addresses that are let in
    """

    tid: int
    iqn: str
    state: str = ""
    nexuses: tuple[str, ...] = ()
    luns: tuple[Lun, ...] = ()
    accounts: tuple[str, ...] = ()
    acl: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as `show --mode conn` prints it."""

    sid: int
    cid: int
    initiator: str


@dataclass(slots=True)
class _Target:
    tid: int
    iqn: str
    state: str = ""
    nexuses: list[str] = field(default_factory=list)
    luns: list[dict[str, str]] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    acl: list[str] = field(default_factory=list)

    def take(self, section: str, line: str) -> None:
        """One line below "System information:" and its like."""
        key, _, value = line.partition(": ")
        match section:
            case "System information":
                self.state = value if key == "State" else self.state
            case "I_T nexus information":
                self.nexuses += [value.partition(" alias: ")[0]] if key == "Initiator" else []
            case "LUN information":
                if key == "LUN":
                    self.luns.append({})
                self.luns[-1][key] = value
            case "Account information" if not line.endswith(" (outgoing)"):
                self.accounts.append(line)
            case "ACL information":
                self.acl.append(line)

    def whole(self) -> TargetInfo:
        luns = tuple(lun for lun in map(_lun, self.luns) if lun.number != CONTROLLER_LUN)
        lists = tuple(self.nexuses), luns, tuple(self.accounts), tuple(self.acl)
        return TargetInfo(self.tid, self.iqn, self.state, *lists)


def parse_targets(text: str) -> tuple[TargetInfo, ...]:
    """The targets of `--op show --mode target`."""
    targets: list[_Target] = []
    section = ""
    for line in text.splitlines():
        match _depth(line):
            case 0 if line.startswith("Target "):
                tid, _, iqn = line.removeprefix("Target ").partition(": ")
                targets.append(_Target(int(tid), iqn.strip()))
            case 1:
                section = line.strip().removesuffix(":")
            case depth if depth >= 2 and targets:
                targets[-1].take(section, line.strip())
    return tuple(target.whole() for target in targets)


def parse_portals(text: str) -> tuple[Portal, ...]:
    """The portals of `--op show --mode portal`: "Portal: 127.0.0.1:3260,1"."""
    return tuple(Portal.parse(where) for where, _, _ in (value.partition(",") for value in _values(text, "Portal")))


def parse_connections(text: str) -> tuple[Connection, ...]:
    """The connections of `--op show --mode conn --tid <tid>`; a session may have several."""
    connections: list[Connection] = []
    sid = cid = 0
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        match key:
            case "Session":
                sid = int(value)
            case "Connection":
                cid = int(value)
            case "Initiator":
                connections.append(Connection(sid, cid, value))
    return tuple(connections)


def parse_accounts(text: str) -> tuple[str, ...]:
    """The users of `--op show --mode account`; tgtd never tells a password."""
    return tuple(line.strip() for line in text.splitlines() if _depth(line) == 1)


def shown_mb(size: int) -> int:
    """How tgtd shows so many bytes: millions, rounded in a way of its own (`print_disksize` of its target.c)."""
    sectors = size // 512
    return (sectors - (sectors // 625 - 974)) // 1950


def _values(text: str, wanted: str) -> Iterator[str]:
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        if key == wanted:
            yield value


def _lun(fields: dict[str, str]) -> Lun:
    path = fields.get("Backing store path", "None")
    size_mb, _, _ = fields.get("Size", "0").partition(" MB")
    return Lun(int(fields["LUN"]), None if path == "None" else path, fields.get("Online") == "Yes", int(size_mb))


def _depth(line: str) -> int:
    """tgtd indents by four spaces."""
    return (len(line) - len(line.lstrip(" "))) // 4


_REQUEST = struct.Struct("@ii64sIiQQIIIIII")
"""mode, op, driver, length, tid, sid, lun, cid, host, device type, account direction, pack, force; unchanged since tgt 1.0.30."""
_ANSWER = struct.Struct("@II")
"""error, length"""
_MODE_ACCOUNT = 7
_OP_NEW = 0
_ERROR_WORDS = {14: Refusal.ACCOUNT_EXISTS}
ACCOUNT_ANSWER_BYTES = _ANSWER.size


def new_account_request(chap: Chap) -> bytes:
    """The message that tgtadm sends for `--op new --mode account --user <username> --password <password>`.

    Raises ValueError when the username has a comma, which would end it, or either has a zero byte.
    """
    parameters = f"user={chap.username},password={chap.password}\0".encode()
    if "," in chap.username or "\0" in chap.username + chap.password:
        raise ValueError("tgtd takes no comma in a CHAP username and no zero byte")
    length = _REQUEST.size + len(parameters)
    return _REQUEST.pack(_MODE_ACCOUNT, _OP_NEW, b"iscsi", length, -1, 0, 2**64 - 1, 0, 0, 0, 0, 0, 0) + parameters


def refusal_in(answer: bytes) -> str | None:
    """The words of a refusal in the answer to a request; None when it was done. Raises ValueError for a short answer."""
    if len(answer) != _ANSWER.size:
        raise ValueError(f"{len(answer)} bytes are no answer of tgtd")
    error, _ = _ANSWER.unpack(answer)
    return _ERROR_WORDS.get(error, f"error {error}") if error else None
