"""What a process shows of itself."""

import asyncio
import socket
import sys
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from common.app.config import load
from common.app.observing import Listen, Observed, observing, parse_listen
from common.app.options import CommonConfig, common_sections, read_common
from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.rpc.counts import Event

CLOCK = SystemClock()


@pytest.fixture
def config(tmp_path: Any) -> CommonConfig:
    sections = common_sections(control_exchange="openstack")
    return read_common(load([], sections, overrides={"DEFAULT": {"state_path": str(tmp_path)}}, foreign=()))[0]


def observed(config: CommonConfig) -> Any:
    return observing(config, name="nova-api.h1", bus="rabbit://h", clock=CLOCK)


async def get(port: int) -> str:
    def read() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return bytes(answer.read())

    return (await asyncio.to_thread(read)).decode()


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_nothing_is_shown_unless_it_is_asked_for(config: CommonConfig) -> None:
    async with observed(config) as found:
        assert (found.clients, found.servers, config.metrics_listen, config.tracing_enabled) == ([], [], "", False)


async def test_metrics_are_shown_as_long_as_the_process_lives(config: CommonConfig) -> None:
    port = free()
    async with observed(replace(config, metrics_listen=f"{port}")) as found:
        assert isinstance(found, Observed)
        found.counts.add(Event.REPLY_ORPHAN)
        assert 'lite_rpc_events_total{event="reply_orphan",reason=""} 1.0' in await get(port)
        assert (len(found.clients), len(found.servers)) == (1, 1)
    with pytest.raises(OSError, match="refused"):
        await get(port)


async def test_processes_that_share_a_file_take_one_port_each(config: CommonConfig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            Misconfigured, match=f"127.0.0.1:{port} cannot be listened on: Address already in use; .* HOST:FIRST-LAST"
        ):
            async with observed(replace(config, metrics_listen=f"127.0.0.1:{port}")):
                pass
        async with observed(replace(config, metrics_listen=f"127.0.0.1:{port}-{port + 20}")):
            found = [other for other in range(port + 1, port + 21) if _answers(other)]
            assert found


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("9100", Listen("127.0.0.1", 9100, 9100)),
        (":9100", Listen("127.0.0.1", 9100, 9100)),
        ("0.0.0.0:9100-9110", Listen("0.0.0.0", 9100, 9110)),
        ("[::1]:9100", Listen("::1", 9100, 9100)),
        ("cmp1.example:0", Listen("cmp1.example", 0, 0)),
    ],
)
def test_a_place_to_listen_is_the_loopback_unless_a_host_is_named(text: str, listen: Listen) -> None:
    assert parse_listen(text) == listen


@pytest.mark.parametrize("text", ["h:70000", "h:9110-9100"])
def test_ports_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="ports up to 65535"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["here", "h:", "a b:1", "h:1:2", "http://h:1", "1-"])
def test_a_place_that_cannot_be_read_is_refused_with_what_is_wanted(text: str) -> None:
    sections = common_sections(control_exchange="openstack")
    with pytest.raises(Misconfigured, match=r"metrics_listen.*PORT, HOST:PORT or HOST:FIRST-LAST"):
        read_common(load([], sections, overrides={"DEFAULT": {"metrics_listen": text}}, foreign=()))


async def test_with_debug_every_request_is_logged(config: CommonConfig) -> None:
    async with observed(replace(config, debug=True)) as found:
        assert [type(each).__name__ for each in (*found.clients, *found.servers)] == ["LoggedClient", "LoggedServer"]


async def test_spans_go_to_the_exporter_that_the_environment_names(config: CommonConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    async with observed(replace(config, tracing_enabled=True)) as found:
        assert [type(each).__name__ for each in (*found.clients, *found.servers)] == ["TracedClient", "TracedServer"]
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    with pytest.raises(Misconfigured, match="no exporter 'carrier-pigeon' is installed"):
        async with observed(replace(config, tracing_enabled=True)):
            pass


async def test_tracing_without_its_extra_says_what_to_install(config: CommonConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "common.app.tracing", None)
    with pytest.raises(Misconfigured, match=r"needs the extra otel .* pip install 'nova-cinder-lite\[otel\]'"):
        async with observed(replace(config, tracing_enabled=True)):
            pass


async def test_what_is_off_is_not_imported() -> None:
    code = (
        "import sys, common.app.__main__, nova_lite.service.wiring; "
        "print([name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'prometheus_client')])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"
