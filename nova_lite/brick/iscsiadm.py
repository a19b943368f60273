"""open-iscsi's command, one method for each thing that is asked of it. Its outcomes are told apart by their numbers.

A secret never goes through its argument vector, where every user of the host could read it: it is written into the node's record, a file
of root's, which is what iscsiadm itself would do with it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from common.host.command import Output, run
from common.host.to_its_end import in_thread
from nova_lite.brick.iscsi_text import Session, Status, parse_sessions, with_settings
from nova_lite.errors import VolumeConnectionFailed

ISCSIADM = "iscsiadm"
NODES = Path("/etc/iscsi/nodes")


class Iscsiadm:
    """Errors bear the volume's id. `nodes`: where open-iscsi keeps its records."""

    def __init__(self, *, binary: str = ISCSIADM, nodes: Path = NODES, timeout_s: float = 30.0) -> None:
        self._binary = binary
        self._nodes = nodes
        self._timeout_s = timeout_s

    async def sessions(self, volume_id: str = "") -> list[Session]:
        """Every login of this host."""
        output = await self._run("-m", "session")
        if output.status == Status.NOTHING_FOUND:
            return []
        self._check(output, volume_id, "list the sessions", Status.SUCCESS)
        return parse_sessions(output.stdout)

    async def ensure_node(self, volume_id: str, target: str, portal: str, settings: Mapping[str, str]) -> None:
        """A record of the target with these settings; there already: the settings are written all the same."""
        output = await self._run("-m", "node", "-T", target, "-p", portal)
        if output.status != Status.SUCCESS:
            made = await self._run("-m", "node", "-T", target, "-p", portal, "--interface", "default", "--op", "new")
            # Two that make the same record at once: one of them finds it locked.
            if made.status == Status.IDBM:
                made = await self._run("-m", "node", "-T", target, "-p", portal, "--interface", "default", "--op", "new")
            self._check(made, volume_id, f"enter target {target}", Status.SUCCESS)
        await in_thread(self._write, volume_id, target, portal, settings)

    async def login(self, volume_id: str, target: str, portal: str) -> None:
        """Logged in already: nothing happens."""
        output = await self._run("-m", "node", "-T", target, "-p", portal, "--login")
        if output.status == Status.AUTHENTICATION_FAILED:
            raise VolumeConnectionFailed(
                volume_id=volume_id, reason=f"target {target} at {portal} refuses the login: wrong CHAP credentials"
            )
        self._check(output, volume_id, f"log in to {target} at {portal}", Status.SUCCESS, Status.SESSION_EXISTS)

    async def logout(self, volume_id: str, target: str, portal: str) -> None:
        """Not logged in: nothing happens."""
        output = await self._run("-m", "node", "-T", target, "-p", portal, "--logout")
        gone = (Status.SUCCESS, Status.NOT_CONNECTED, Status.NOTHING_FOUND, Status.NOTHING_TO_DO)
        self._check(output, volume_id, f"log out of {target} at {portal}", *gone)

    async def forget_node(self, volume_id: str, target: str, portal: str) -> None:
        """No record: nothing happens."""
        output = await self._run("-m", "node", "-T", target, "-p", portal, "--op", "delete")
        gone = (Status.SUCCESS, Status.NOTHING_FOUND, Status.NOTHING_TO_DO)
        self._check(output, volume_id, f"forget target {target}", *gone)

    async def _run(self, *words: str) -> Output:
        return await run(self._binary, *words, timeout_s=self._timeout_s)

    def _check(self, output: Output, volume_id: str, what: str, *wanted: Status) -> None:
        if output.status not in wanted:
            reason = f"iscsiadm could not {what} (exit status {output.status}): {output.said}"
            raise VolumeConnectionFailed(volume_id=volume_id, reason=reason)

    def _write(self, volume_id: str, target: str, portal: str, settings: Mapping[str, str]) -> None:
        records = self._records(target, portal)
        if not records:
            reason = f"open-iscsi has no record of {target} in {self._nodes} after it was made"
            raise VolumeConnectionFailed(volume_id=volume_id, reason=reason)
        for record in records:
            draft = record.with_name(f".{record.name}.lite")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(with_settings(record.read_text(), settings))
            draft.replace(record)

    def _records(self, target: str, portal: str) -> list[Path]:
        """Without a portal group the record is a file, with one it is a folder with a file for each interface."""
        host, _, port = portal.rpartition(":")
        found = list((self._nodes / target).glob(f"{host.strip('[]')},{port}*"))
        return [file for path in found for file in ([path] if path.is_file() else path.iterdir()) if not file.name.startswith(".")]
