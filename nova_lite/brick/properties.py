"""What this host is to a storage system (attach-flow 6.3), and the name by which iSCSI targets know it."""

import os
import platform
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.base.errors import Misconfigured
from nova_lite.brick.iscsi_text import INITIATOR_PREFIX, format_initiator_name, parse_initiator_name


def connector_properties(*, host: str, ip: str, initiator: str | None) -> dict[str, Any]:
    """The connector dict as os-brick gives it; `initiator` is absent when the host has none."""
    properties = {
        "platform": platform.machine(),
        "os_type": sys.platform,
        "ip": ip,
        "host": host,
        "multipath": False,
        "enforce_multipath": False,
        "do_local_attach": False,
    }
    return properties | ({"initiator": initiator} if initiator else {})


def read_initiator_name(path: Path) -> str | None:
    """This host's initiator name; None when there is no such file or no name in it.

    Raises Misconfigured when the file is there and cannot be read.
    """
    try:
        return parse_initiator_name(path.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Misconfigured(reason=f"the initiator's name cannot be read from {path}: {exc.strerror}") from exc


def ensure_initiator_name(path: Path) -> str:
    """This host's initiator name, made up and written to `path` if nothing is there; for hosts without open-iscsi.

    Of several that try at once, one wins and all get its name. Raises Misconfigured when the file cannot be written, or is
    there without a name: it is somebody's, and not ours to mend.
    """
    if read_initiator_name(path) is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path, format_initiator_name(f"{INITIATOR_PREFIX}:{secrets.token_hex(6)}"))
        except OSError as exc:
            raise Misconfigured(reason=f"the initiator's name cannot be written to {path}: {exc.strerror}") from exc
    name = read_initiator_name(path)
    if name is None:
        raise Misconfigured(reason=f"{path} holds no line InitiatorName=<name>")
    return name


def _create(path: Path, text: str) -> None:
    """The file appears whole and is open to its owner only; there already: it stays as it is."""
    number, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(number)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
