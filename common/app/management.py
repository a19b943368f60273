"""RabbitMQ's management API, as far as `lite bus inspect` asks it.

Source: https://www.rabbitmq.com/docs/management, GET /api/queues/{vhost}.
"""

import json
import time
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from common.app.queues import QueueRow
from common.base.errors import Misconfigured, Unavailable
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.rabbit_url import Host, RabbitUrl

PORT = 15672
_PAGE = 500
_PAGES_MAX = 100
_BYTES_MAX = 16 * 1024 * 1024
_COLUMNS = (
    "name,type,durable,exclusive,arguments,messages_ready,messages_unacknowledged,consumers,policy,effective_policy_definition,"
    "head_message_timestamp"
)


class ManagementUnavailable(Unavailable):
    """The management API {url} cannot be used: {reason}"""


def default_urls(where: RabbitUrl) -> list[str]:
    """Where the plugin listens unless told otherwise, on each host of the cluster."""
    return [f"http://{f'[{host.name}]' if ':' in host.name else host.name}:{PORT}" for host in where.hosts]


def list_queues(url: str, where: RabbitUrl, *, timeout_s: float = CONNECT_TIMEOUT_S) -> list[QueueRow]:
    """The queues of the virtual host, by name; it blocks. Raises ManagementUnavailable, Misconfigured for what is no URL.

    User and password are those of the transport_url. They go to no other place: no proxy is asked and no redirection followed.
    """
    found: list[QueueRow] = []
    for page in range(1, _PAGES_MAX + 1):
        query = f"page={page}&page_size={_PAGE}&columns={_COLUMNS}"
        answer = _get(url, f"/api/queues/{quote(where.virtual_host, safe='')}?{query}", where.hosts[0], timeout_s)
        try:
            found.extend(row_of(item) for item in answer["items"])
            if page >= int(answer["page_count"]):
                return sorted(found, key=lambda row: row.name)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ManagementUnavailable(url=url, reason=f"its answer is none of RabbitMQ's: {type(exc).__name__} {exc}") from None
    raise ManagementUnavailable(url=url, reason=f"it has more than {_PAGE * _PAGES_MAX} queues")


def row_of(item: Mapping[str, Any]) -> QueueRow:
    """One queue of the answer. What the broker has not counted yet is left out of it, and is nought."""
    stamp = item.get("head_message_timestamp")
    return QueueRow(
        name=str(item["name"]),
        ready=int(item.get("messages_ready") or 0),
        unsettled=int(item.get("messages_unacknowledged") or 0),
        consumers=int(item.get("consumers") or 0),
        kind=str(item.get("type") or "classic"),
        durable=bool(item.get("durable")),
        exclusive=bool(item.get("exclusive")),
        oldest_s=max(0.0, time.time() - stamp) if isinstance(stamp, int) else None,
        arguments=dict(item.get("arguments") or {}),
        policy=item.get("policy") or None,
        policy_definition=dict(item.get("effective_policy_definition") or {}),
    )


def _get(url: str, path: str, login: Host, timeout_s: float) -> Any:
    connection = _connection(url, timeout_s)
    word = b64encode(f"{login.user}:{login.password}".encode()).decode()
    try:
        connection.request("GET", urlsplit(url).path.rstrip("/") + path, headers={"Authorization": f"Basic {word}"})
        answer = connection.getresponse()
        body = answer.read(_BYTES_MAX + 1)
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise ManagementUnavailable(url=url, reason=reason) from None
    finally:
        connection.close()
    if answer.status != 200:
        hint = f"; user {login.user} needs the tag `monitoring` or `management`" if answer.status in {401, 403} else ""
        raise ManagementUnavailable(url=url, reason=f"it answers {answer.status} {answer.reason}{hint}")
    if len(body) > _BYTES_MAX:
        raise ManagementUnavailable(url=url, reason=f"its answer is larger than {_BYTES_MAX} bytes")
    try:
        return json.loads(body)
    except ValueError:
        raise ManagementUnavailable(url=url, reason="its answer is not JSON") from None


def _connection(url: str, timeout_s: float) -> HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        raise Misconfigured(
            reason="--management-url is not http://HOST:PORT or https://HOST:PORT; its user is that of transport_url"
        )
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(host, port, timeout=timeout_s)
