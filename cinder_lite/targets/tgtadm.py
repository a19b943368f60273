"""tgtd's management door: `tgtadm` for everything but one thing, and that is the CHAP password.

tgtadm takes a password only as an argument (no file, no standard input, no environment variable; tgt-admin hands it on the
same way), and arguments can be read by every user of the machine for as long as the program runs. So an account is made by
sending tgtd the message that tgtadm would have sent, over tgtd's own socket: the password is in no argument, no file and no
environment. tgtd answers only its own user (SO_PEERCRED), as it does tgtadm.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cinder_lite.errors import TargetUnavailable
from cinder_lite.ports.target import Chap
from cinder_lite.targets import tgt_text
from cinder_lite.targets.iscsi_names import Portal
from cinder_lite.targets.tgt_text import Connection, Refusal, TargetInfo
from common.base.errors import Broken, Fault
from common.base.limits import COMMAND_OUTPUT_BYTES_MAX
from common.host.command import CommandMissing, Output, run

T = TypeVar("T")

SYSTEM_SOCKET = Path("/var/run/tgtd/socket")
"""Where tgtd's socket is, without its `.<control port>`, when TGT_IPC_SOCKET does not say."""

SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Where tgtd and tgtadm are; not on every user's PATH."""

SOCKET_PATH_BYTES_MAX = 107
"""unix(7): a longer path cannot be bound."""

_TRANSPORT_ENDPOINT_NOT_CONNECTED = 107
_DIED = ("tgtd closed the socket", "a partial response")
"""tgtadm's last words when tgtd hung up on it; it ends with status 0 all the same."""


class TgtRefused(Fault):
    """tgtd refused: {words}"""

    @property
    def refusal(self) -> Refusal | None:
        """Which of the refusals that we act upon; None for another."""
        words = self.fields.get("words")
        return Refusal(words) if words in set(Refusal) else None


@dataclass(frozen=True, slots=True)
class Tgtadm:
    """One tgtd as its administrator sees it.

    socket         TGT_IPC_SOCKET, without its `.<control port>`; None: the system's tgtd
    control_port   -C
    timeout_s      longest wait for one answer
    """

    control_port: int = 0
    socket: Path | None = None
    timeout_s: float = 10.0

    @property
    def name(self) -> str:
        """What to call this tgtd in an error."""
        return f"tgtd at {self.socket_path}"

    @property
    def socket_path(self) -> Path:
        base = self.socket or SYSTEM_SOCKET
        return base.with_name(f"{base.name}.{self.control_port}")

    @property
    def environment(self) -> dict[str, str]:
        """For tgtd and tgtadm: nothing else of ours is their business."""
        path = {"PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SYSTEM_FOLDERS}"}
        return path | ({"TGT_IPC_SOCKET": str(self.socket)} if self.socket else {})

    async def ask(self, op: str, mode: str, *options: str) -> str:
        """What tgtadm printed.

        Raises TgtRefused with tgtd's words; TargetUnavailable when no tgtd answers, or not to this user; Timeout, and then what
        was asked may still have happened.
        """
        argv = ("tgtadm", "-C", str(self.control_port), "--lld", "iscsi", "--op", op, "--mode", mode, *options)
        try:
            output = await run(*argv, timeout_s=self.timeout_s, env=self.environment)
        except CommandMissing as exc:
            raise TargetUnavailable(name=self.name, reason=str(exc)) from exc
        said = output.said.removeprefix("tgtadm: ")
        if _is_about_the_daemon(output):
            raise TargetUnavailable(name=self.name, reason=f"{said} (is it running, and as this user?)")
        if output.status != 0:
            raise TgtRefused(words=said)
        return output.stdout

    async def targets(self) -> tuple[TargetInfo, ...]:
        return _read(tgt_text.parse_targets, await self.ask("show", "target"))

    async def portals(self) -> tuple[Portal, ...]:
        return _read(tgt_text.parse_portals, await self.ask("show", "portal"))

    async def connections(self, tid: int) -> tuple[Connection, ...]:
        """Of one target; none when it is gone."""
        try:
            return _read(tgt_text.parse_connections, await self.ask("show", "conn", "--tid", str(tid)))
        except TgtRefused as exc:
            if exc.refusal is Refusal.NO_TARGET:
                return ()
            raise

    async def accounts(self) -> tuple[str, ...]:
        return _read(tgt_text.parse_accounts, await self.ask("show", "account"))

    async def new_account(self, chap: Chap) -> None:
        """Raises TgtRefused, TargetUnavailable."""
        try:
            request = tgt_text.new_account_request(chap)
            async with asyncio.timeout(self.timeout_s):
                answer = await _exchange(self.socket_path, request)
            words = tgt_text.refusal_in(answer)
        except TimeoutError as exc:
            raise TargetUnavailable(name=self.name, reason=f"no answer within {self.timeout_s:g} s") from exc
        except (OSError, asyncio.IncompleteReadError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it hung up"
            raise TargetUnavailable(name=self.name, reason=f"{reason} (is it running, and as this user?)") from exc
        except ValueError as exc:
            raise TgtRefused(words=str(exc)) from exc
        if words is not None:
            raise TgtRefused(words=words)


def _is_about_the_daemon(output: Output) -> bool:
    """tgtd not there (107), of another user (SIGPIPE), or dead while it was asked."""
    died = any(words in output.stderr for words in _DIED)
    return died or output.status < 0 or output.status == _TRANSPORT_ENDPOINT_NOT_CONNECTED


def _read(parse: Callable[[str], T], text: str) -> T:
    """Raises Broken for text that is not tgtd's, or that was cut off: a target missed would be made twice."""
    if len(text) >= COMMAND_OUTPUT_BYTES_MAX:
        raise Broken(what="tgtadm's answer", reason=f"it has more than {COMMAND_OUTPUT_BYTES_MAX} bytes; too many targets")
    try:
        return parse(text)
    except (ValueError, LookupError) as exc:
        raise Broken(what="tgtadm's answer", reason="it is not in the form of tgt 1.0") from exc


async def _exchange(socket: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(request)
        await writer.drain()
        return await reader.readexactly(tgt_text.ACCOUNT_ANSWER_BYTES)
    finally:
        writer.close()
