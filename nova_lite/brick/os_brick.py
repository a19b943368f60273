"""What os-brick says that this host is, where it is installed: an optional extra.

It is asked in a process of its own: os-brick brings eventlet, which is not to be in a process with asyncio.
"""

import json
import sys
from typing import Any

import structlog

from common.base.errors import Fault
from common.host.command import run

_TIMEOUT_S = 20.0
_ASK = """
import json, sys
try:
    import os_brick.privileged
    from os_brick.initiator import connector
except ImportError:
    print("null"); raise SystemExit
os_brick.privileged.default.set_client_mode(False)
print(json.dumps(connector.get_connector_properties(None, sys.argv[2], False, False, host=sys.argv[1])))
"""

_log = structlog.get_logger(__name__)


async def os_brick_properties(*, host: str, my_ip: str, python: str = sys.executable) -> dict[str, Any] | None:
    """The dict of attach-flow 6.3; None when os-brick is not installed, or does not answer: that is logged."""
    try:
        output = await run(python, "-c", _ASK, host, my_ip, timeout_s=_TIMEOUT_S)
        found = json.loads(output.stdout.strip().splitlines()[-1])
    except (Fault, ValueError, IndexError) as exc:
        _log.warning("os-brick does not say what this host is, our own answer is used", reason=str(exc))
        return None
    return found if isinstance(found, dict) else None
