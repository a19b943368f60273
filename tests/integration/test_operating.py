"""What an operator does with a bus: look, ask who lives, read along, mend, measure."""

import asyncio
import getpass
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.host.clock import SystemClock
from common.testing.servers import RabbitServer
from common.transport.port import Message, Queue, Transport
from common.transport.url import open_transport
from tests.support.processes import Ran, commanded

pytestmark = pytest.mark.timeout(200, func_only=True)
CLOCK = SystemClock()
READY_S = 60


@dataclass
class Api:
    """A running nova-api on a folder."""

    process: asyncio.subprocess.Process
    metrics_url: str
    file: Path

    async def lite(self, *words: str) -> Ran:
        return await commanded("lite", *words, files=[self.file])


@asynccontextmanager
async def api(folder: Path) -> AsyncIterator[Api]:
    file = folder / "lite.conf"
    file.write_text(f"[DEFAULT]\nstate_path = {folder}\nhost = h1\nmetrics_listen = 127.0.0.1:0\n")
    assert (await commanded("lite", "db", "upgrade", files=[file])).code == 0
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nova_lite", "run", "api", "--config-file", str(file), stderr=asyncio.subprocess.PIPE
    )
    try:
        said = await until_said(process, "serving binary=")
        yield Api(process, next(line for line in said if "/metrics" in line).partition("url=")[2].strip(), file)
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
        assert process.returncode == 0, rest.decode()


