"""iSCSI targets of the kernel's LIO, one for each volume: LUN 0, portal group 1, an access list entry for each initiator.

The tree is changed by `cinder-lite rtstool`, a program of its own as in cinder: root's rights stay with it, and whatever the kernel
keeps waiting is killed with it. The password goes to it by standard input. Credentials belong to entries of the list, not to the
target, so a target whose list is empty lets nobody in. Nothing is saved: what a reboot forgets is exported again from the rows.

Checked on a tree of files that behaves as configfs does, and not against a kernel.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure, InvalidConnectorException, TargetUnavailable
from cinder_lite.ports.target import Chap, Export, ExportState
from cinder_lite.targets.iscsi_names import (
    Portal,
    ProviderLocation,
    check_target_prefix,
    initiator_of,
    iscsi_connection_info,
    target_iqn,
)
from cinder_lite.targets.lio_tree import LUN, LioExport
from cinder_lite.targets.rtstool import FROM_STDIN
from common.base.clock import Clock
from common.base.errors import Broken, Fault
from common.base.limits import COMMAND_OUTPUT_BYTES_MAX
from common.host.command import CommandMissing, Output, run
from common.host.locks import KeyedLocks

OWN_RTSTOOL = (sys.executable, "-m", "cinder_lite", "rtstool")
_POLL_DELAY_S = 0.1

Rtstool = Callable[[tuple[str, ...], bytes | None], Awaitable[Output]]
"""Runs the tool with these words and this standard input. Raises CommandMissing, Timeout."""


class LioRefused(Fault):
    """rtstool refused: {words}"""


@dataclass(frozen=True, slots=True)
class LioOptions:
    """Where the target listens and how its names begin.

    rtstool             the program and its first words; with sudo in front where cinder-volume is not root
    command_timeout_s   longest run of one of its commands
    session_timeout_s   longest wait for the end of sessions that were told to end
    """

    portal_ip: str
    portal_port: int = 3260
    target_prefix: str = "iqn.2010-10.org.openstack:"
    rtstool: tuple[str, ...] = OWN_RTSTOOL
    command_timeout_s: float = 30.0
    session_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Raises Misconfigured."""
        check_target_prefix(self.target_prefix)

    @property
    def portal(self) -> Portal:
        return Portal(self.portal_ip, self.portal_port)


