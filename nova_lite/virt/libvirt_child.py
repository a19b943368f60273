"""One operation on libvirt, in a process of its own: a request in JSON on standard input, its answer in JSON on standard output.

Libvirt's calls block, and one that waits for a hung libvirtd cannot be called back: its process can be killed. This file is run as a
program by an interpreter that has libvirt's binding, which need not be ours, so it uses nothing but that and the standard library.

    request   {"uri", "verb", ...}, secrets among them
    answer    {"result": ...} | {"error": {"code", "domain", "message"}} | {"missing": why there is no binding}

Source: libvirt, "Module libvirt-domain"; measured with libvirt 9.0.
"""

import base64
import json
import os
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

try:
    import libvirt
    import libvirt_qemu
except ImportError as missing:
    libvirt = libvirt_qemu = None
    MISSING: str | None = str(missing)
else:
    MISSING = None

KEEPALIVE_S = 5
KEEPALIVES_MISSED_MAX = 2
"""A libvirtd that has been silent so long is given up, should nobody kill us before."""

_POLL_S = 0.02
_COPY, _RANGE, _JOB = "probe-copy", "probe-range", "probe"
_OPERATION_FAILED, _OPERATION_INVALID, _FROM_QEMU = 9, 55, 10
"""VIR_ERR_OPERATION_FAILED, VIR_ERR_OPERATION_INVALID, VIR_FROM_QEMU."""

Request = dict[str, Any]


class Refused(Exception):
    """A word for no that is not libvirt's own: QEMU's, or ours."""

    def __init__(self, said: str, code: int = _OPERATION_FAILED) -> None:
        super().__init__(said)
        self.code = code


def main() -> None:
    """Do what standard input asks for."""
    request = json.load(sys.stdin)
    if MISSING is not None:
        print(json.dumps({"missing": MISSING}))  # noqa: T201  # the answer
        return
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, daemon=True).start()
        conn = libvirt.open(request["uri"])
        conn.setKeepAlive(KEEPALIVE_S, KEEPALIVES_MISSED_MAX)
        answer = {"result": VERBS[request["verb"]](conn, request)}
    except Refused as error:
        answer = {"error": {"code": error.code, "domain": _FROM_QEMU, "message": str(error)}}
    except libvirt.libvirtError as error:
        answer = {"error": _told(error)}
    print(json.dumps(answer), flush=True)  # noqa: T201  # the answer
    os._exit(0)  # the thread of the events waits in C, and closing a connection waits for libvirtd


def list_domains(conn: Any, request: Request) -> list[dict[str, Any]]:
    """Every domain: {"uuid", "is_active", "xml"}."""
    found = []
    for domain in conn.listAllDomains():
        try:
            found.append({"uuid": domain.UUIDString(), "is_active": bool(domain.isActive()), "xml": domain.XMLDesc()})
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def list_secrets(conn: Any, request: Request) -> list[str]:
    """The XML of every secret, without its value."""
    return [secret.XMLDesc() for secret in conn.listAllSecrets()]


def spawn(conn: Any, request: Request) -> bool:
    """Define and start; False when it runs already. A definition that does not run is of a machine that died."""
    old = _lookup(conn, request["uuid"])
    if old is not None:
        if old.isActive():
            return False
        old.undefine()
    domain = conn.defineXML(request["xml"])
    try:
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if request["is_held"] else 0)
    except libvirt.libvirtError:
        domain.undefine()
        raise
    return True


def destroy(conn: Any, request: Request) -> None:
    """End it and forget it, and the secrets that may be left of its disks."""
    domain = _lookup(conn, request["uuid"])
    if domain is not None:
        if domain.isActive():
            _unless(libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN, act=domain.destroy)
        _unless(libvirt.VIR_ERR_NO_DOMAIN, act=domain.undefine)
    for secret in conn.listAllSecrets():
        if request["secrets"] in secret.XMLDesc():
            _unless(libvirt.VIR_ERR_NO_SECRET, act=secret.undefine)


def power_off(conn: Any, request: Request) -> bool:
    """Ask the guest to shut down; True when it has within timeout_s."""
    domain = _lookup(conn, request["uuid"])
    if domain is None or not domain.isActive():
        return True
    over = threading.Event()

    def changed(_conn: Any, _domain: Any, event: int, _detail: int, _opaque: Any) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            over.set()

    conn.domainEventRegisterAny(domain, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, changed, None)
    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    over.wait(request["wait_s"])
    return not domain.isActive()


