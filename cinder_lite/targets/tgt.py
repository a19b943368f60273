"""iSCSI targets of tgtd, one for each volume: LUN 1, one CHAP account, and the initiators that are let in by name.

What tgtd does when it is asked the wrong way, and how that is kept from happening:
- A target without an account lets anybody on its list in without CHAP. So an account is changed only while the list is empty.
- tgtd dies when an account is deleted that was bound before another one of the same target. So the last bound goes first.
- `--force` cannot delete a target that is being read or written. So its sessions are ended first, and seen gone.
- tgtd keeps nothing over a restart. `create_export` makes again whatever is not there.
- tgtd looks at a file's size only when it opens it, and opens it anew while its threads read and write: what these have in hand then
  fails, or goes to whatever has descriptor 0. So `extend_target` ends the sessions first, sees them gone, and lets them come back.
A login that passed the list just before its rule was taken away shows up as a session only afterwards; `remove_export` finds
it, and that is the last word on a volume.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure, PortalNotBound
from cinder_lite.ports.target import Chap, Export, ExportState
from cinder_lite.targets.iscsi_names import (
    Portal,
    ProviderLocation,
    check_target_prefix,
    initiator_of,
    is_iscsi_name,
    iscsi_connection_info,
    target_iqn,
)
from cinder_lite.targets.tgt_text import Lun, Refusal, TargetInfo, shown_mb
from cinder_lite.targets.tgtadm import Tgtadm, TgtRefused
from common.base.clock import Clock
from common.base.errors import Broken, Fault
from common.host.locks import KeyedLocks

DISK_LUN = 1

_TID_ATTEMPTS = 10
"""Another process may take the free tid that we saw; so often in a row it is no accident."""
_POLL_DELAY_S = 0.02
_WILDCARDS = {False: "0.0.0.0", True: "::"}  # noqa: S104  # what tgtd says, not where we listen


@dataclass(frozen=True, slots=True)
class TgtOptions:
    """Where tgtd is and how its targets are named.

    portal_ip, portal_port   where initiators reach it: target_ip_address, target_port
    control_port             tgtd's and tgtadm's -C
    ipc_socket               TGT_IPC_SOCKET, to which tgtd adds ".<control port>"; None: the system's tgtd
    target_prefix            the beginning of every IQN; the volume's name follows
    command_timeout_s        longest wait for one answer of tgtadm
    session_timeout_s        longest wait for the end of sessions that were told to end
    """

    portal_ip: str
    portal_port: int = 3260
    control_port: int = 0
    ipc_socket: Path | None = None
    target_prefix: str = "iqn.2010-10.org.openstack:"
    command_timeout_s: float = 10.0
    session_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Raises Misconfigured."""
        check_target_prefix(self.target_prefix)

    @property
    def portal(self) -> Portal:
        return Portal(self.portal_ip, self.portal_port)

    @property
    def tgtadm(self) -> Tgtadm:
        socket = self.ipc_socket.absolute() if self.ipc_socket else None
        return Tgtadm(control_port=self.control_port, socket=socket, timeout_s=self.command_timeout_s)