class LioTarget:
    """Implements `cinder_lite.ports.target.Target`.

    Whoever is let in is alone, unless the volume is multiattach: then hosts are added. What the tool refuses becomes ExportFailure; no
    answer in time, Timeout, which may be tried again.
    """

    kind = "lio"
    needs_chap = True

    def __init__(self, options: LioOptions, clock: Clock, *, rtstool: Rtstool | None = None) -> None:
        self._options = options
        self._clock = clock
        self._rtstool = rtstool or self._run
        self._locks = KeyedLocks()

    async def check_for_setup_error(self) -> None:
        try:
            await self._ask("verify")
            await self._exports()
        except (LioRefused, CommandMissing, Broken) as exc:
            raise TargetUnavailable(name=self.kind, reason=str(exc)) from exc

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        initiator = initiator_of(connector)
        if initiator != initiator.lower() or "_" in initiator:
            raise InvalidConnectorException(
                missing=f"initiator (LIO takes names in lower case and without underscores; found {initiator!r})"
            )

    def export_name(self, volume: Volume) -> str:
        return target_iqn(self._options.target_prefix, volume.name)

    async def exports(self) -> set[str]:
        """IQNs with our prefix, half-made targets among them."""
        return set(await self.connections())

    async def connections(self) -> dict[str, ExportState]:
        with _told_as_unavailable():
            found = await self._exports()
        return {export.iqn: _state(export) for export in found if export.iqn.startswith(self._options.target_prefix)}

    async def create_export(self, export: Export) -> str:
        chap, iqn = _chap_of(export), self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                try:
                    await self._create(iqn, export.path, chap)
                except BaseException:
                    with suppress(Fault):
                        await self._ask("delete", iqn)
                    raise
        return str(self._location(iqn))

    async def extend_target(self, export: Export, new_size: int) -> None:
        """A device is served in the size that it has; a plain file in the one that it had, until it is exported anew."""
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is None or found.size is None or found.size >= new_size:
                    return
                if not found.sessions:
                    await self._create(iqn, export.path, _chap_of(export))
                    found = await self._find(iqn)
                if found is None or (found.size is not None and found.size < new_size):
                    raise LioRefused(
                        words=f"LIO serves a plain file in the size that it had when it was exported, and {iqn} is in use; "
                        "detach the volume first, or keep volumes on devices (driver lvm)"
                    )

    async def remove_export(self, export: Export) -> None:
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                await self._ask("delete", iqn)
                if await self._find(iqn) is not None:
                    raise LioRefused(words=f"{iqn} is still there")

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        self.validate_connector(connector)
        initiator, chap, iqn = initiator_of(connector), _chap_of(export), self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is None or not self._is_whole(found, export.path):
                    raise LioRefused(words=f"{iqn} is not exported as the volume is; create_export comes first")
                keep = {initiator} | (set(found.let_in) if export.volume.multiattach else set())
                await self._let_in_only(found, keep)
                await self._ask("add-initiator", iqn, chap.username, FROM_STDIN, initiator, secret=chap.password)
                shown = await self._find(iqn)
                if shown is None or set(shown.let_in) != keep:
                    raise LioRefused(words=f"it was told to let in {initiator} and no other, and does not show it")
        is_multipath = bool(connector.get("multipath"))
        return iscsi_connection_info(self._location(iqn), volume_id=export.volume.id, chap=chap, is_multipath=is_multipath)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        initiator = None if connector is None else initiator_of(connector).lower()
        iqn = self.export_name(export.volume)
        async with self._locks.hold(iqn):
            with _told_as_export_failure(export.volume):
                found = await self._find(iqn)
                if found is not None:
                    await self._let_in_only(found, set() if initiator is None else set(found.let_in) - {initiator})

    async def _create(self, iqn: str, path: str, chap: Chap) -> None:
        """Made, and seen to be there."""
        portal = self._options.portal
        where = (f"-a{portal.ip}", f"-p{portal.port}")
        await self._ask("create", path, iqn, chap.username, FROM_STDIN, "False", *where, secret=chap.password)
        shown = await self._find(iqn)
        if shown is None or not self._is_whole(shown, path):
            raise LioRefused(words=f"it was told to export {path} as {iqn}, and does not show it")

    async def _let_in_only(self, found: LioExport, keep: set[str]) -> None:
        """All others are put out, and returns when LIO shows neither their entries nor their sessions."""
        deadline = self._clock.monotonic() + self._options.session_timeout_s
        shown: LioExport | None = found
        while shown is not None:
            for initiator in sorted(set(shown.let_in) - keep):
                await self._ask("delete-initiator", found.iqn, initiator)
            if {*shown.let_in, *shown.sessions} <= keep:
                return
            shown = await self._find(found.iqn)
            if shown is not None and (left := {*shown.let_in, *shown.sessions} - keep):
                if self._clock.monotonic() >= deadline:
                    raise LioRefused(words=f"{found.iqn} still lets in {', '.join(sorted(left))}, or has its session")
                await self._clock.sleep(_POLL_DELAY_S)

    async def _find(self, iqn: str) -> LioExport | None:
        return next((export for export in await self._exports() if export.iqn == iqn), None)

    async def _exports(self) -> list[LioExport]:
        text = await self._ask("get-targets", "--json")
        if len(text) >= COMMAND_OUTPUT_BYTES_MAX:
            raise Broken(what="rtstool's answer", reason=f"it has more than {COMMAND_OUTPUT_BYTES_MAX} bytes; too many targets")
        try:
            return msgspec.json.decode(text, type=list[LioExport])
        except msgspec.DecodeError as exc:
            raise Broken(what="rtstool's answer", reason="it is not what get-targets --json prints") from exc

    async def _ask(self, *words: str, secret: str | None = None) -> str:
        """What the tool printed. Raises LioRefused with its last words; CommandMissing, Timeout."""
        output = await self._rtstool(words, None if secret is None else f"{secret}\n".encode())
        if output.status != 0:
            raise LioRefused(words=output.said.removeprefix("error: "))
        return output.stdout

    async def _run(self, words: tuple[str, ...], stdin: bytes | None) -> Output:
        return await run(*self._options.rtstool, *words, timeout_s=self._options.command_timeout_s, stdin=stdin)

    def _is_whole(self, found: LioExport, path: str) -> bool:
        portal = self._options.portal
        return found.path == path and found.enabled and found.authentication and found.portals == [str(portal)]

    def _location(self, iqn: str) -> ProviderLocation:
        """LIO has no target ids; cinder's is 0."""
        return ProviderLocation((self._options.portal,), iqn=iqn, lun=LUN, tid=0)


def _state(export: LioExport) -> ExportState:
    return ExportState(export.path, frozenset(export.let_in), tuple(export.sessions))


def _chap_of(export: Export) -> Chap:
    if export.chap is None:
        raise ExportFailure(volume_id=export.volume.id, reason="this target needs CHAP credentials and was given none")
    return export.chap


@contextmanager
def _told_as_export_failure(volume: Volume) -> Iterator[None]:
    try:
        yield
    except ExportFailure:
        raise
    except (LioRefused, Broken) as exc:
        raise ExportFailure(volume_id=volume.id, reason=str(exc)) from exc


@contextmanager
def _told_as_unavailable() -> Iterator[None]:
    try:
        yield
    except (LioRefused, CommandMissing) as exc:
        raise TargetUnavailable(name="lio", reason=str(exc)) from exc