def attach(conn: Any, request: Request) -> str:
    """ "attached", "there" when it has the disk already, "full"."""
    domain = _machine(conn, request["uuid"])
    disks = _aliases(domain)
    if request["alias"] in disks:
        return "there"
    if len(disks) >= request["disks_max"]:
        return "full"
    secret = _define(conn, request.get("secret"))
    try:
        domain.attachDeviceFlags(request["xml"], libvirt.VIR_DOMAIN_AFFECT_LIVE)
    finally:
        if secret is not None:
            secret.undefine()
    return "attached"


def detach(conn: Any, request: Request) -> bool:
    """Ask for the disk back and wait for the guest; True when the machine has it no longer."""
    domain, alias = _machine(conn, request["uuid"]), request["alias"]
    forget_secret(conn, request)
    if alias not in _aliases(domain):
        return True
    over = threading.Event()

    def told(_conn: Any, _domain: Any, device: str, _opaque: Any) -> None:
        if device == alias:
            over.set()

    for event in (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED):
        conn.domainEventRegisterAny(domain, event, told, None)
    try:
        domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_DEVICE_MISSING:
            return True
        if "already in the process of unplug" not in str(error.get_error_message()):
            raise
    over.wait(request["wait_s"])
    return alias not in _aliases(domain)


def disks(conn: Any, request: Request) -> str:
    """The machine's XML, once the machine itself has answered."""
    domain = _machine(conn, request["uuid"])
    conn.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK)
    return str(domain.XMLDesc())