async def until_said(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """The lines on stderr up to the one that holds `word`."""
    assert process.stderr is not None
    lines: list[str] = []
    async with asyncio.timeout(READY_S):
        while line := (await process.stderr.readline()).decode():
            lines.append(line)
            if word in line:
                return lines
    raise AssertionError(f"it never said {word!r}: {''.join(lines)}")


async def get(url: str) -> str:
    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bytes(answer.read())

    return (await asyncio.to_thread(read)).decode()


async def test_an_operator_pings_measures_and_mends_a_running_service(tmp_path: Path) -> None:
    async with api(tmp_path) as running:
        await check_ping(running)
        await check_listen(running)
        await check_dead_letters(running)
        await check_queues(running)
        shown = await get(running.metrics_url)
    for line in (
        'lite_rpc_server_requests_total{method="get_all",outcome="ok",topic="nova-api"} 1.0',
        'lite_rpc_server_in_flight{method="get_all",topic="nova-api"} 0.0',
        'lite_rpc_server_duration_seconds_count{method="get_all",topic="nova-api"} 1.0',
        'lite_rpc_events_total{event="dead_letter",reason="NoSuchMethod"} 5.0',
    ):
        assert line in shown


async def check_ping(running: Api) -> None:
    answered = await running.lite("rpc", "ping", "nova-api.h1", "--count", "2")
    assert answered.code == 0, answered.err
    assert answered.out.count("nova-api.h1 answers; rpc_ping_enabled is off there") == 2
    assert "2 sent, 2 answered" in answered.out
    assert (await running.lite("rpc", "ping", "nova-api.h2")).code == 3
    os.kill(running.process.pid, signal.SIGSTOP)
    try:
        late = await running.lite("rpc", "ping", "nova-api", "--timeout", "0.5")
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    assert (late.code, late.out) == (2, "nova-api: no reply within 0.5 s\n")


async def check_listen(running: Api) -> None:
    listener = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "common.app", "rpc", "listen", "nova-api", "--all", "--config-file", str(running.file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await until_said(listener, "Listening to nova-api")
    assert (await running.lite("rpc", "call", "nova-api", "get_all")).code == 0
    assert listener.stdout is not None
    line = (await asyncio.wait_for(listener.stdout.readline(), READY_S)).decode()
    assert " nova/nova-api.# call get_all " in line
    listener.send_signal(signal.SIGINT)
    out, err = await listener.communicate()
    assert (listener.returncode, out, err) == (0, b"", b"")


async def check_dead_letters(running: Api) -> None:
    for word in ("one", "two", "three"):
        assert (await running.lite("rpc", "cast", "nova-api.h1", "nope", f"name={word}", "admin_token=hunter2")).code == 0
    listed = await dead_letters(running, 3)
    assert {(row["method"], row["error"], row["queue"], row["server"]) for row in listed} == {
        ("nope", "NoSuchMethod", "nova-api.h1", "nova-api.h1")
    }
    one, two, three = (row["id"] for row in listed)
    table = await running.lite("dlq", "list", "nova-api")
    assert one[:8] in table.out
    assert one not in table.out
    shown = await running.lite("dlq", "show", one[:8], "--json")
    assert shown.json()["arguments"] == {"name": "one", "admin_token": "***"}
    assert (await running.lite("dlq", "show", "nope")).code == 1
    dropped = await running.lite("dlq", "drop", two)
    assert dropped.code == 0
    for word in ("dead letter dropped", f"user={getpass.getuser()}", f"id={two}", "queue=nova-api.h1"):
        assert word in dropped.err
    assert (await running.lite("dlq", "requeue", one[:8], "nova-api")).code == 0
    assert [row["id"] for row in await dead_letters(running, 2)] == [three, one]
    unsure = await running.lite("dlq", "drop", "--all")
    assert (unsure.code, "Nothing was changed" in unsure.err) == (1, True)
    assert (await running.lite("dlq", "drop", "--all", "--yes", "nova-api")).code == 0
    assert await dead_letters(running, 0) == []


async def dead_letters(running: Api, number: int) -> list[dict[str, Any]]:
    """As soon as there are so many."""
    async with asyncio.timeout(READY_S):
        while True:
            found: list[dict[str, Any]] = (await running.lite("dlq", "list", "--json")).json()
            if len(found) == number:
                return found


async def check_queues(running: Api) -> None:
    seen = await running.lite("bus", "inspect", "--json")
    rows = {row["name"]: row for row in seen.json()["queues"]}
    assert (rows["nova-api.h1"]["consumers"], rows["nova-api.h1"]["kind"]) == (1, "folder")
    assert rows["nova-api_dead_letter"]["ready"] == 0
    assert seen.json()["warnings"] == []
    assert (await running.lite("bus", "inspect", "--strict")).code == 0
    assert (await running.lite("rpc", "cast", "nova-api", "nope")).code == 0
    await dead_letters(running, 1)
    strict = await running.lite("bus", "inspect", "--strict")
    assert (strict.code, "dead letters: 1. `lite dlq list nova-api`" in strict.err) == (1, True)
    assert (await running.lite("dlq", "drop", "--all", "--yes")).code == 0


# RabbitMQ ----------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def transport_at(url: str) -> AsyncIterator[Transport]:
    transport = await open_transport(url, clock=CLOCK, connection_name="test")
    try:
        yield transport
    finally:
        await transport.close()


def conf(folder: Path, url: str) -> Path:
    path = folder / "lite.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {folder}\ntransport_url = {url}\n")
    return path


@pytest.mark.real("rabbitmq")
async def test_the_management_api_tells_all_of_every_queue(tmp_path: Path) -> None:
    with RabbitServer(tmp_path / "rabbit", has_management=True) as server:
        url = server.vhost_url("with/slash")
        server.ctl("set_policy", "-p", "with/slash", "mirror", "^mirrored$", '{"ha-mode":"all"}')
        file = conf(tmp_path, url)
        async with transport_at(url) as transport:
            await declare_all(transport)
            rows, warnings = await inspected(file, server.management_url)
        assert (rows["compute"]["ready"], rows["compute"]["durable"], rows["compute"]["kind"]) == (2, False, "classic")
        assert (rows["consumed"]["consumers"], rows["consumed"]["exclusive"]) == (1, True)
        assert (rows["quorum"]["kind"], rows["mirrored"]["policy"]) == ("quorum", "mirror")
        for problem, queue in (
            ("RabbitMQ 4.3 refuses", "compute"),
            ("4.3 refuses", "reply_1"),
            ("mirrored by the policy mirror", "mirrored"),
            ("x-ha-policy", "old"),
            ("nobody takes: 2", "compute"),
        ):
            assert any(problem in each["problem"] and queue in each["queues"] for each in warnings), (problem, warnings)
        assert not any("consumed" in each["queues"] for each in warnings)
        denied = conf(tmp_path, url.replace("guest:guest", "lite:hunter2"))
        server.ctl("add_user", "lite", "hunter2")
        server.ctl("set_permissions", "-p", "with/slash", "lite", ".*", ".*", ".*")
        ran = await commanded("lite", "bus", "inspect", "--management-url", server.management_url, files=[denied])
        assert ran.code == 69
        assert "it answers 401" in ran.err
        assert "needs the tag `monitoring`" in ran.err
        assert "hunter2" not in ran.err


async def declare_all(transport: Transport) -> None:
    await transport.declare(Queue("compute"))
    await transport.declare(Queue("reply_1"))
    await transport.declare(Queue("quorum", durable=True, arguments={"x-queue-type": "quorum"}))
    await transport.declare(Queue("mirrored", durable=True))
    await transport.declare(Queue("old", durable=True, arguments={"x-ha-policy": "all"}))
    await transport.consume(Queue("consumed", exclusive=True), prefetch=1, on_delivery=lambda _: None)
    for _ in range(2):
        await transport.publish(Message(None, "compute", b"{}", mandatory=True), timeout_s=10)


async def inspected(file: Path, management_url: str) -> tuple[dict[str, Any], list[Any]]:
    """As soon as the broker has counted everything, which it does now and then."""
    async with asyncio.timeout(READY_S):
        while True:
            ran = await commanded("lite", "bus", "inspect", "--json", "--management-url", management_url, files=[file])
            assert ran.code == 0, ran.err
            found = json.loads(ran.out)
            rows = {row["name"]: row for row in found["queues"]}
            if len(rows) == 6 and rows["compute"]["ready"] == 2 and rows["consumed"]["consumers"] == 1:
                return rows, found["warnings"]


@pytest.mark.real("rabbitmq")
async def test_without_the_management_api_the_queues_of_the_services_are_asked_for(tmp_path: Path, rabbit_url: str) -> None:
    file = conf(tmp_path, rabbit_url)
    async with transport_at(rabbit_url) as transport:
        await transport.declare(Queue("compute"))
        await transport.declare(Queue("nobody-s"))
        await transport.publish(Message(None, "compute", b"{}"), timeout_s=10)
        ran = await commanded("lite", "bus", "inspect", "--json", files=[file])
    assert ran.code == 0, ran.err
    (row,) = ran.json()["queues"]
    assert (row["name"], row["ready"], row["consumers"], row["kind"], row["durable"]) == ("compute", 1, 0, None, None)
    assert "management API http://127.0.0.1:15672 cannot be used" in ran.err
    assert "hosts of the services are not known" in ran.err
    strict = await commanded("lite", "bus", "inspect", "--strict", files=[file])
    assert strict.code == 1
    named = await commanded("lite", "bus", "inspect", "--management-url", "http://127.0.0.1:1", files=[file])
    assert (named.code, "127.0.0.1:1" in named.err) == (69, True)