class TgtTarget:
    """Implements `cinder_lite.ports.target.Target`.

    Whoever is let in is alone, unless the volume is multiattach: then hosts are added. Refusals become ExportFailure; no tgtd,
    TargetUnavailable; no answer in time, Timeout. The last two may be tried again.
    """

    kind = "tgt"
    needs_chap = True

    def __init__(self, options: TgtOptions, clock: Clock) -> None:
        self._options = options
        self._tgtadm = options.tgtadm
        self._clock = clock
        self._locks = KeyedLocks()
        # iqn -> the pair that this process has bound: tgtd tells users, but never whether a password is still the same.
        self._bound: dict[str, Chap] = {}

    async def check_for_setup_error(self) -> None:
        found = await self._tgtadm.portals()
        wanted = self._options.portal
        everywhere = Portal(_WILDCARDS[":" in wanted.ip], wanted.port)
        if wanted not in found and everywhere not in found:
            raise PortalNotBound(portal=str(wanted), found=", ".join(map(str, found)) or "no port")

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        initiator_of(connector)

    def export_name(self, volume: Volume) -> str:
        return target_iqn(self._options.target_prefix, volume.name)

    async def exports(self) -> set[str]:
        """IQNs with our prefix, half-made targets among them."""
        return set(await self.connections())

    async def connections(self) -> dict[str, ExportState]:
        targets = await self._tgtadm.targets()
        return {target.iqn: _state(target) for target in targets if target.iqn.startswith(self._options.target_prefix)}

    async def create_export(self, export: Export) -> str:
        chap = _chap_of(export)
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is not None and not _has_disk(found, export.path):
                    await self._discard(iqn, chap)
                    found = None
                if found is None:
                    tid = await self._make(iqn, export.path, chap)
                else:
                    tid = found.tid
                    await self._mend_account(found, chap)
                return str(self._location(iqn, tid))

    async def extend_target(self, export: Export, new_size: int) -> None:
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is None or _serves_bytes(found, new_size):
                    return
                await self._open_anew(found, export.path)
                await self._see(iqn, lambda target: _serves_bytes(target, new_size), f"serve {new_size} bytes")

    async def remove_export(self, export: Export) -> None:
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                await self._discard(iqn, export.chap)

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        initiator, chap = initiator_of(connector), _chap_of(export)
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is None or not _is_whole(found, export.path, chap):
                    raise TgtRefused(words=f"{iqn} is not exported as the volume is; create_export comes first")
                keep = {initiator} | (set(found.acl) if export.volume.multiattach else set())
                await self._let_in_only(found, keep)
                if initiator not in found.acl:
                    await self._ask("bind", "target", found.tid, "--initiator-name", initiator, unless=Refusal.ACL_EXISTS)
                await self._see(iqn, lambda target: set(target.acl) == keep, f"let in {initiator} and no other")
        location = self._location(iqn, found.tid)
        is_multipath = bool(connector.get("multipath"))
        return iscsi_connection_info(location, volume_id=export.volume.id, chap=chap, is_multipath=is_multipath)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        initiator = None if connector is None else initiator_of(connector)
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is not None:
                    await self._let_in_only(found, set() if initiator is None else set(found.acl) - {initiator})

    async def _find(self, iqn: str) -> TargetInfo | None:
        return next((target for target in await self._tgtadm.targets() if target.iqn == iqn), None)

    async def _make(self, iqn: str, path: str, chap: Chap) -> int:
        """A new target, seen to be whole; nothing of it when that fails."""
        try:
            tid = await self._new_target(iqn)
            disk = ("--lun", str(DISK_LUN), "--backing-store", _path_for_tgtd(path), "--bstype", "rdwr")
            await self._ask("new", "logicalunit", tid, *disk)
            await self._add_account(iqn, tid, chap)
            await self._see(iqn, lambda target: _is_whole(target, path, chap), f"export {path}")
        except BaseException:
            with suppress(Fault):
                await self._discard(iqn, chap)
            raise
        return tid

    async def _new_target(self, iqn: str) -> int:
        """The lowest free tid, taken."""
        async with self._locks.hold("tid"):
            for _ in range(_TID_ATTEMPTS):
                taken = {target.tid for target in await self._tgtadm.targets()}
                tid = next(number for number in range(1, len(taken) + 2) if number not in taken)
                try:
                    await self._ask("new", "target", tid, "--targetname", iqn)
                except TgtRefused as exc:
                    if exc.refusal is not Refusal.TARGET_EXISTS:
                        raise
                else:
                    return tid
        raise TgtRefused(words=f"no target id, {_TID_ATTEMPTS} times in a row: another took it first")

    async def _add_account(self, iqn: str, tid: int, chap: Chap) -> None:
        """To a target that has none."""
        try:
            await self._tgtadm.new_account(chap)
        except TgtRefused as exc:
            if exc.refusal is not Refusal.ACCOUNT_EXISTS:
                raise
            # Left by one who was killed before he had bound it; its password may be another.
            await self._delete_account(chap.username)
            await self._tgtadm.new_account(chap)
        await self._ask("bind", "account", tid, "--user", chap.username)
        self._bound[iqn] = chap

    async def _mend_account(self, found: TargetInfo, chap: Chap) -> None:
        if found.accounts == (chap.username,) and self._bound.get(found.iqn) == chap:
            return
        for rule in found.acl:
            await self._unbind_rule(found.tid, rule)
        await self._drop_accounts(found)
        await self._add_account(found.iqn, found.tid, chap)
        for initiator in filter(is_iscsi_name, found.acl):
            await self._ask("bind", "target", found.tid, "--initiator-name", initiator, unless=Refusal.ACL_EXISTS)
        await self._see(found.iqn, lambda target: target.accounts == (chap.username,), "take the CHAP account")

    async def _drop_accounts(self, found: TargetInfo) -> None:
        for username in reversed(found.accounts):
            await self._ask("unbind", "account", found.tid, "--user", username, unless=Refusal.NO_ACCOUNT)
            await self._delete_account(username)

    async def _delete_account(self, username: str) -> None:
        """It stays when a target has it bound, which would not survive that."""
        if any(username in target.accounts for target in await self._tgtadm.targets()):
            return
        await self._ask("delete", "account", None, "--user", username, unless=Refusal.NO_ACCOUNT)

    async def _let_in_only(self, found: TargetInfo, keep: set[str]) -> None:
        """Takes away all other rules, ends all other sessions, and returns when tgtd shows neither."""
        deadline = self._clock.monotonic() + self._options.session_timeout_s
        shown: TargetInfo | None = found
        while shown is not None:
            for rule in set(shown.acl) - keep:
                await self._unbind_rule(shown.tid, rule)
            for connection in await self._tgtadm.connections(shown.tid):
                if connection.initiator not in keep:
                    await self._end_connection(shown.tid, sid=connection.sid, cid=connection.cid)
            shown = await self._find(found.iqn)
            if shown is None or (set(shown.acl) <= keep and set(shown.nexuses) <= keep):
                return
            if self._clock.monotonic() >= deadline:
                who = ", ".join(sorted({*shown.acl, *shown.nexuses} - keep))
                raise TgtRefused(words=f"{found.iqn} still lets in {who}, or has its session")
            await self._clock.sleep(_POLL_DELAY_S)

    async def _open_anew(self, found: TargetInfo, path: str) -> None:
        """An offline target takes no logins, and swallows the commands of sessions that it still has; these are asked again by the next."""
        await self._set_state(found.tid, "offline")
        try:
            await self._end_sessions(found)
            change = f"online=0,path={_path_for_tgtd(path)},online=1"
            await self._ask("update", "logicalunit", found.tid, "--lun", str(DISK_LUN), "--params", change)
        finally:
            await self._set_state(found.tid, "ready")

    async def _set_state(self, tid: int, state: str) -> None:
        await self._ask("update", "target", tid, "--name", "state", "--value", state)

    async def _end_sessions(self, found: TargetInfo) -> None:
        """A session is gone only when nothing that it asked for is at work any more."""
        deadline = self._clock.monotonic() + self._options.session_timeout_s
        while (shown := await self._find(found.iqn)) is not None and shown.nexuses:
            if self._clock.monotonic() >= deadline:
                raise TgtRefused(words=f"{found.iqn} still has sessions of {', '.join(sorted(set(shown.nexuses)))}")
            for connection in await self._tgtadm.connections(found.tid):
                await self._end_connection(found.tid, sid=connection.sid, cid=connection.cid)
            await self._clock.sleep(_POLL_DELAY_S)

    async def _unbind_rule(self, tid: int, rule: str) -> None:
        """tgtd lists names and addresses alike; a rule that is no name is an address."""
        try:
            await self._ask("unbind", "target", tid, "--initiator-name", rule)
        except TgtRefused as exc:
            if exc.refusal is not Refusal.NO_ACL:
                raise
            await self._ask("unbind", "target", tid, "--initiator-address", rule, unless=Refusal.NO_ACL)

    async def _end_connection(self, tid: int, *, sid: int, cid: int) -> None:
        try:
            await self._ask("delete", "conn", tid, "--sid", str(sid), "--cid", str(cid), unless=Refusal.NO_SESSION)
        except TgtRefused as exc:
            if exc.refusal not in {Refusal.NO_CONNECTION, Refusal.NO_TARGET}:
                raise

    async def _discard(self, iqn: str, chap: Chap | None) -> None:
        """Returns when tgtd has neither the target nor its accounts."""
        deadline = self._clock.monotonic() + self._options.session_timeout_s
        accounts = {chap.username} if chap is not None else set()
        while (found := await self._find(iqn)) is not None:
            accounts |= set(found.accounts)
            await self._let_in_only(found, set())
            try:
                await self._ask("delete", "target", found.tid, unless=Refusal.NO_TARGET)
            except TgtRefused as exc:
                # A login that was under way has become a session.
                if exc.refusal not in {Refusal.TARGET_ACTIVE, Refusal.LUN_ACTIVE}:
                    raise
                await self._clock.sleep(_POLL_DELAY_S)
            if self._clock.monotonic() >= deadline:
                raise TgtRefused(words=f"{iqn} is still there")
        for username in accounts:
            await self._delete_account(username)
        self._bound.pop(iqn, None)

    async def _see(self, iqn: str, is_so: Callable[[TargetInfo], bool], what: str) -> None:
        """tgtadm's status 0 is its word; this is a look."""
        shown = await self._find(iqn)
        if shown is None or not is_so(shown):
            raise TgtRefused(words=f"it was told to {what}, and does not show it")

    async def _ask(self, op: str, mode: str, tid: int | None, *options: str, unless: Refusal | None = None) -> None:
        """`unless`: the refusal that says that it is so already."""
        which = () if tid is None else ("--tid", str(tid))
        try:
            await self._tgtadm.ask(op, mode, *which, *options)
        except TgtRefused as exc:
            if unless is None or exc.refusal is not unless:
                raise

    def _location(self, iqn: str, tid: int) -> ProviderLocation:
        return ProviderLocation((self._options.portal,), iqn=iqn, lun=DISK_LUN, tid=tid)


