"""What disks a QEMU machine has, from its own monitor: python qmp.py SOCKET. Only what holds no secret is shown."""

import json
import socket
import sys
from typing import Any, TextIO

TIMEOUT_S = 10.0


def main(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as monitor:
        monitor.settimeout(TIMEOUT_S)
        monitor.connect(path)
        stream = monitor.makefile("rw")
        stream.readline()  # the greeting
        ask(stream, "qmp_capabilities")
        blocks = ask(stream, "query-block")
    for block in blocks:
        inserted = block.get("inserted", {})
        image = inserted.get("image", {})
        shown = {
            "qdev": block.get("qdev"),
            "node-name": inserted.get("node-name"),
            "drv": inserted.get("drv"),
            "ro": inserted.get("ro"),
            "virtual-size": image.get("virtual-size"),
            "target": target_of(str(image.get("filename", ""))),
        }
        print(json.dumps(shown, indent=2))
    if not blocks:
        print("no disk")
    return 0


def ask(stream: TextIO, command: str) -> Any:
    """What the machine returns; its events in between are passed over."""
    stream.write(json.dumps({"execute": command}) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "error" in answer:
            raise SystemExit(f"error: {command}: {answer['error'].get('desc')}")
        if "return" in answer:
            return answer["return"]


def target_of(filename: str) -> str:
    """QEMU's json:{...} name of a node, without the login."""
    if not filename.startswith("json:"):
        return filename
    options = json.loads(filename.removeprefix("json:"))
    return f"{options.get('driver')} {options.get('portal')} {options.get('target')} LUN {options.get('lun')}, as {options.get('initiator-name')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
