"""kombu URLs that an operator may get wrong."""

import sys

import pytest

from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.testing.servers import free_port
from common.transport.kombu_url import connector
from common.transport.port import BusUnavailable
from common.transport.url import open_transport


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("kombu+redis://:s3cret@h/1", "redis", "kombu-redis"),
        ("kombu+sqla+postgresql://u:s3cret@h/lite", "psycopg", "kombu-postgresql"),
        ("kombu+sqla+mysql+pymysql://u:s3cret@h/lite", "pymysql", "kombu-mysql"),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Misconfigured, match=rf"needs the Python package {module}.*'nova-cinder-lite\[{extra}\]'") as caught:
        connector(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kombu+redis://:s3cret@h:port/1", "is not kombu\\+redis://user:password@host:port/number"),
        ("kombu+redis://:s3cret@h/nova", "is not kombu\\+redis://user:password@host:port/number"),
        ("kombu+sqla+sqlite://", "is no database"),
        ("kombu+sqla+sqlite:///:memory:", "is no database"),
        ("kombu+sqla+oracle://u:s3cret@h/x", "is no database"),
        ("kombu+sqla+://", "is no database"),
        ("kombu+nosuch://u:s3cret@h/", "kombu cannot use nosuch here"),
        ("kombu+pyamqp://u:s3cret@h/", "write rabbit:// for RabbitMQ"),
    ],
)
async def test_a_wrong_kombu_url_is_refused_with_what_is_wanted_and_without_its_password(url: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as caught:
        await open_transport(url, clock=SystemClock(), connection_name="test")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "sqla+postgresql", "sqla+mysql"])
async def test_a_server_that_nobody_started_is_an_unavailable_bus_named_without_its_password(scheme: str) -> None:
    url = f"kombu+{scheme}://u:s3cret@127.0.0.1:{free_port()}/0"
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1") as caught:
        await open_transport(url, clock=SystemClock(), connection_name="test")
    assert "s3cret" not in str(caught.value)
    assert "SELECT" not in str(caught.value)