def _state(target: TargetInfo) -> ExportState:
    path = next((lun.path for lun in target.luns if lun.number == DISK_LUN), None)
    return ExportState(path, frozenset(target.acl), tuple(sorted(target.nexuses)))


def _has_disk(target: TargetInfo, path: str) -> bool:
    return target.state == "ready" and target.luns == (Lun(DISK_LUN, path, is_online=True),)


def _serves_bytes(target: TargetInfo, size: int) -> bool:
    """As exactly as tgtd tells, which is by millions; sizes of volumes differ by whole GiB."""
    return target.state == "ready" and any(lun.number == DISK_LUN and lun.size_mb == shown_mb(size) for lun in target.luns)


def _is_whole(target: TargetInfo, path: str, chap: Chap) -> bool:
    return _has_disk(target, path) and target.accounts == (chap.username,)


def _chap_of(export: Export) -> Chap:
    if export.chap is None:
        raise ExportFailure(volume_id=export.volume.id, reason="this target needs CHAP credentials and was given none")
    return export.chap


def _path_for_tgtd(path: str) -> str:
    """A comma would end the path and begin an option of its own."""
    if "," in path or not path.startswith("/"):
        raise TgtRefused(words=f"the path {path!r} is not absolute, or has a comma")
    return path


@contextmanager
def _told_as_export_failure(volume: Volume) -> Iterator[None]:
    try:
        yield
    except (TgtRefused, Broken) as exc:
        raise ExportFailure(volume_id=volume.id, reason=str(exc)) from exc
