from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.transport.memory import MemoryBuses
from common.transport.rabbit_url import Host, parse_rabbit_url
from common.transport.url import open_transport, without_password


@pytest.mark.parametrize(
    ("url", "hosts", "virtual_host"),
    [
        ("rabbit://", (Host("localhost"),), "/"),
        ("rabbit:///", (Host("localhost"),), "/"),
        ("rabbit:///nova", (Host("localhost"),), "nova"),
        ("rabbit://broker", (Host("broker"),), "/"),
        ("rabbit://broker:5673/", (Host("broker", 5673),), "/"),
        ("rabbit://nova:pw@broker/prod", (Host("broker", 5672, "nova", "pw"),), "prod"),
        ("rabbit://nova:pw@broker//", (Host("broker", 5672, "nova", "pw"),), "/"),
        ("rabbit://nova:pw@broker/%2F", (Host("broker", 5672, "nova", "pw"),), "/"),
        ("rabbit://nova:pw@broker/a%2Fb", (Host("broker", 5672, "nova", "pw"),), "a/b"),
        ("rabbit://n%40va:p%2F%40%3A@broker/", (Host("broker", 5672, "n@va", "p/@:"),), "/"),
        ("rabbit://nova@broker/", (Host("broker", 5672, "nova", ""),), "/"),
        ("rabbit://nova:pw@[::1]:5673/", (Host("::1", 5673, "nova", "pw"),), "/"),
        (
            "rabbit://a:1@one:5672,b:2@two:5673,three/v",
            (Host("one", 5672, "a", "1"), Host("two", 5673, "b", "2"), Host("three")),
            "v",
        ),
    ],
)
def test_a_rabbit_url_is_read_as_oslo_messaging_reads_it(url: str, hosts: tuple[Host, ...], virtual_host: str) -> None:
    found = parse_rabbit_url(url)
    assert (found.hosts, found.virtual_host, found.tls) == (hosts, virtual_host, None)


@pytest.mark.parametrize(
    "url",
    ["rabbit://nova:s3cret@broker:port/", "rabbit://nova:s3cret@/", "rabbit://nova:s3cret@one,,two/", "rabbit://nova:s3cret@[::1/"],
)
def test_a_wrong_rabbit_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_rabbit_url(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_tls_is_asked_for_by_an_option_and_checks_the_name_of_the_broker() -> None:
    tls = parse_rabbit_url("rabbit://broker/?ssl=true").tls
    assert tls is not None
    assert tls.context().check_hostname


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sssl=1", "unknown option sssl; known: ssl,"),
        ("ssl=maybe", "neither true nor false"),
        ("ssl=1&ssl_version=TLSv1", "ssl_version is 'TLSv1'; wanted: TLSv1_2"),
    ],
)
def test_a_wrong_option_is_named(query: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        parse_rabbit_url(f"rabbit://broker/?{query}")


def test_a_parsed_url_shows_no_password_in_its_repr() -> None:
    assert "s3cret" not in repr(parse_rabbit_url("rabbit://nova:s3cret@broker,cinder:s3cret@two/"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rabbit://nova:pw@h:1/v", "rabbit://nova:***@h:1/v"),
        ("rabbit://a:1@h1,b:2@h2/v?ssl=true", "rabbit://a:***@h1,b:***@h2/v"),
        ("rabbit://nova@h/v", "rabbit://nova@h/v"),
        ("rabbit://h/v", "rabbit://h/v"),
        ("rabbit://nova:p@w@h/v", "rabbit://***@h/v"),
        ("rabbit://nova:p/w@h/v", "rabbit://***@h/v"),
        ("rabbit://nova:p@,w@h/v", "rabbit://***@h/v"),
        ("rabbit://nova:1,2@h/v", "rabbit://***@h/v"),
        ("kombu+redis://:pw@h:6379/0", "kombu+redis://:***@h:6379/0"),
        ("kombu+filesystem:///var/lib/bus@home", "kombu+filesystem:///var/lib/bus@home"),
        ("rabbit:///nova:pw@h/v", "rabbit://***@h/v"),
        ("memory://one", "memory://one"),
        ("nonsense?password=pw", "nonsense"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@settings(max_examples=1000)
@given(st.text(alphabet=st.sampled_from("ab05@:/,?#%[]."), min_size=0, max_size=20))
def test_no_password_however_written_is_shown(noise: str) -> None:
    secret = f"Q{noise}Z"
    shown = without_password(f"rabbit://nova:{secret}@broker/v")
    assert not any(piece in shown for piece in (secret, f"Q{noise}", "Q", "Z@")), shown


@pytest.mark.parametrize("url", ["", "amqps://h/", "fake://", "rabbit", "RABBIT://h", "kombu://h", "kafka://h"])
async def test_an_unknown_scheme_is_refused_and_the_known_ones_are_named(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        await open_transport(url, clock=SystemClock(), connection_name="test")
    for scheme in ("memory://", "rabbit://", "kombu+filesystem://"):
        assert scheme in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kombu+filesystem://relative/folder", "names no folder"),
        ("kombu+filesystem://", "names no folder"),
        ("kombu+filesystem:///", "names no folder"),
        ("kombu+pyamqp://nova:s3cret@h/", "rabbit://"),
        ("kombu+nosuch://nova:s3cret@h/", "nosuch"),
        ("memory://one", "one process"),
    ],
)
async def test_a_url_that_cannot_serve_is_refused_with_the_reason(url: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as caught:
        await open_transport(url, clock=SystemClock(), connection_name="test")
    assert "s3cret" not in str(caught.value)


async def test_memory_of_one_name_is_one_bus() -> None:
    buses = MemoryBuses(SystemClock())
    opened = [
        await open_transport(f"memory://{name}", clock=SystemClock(), connection_name="test", buses=buses)
        for name in ("a", "a", "b")
    ]
    assert opened[0].url == "memory://a"
    assert buses.bus("a") is buses.bus("a")
    assert buses.bus("a") is not buses.bus("b")
    for transport in opened:
        await transport.close()


async def test_a_relative_part_of_a_folder_is_taken_as_it_is_written(tmp_path: Path) -> None:
    transport = await open_transport(f"kombu+filesystem://{tmp_path}/with%20blank", clock=SystemClock(), connection_name="test")
    await transport.close()
    assert (tmp_path / "with blank" / "messages").is_dir()