def resize(conn: Any, request: Request) -> None:
    """Tell the machine the size that the disk has by now."""
    domain = _machine(conn, request["uuid"])
    domain.blockResize(request["target"], request["size"], libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def size(conn: Any, request: Request) -> int:
    """Bytes of a disk, by the machine's word."""
    return int(_machine(conn, request["uuid"]).blockInfo(request["target"])[0])


def forget_secret(conn: Any, request: Request) -> None:
    """Undefine a secret of ours; gone already: nothing happens."""
    _unless(libvirt.VIR_ERR_NO_SECRET, act=lambda: conn.secretLookupByUUIDString(request["secret_uuid"]).undefine())


def write_pattern(conn: Any, request: Request) -> str:
    """Write through the disk as the guest would; what the monitor said meanwhile, mostly nothing."""
    domain = _machine(conn, request["uuid"])
    words = "write -P {pattern} {offset} {length}".format(**request)
    command = f'qemu-io -d /machine/peripheral/{request["alias"]}/virtio-backend "{words}"'
    hmp = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    return str(libvirt_qemu.qemuMonitorCommand(domain, command, hmp)).strip()


def verify_pattern(conn: Any, request: Request) -> bool:
    """True when the range holds the pattern: the machine mirrors it into a file that it is given open, wherever it may run."""
    domain = _machine(conn, request["uuid"])
    _clear_probe(domain)
    copy = os.memfd_create("probe")
    try:
        os.ftruncate(copy, request["length"])
        given = _ask_with(domain, copy, "add-fd", {})["fdset-id"]
        try:
            _mirror(domain, request, f"/dev/fdset/{given}")
            wanted = bytes([request["pattern"]]) * request["length"]
            return bool(os.pread(copy, request["length"], 0) == wanted)
        finally:
            _clear_probe(domain)
            _ask(domain, "remove-fd", {"fdset-id": given})
    finally:
        os.close(copy)


def watch(conn: Any, request: Request) -> None:
    """A line for each machine that stops or starts, for as long as somebody listens."""

    def changed(_conn: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        told = {"uuid": domain.UUIDString(), "event": event, "detail": detail}
        try:
            print(json.dumps(told), flush=True)  # noqa: T201  # the answer
        except OSError:
            os._exit(0)

    conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, changed, None)
    print(json.dumps({"watching": True}), flush=True)  # noqa: T201  # the answer
    while conn.isAlive():
        time.sleep(1)


def about(conn: Any, request: Request) -> dict[str, Any]:
    """Versions of libvirt and QEMU, and where they are."""
    return {"libvirt": conn.getLibVersion(), "qemu": conn.getVersion(), "uri": conn.getURI()}


VERBS: dict[str, Callable[[Any, Request], Any]] = {
    "about": about,
    "attach": attach,
    "destroy": destroy,
    "detach": detach,
    "disks": disks,
    "forget_secret": forget_secret,
    "list": list_domains,
    "power_off": power_off,
    "resize": resize,
    "secrets": list_secrets,
    "size": size,
    "spawn": spawn,
    "verify_pattern": verify_pattern,
    "watch": watch,
    "write_pattern": write_pattern,
}


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _told(error: Any) -> dict[str, Any]:
    return {"code": error.get_error_code(), "domain": error.get_error_domain(), "message": str(error.get_error_message())}


def _lookup(conn: Any, instance_uuid: str) -> Any:
    try:
        return conn.lookupByUUIDString(instance_uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _machine(conn: Any, instance_uuid: str) -> Any:
    """The live machine. Raises libvirtError with VIR_ERR_OPERATION_INVALID when it is not running."""
    domain = conn.lookupByUUIDString(instance_uuid)
    if not domain.isActive():
        raise Refused("it is not running", _OPERATION_INVALID)
    return domain


def _aliases(domain: Any) -> set[str]:
    tree = ET.fromstring(domain.XMLDesc())  # noqa: S314  # libvirt's own words
    return {alias.get("name", "") for alias in tree.iterfind("devices/disk/alias")}


def _define(conn: Any, secret: dict[str, str] | None) -> Any:
    if secret is None:
        return None
    made = conn.secretDefineXML(secret["xml"])
    try:
        made.setValue(base64.b64decode(secret["value"]))
    except libvirt.libvirtError:
        made.undefine()
        raise
    return made


def _unless(*codes: int, act: Callable[[], object]) -> None:
    try:
        act()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise


def _ask(domain: Any, command: str, arguments: dict[str, Any]) -> Any:
    """One command to QEMU's own monitor. Raises libvirtError with QEMU's words."""
    words = json.dumps({"execute": command, "arguments": arguments})
    return _returned(command, libvirt_qemu.qemuMonitorCommand(domain, words, 0))


def _ask_with(domain: Any, descriptor: int, command: str, arguments: dict[str, Any]) -> Any:
    words = json.dumps({"execute": command, "arguments": arguments})
    said = libvirt_qemu.qemuMonitorCommandWithFiles(domain, words, [descriptor], 0)
    return _returned(command, said[0] if isinstance(said, tuple) else said)


def _returned(command: str, said: str) -> Any:
    answer = json.loads(said)
    if "error" in answer:
        raise Refused(f"{command}: {answer['error'].get('desc')}")
    return answer["return"]


def _mirror(domain: Any, request: Request, path: str) -> None:
    part = {"driver": "raw", "node-name": _RANGE, "file": _node(domain, request["alias"]), "read-only": True}
    _ask(domain, "blockdev-add", part | {"offset": request["offset"], "size": request["length"]})
    _ask(domain, "blockdev-add", {"driver": "file", "node-name": _COPY, "filename": path, "locking": "off"})
    job = {"job-id": _JOB, "device": _RANGE, "target": _COPY, "sync": "full", "auto-dismiss": False}
    _ask(domain, "blockdev-mirror", job)
    while True:
        (found,) = [one for one in _ask(domain, "query-jobs", {}) if one["id"] == _JOB]
        if found["status"] == "ready":
            return
        if found["status"] == "concluded":
            raise Refused(f"the disk cannot be read: {found.get('error')}")
        time.sleep(_POLL_S)


def _clear_probe(domain: Any) -> None:
    while jobs := [job for job in _ask(domain, "query-jobs", {}) if job["id"] == _JOB]:
        if jobs[0]["status"] == "concluded":
            _ask(domain, "job-dismiss", {"id": _JOB})
        elif jobs[0]["status"] in {"running", "ready"}:
            _ask(domain, "block-job-cancel", {"device": _JOB, "force": True})
        time.sleep(_POLL_S)
    nodes = {node["node-name"] for node in _ask(domain, "query-named-block-nodes", {"flat": True})}
    for node in (_COPY, _RANGE):
        if node in nodes:
            _ask(domain, "blockdev-del", {"node-name": node})


def _node(domain: Any, alias: str) -> str:
    for device in _ask(domain, "query-block", {}):
        if str(device.get("qdev", "")).startswith(f"/machine/peripheral/{alias}/"):
            return str(device["inserted"]["node-name"])
    raise Refused(f"QEMU has no disk {alias}")


if __name__ == "__main__":
    main()
