"""A private RabbitMQ node."""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.testing.servers.base import STOP_TIMEOUT_S, Server, answers, free_port
from common.testing.servers.programs import ADMIN_PATH, COMMAND_TIMEOUT_S, not_found, output, program

_RABBIT_PATH = os.pathsep.join(("/usr/lib/rabbitmq/bin", ADMIN_PATH))
"""Debian's wrapper on PATH changes the user and the folder, so the package's own scripts come first."""


class RabbitServer(Server):
    """A RabbitMQ node with a name, ports, an epmd and a home of its own; user guest, password guest.

    has_management   with the plugin that serves `management_url`
    """

    _VHOSTS_AT_ONCE = 20
    """One command line call costs 0.4 s, another virtual host in it 15 ms."""

    def __init__(self, folder: Path | None = None, *, has_management: bool = False) -> None:
        super().__init__(folder)
        self._management_port = free_port() if has_management else None
        self._dist_port, self._epmd_port = free_port(), free_port()
        self.node = f"test-{secrets.token_hex(4)}@localhost"
        self._epmd: subprocess.Popen[bytes] | None = None
        self._spare: list[str] = []

    @classmethod
    def missing(cls) -> str | None:
        """Names the programs that are not there."""
        return not_found("epmd", "erl", "rabbitmq-server", "rabbitmqctl", path=_RABBIT_PATH)

    @classmethod
    def version(cls) -> str:
        # Its own command line would look for a running node first; the package's folder bears the version.
        found = re.search(r"rabbitmq_server-([^/]+)", str(Path(_rabbit_program("rabbitmq-server")).resolve()))
        return found[1] if found else "(version unknown)"

    @property
    def url(self) -> str:
        """The node's default virtual host."""
        return self._url("%2F")

    @property
    def management_url(self) -> str:
        """The management API."""
        return f"http://127.0.0.1:{self._management_port}"

    def vhost_url(self, name: str) -> str:
        """The URL of a new, empty virtual host of that name (letters, digits, dashes)."""
        self._add_vhosts([name])
        return self._url(name)

    def fresh_url(self) -> str:
        """The URL of a virtual host that nobody has used; cheap, because they are made many at a time."""
        if not self._spare:
            names = [f"v-{secrets.token_hex(6)}" for _ in range(self._VHOSTS_AT_ONCE)]
            self._add_vhosts(names)
            self._spare = names
        return self._url(self._spare.pop())

    def ctl(self, *args: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """What `rabbitmqctl --quiet` prints. Raises ServerFailed."""
        return output([_rabbit_program("rabbitmqctl"), "-q", "-n", self.node, *args], env=self._environment(), timeout_s=timeout_s)

    def stop(self) -> None:
        """The node, then its epmd."""
        super().stop()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(STOP_TIMEOUT_S)
            self._epmd = None

    def _url(self, vhost: str) -> str:
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def _add_vhosts(self, names: Sequence[str]) -> None:
        listed = ", ".join(f"<<{json.dumps(name)}>>" for name in names)
        add = 'rabbit_vhost:add(V, <<"test">>)'
        permit = 'rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"test">>)'
        self.ctl("eval", f"[begin {add}, {permit} end || V <- [{listed}]].")

    def _prepare(self) -> None:
        settings, plugins = f"listeners.tcp.1 = 127.0.0.1:{self.port}\n", ""
        if self._management_port is not None:
            settings += f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._management_port}\n"
            plugins = "rabbitmq_management"
        (self.folder / "rabbit.conf").write_text(settings)
        (self.folder / "plugins").write_text(f"[{plugins}].\n")

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbit"),
            # Makes the script give its process to the node: no shell stands between us and it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # A file that is not there: the machine's own settings are not ours.
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
        }

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        if self._epmd is None or self._epmd.poll() is not None:
            # Without one of our own the node would leave a daemon behind.
            epmd = [program("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(  # noqa: S603 - the vector is ours
                epmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
        return [_rabbit_program("rabbitmq-server")], self._environment()

    def _is_ready(self) -> bool:
        return answers(self.port) and (self._management_port is None or answers(self._management_port))


def _rabbit_program(name: str) -> str:
    return program(name, path=_RABBIT_PATH)
