"""How connections are made, tried again and secured."""

import random
import ssl
from pathlib import Path

import pytest

from common.base.errors import Misconfigured
from common.transport.rabbit_settings import RabbitSettings, Steps, Tls, shuffled, tls_version

HOSTS = ("one", "two", "three")


def test_pauses_grow_by_steps_as_kombus_do() -> None:
    steps = Steps(first_s=1, step_s=2, max_s=6)
    assert [steps.pause_s(failures) for failures in range(1, 6)] == [1, 3, 5, 6, 6]
    assert Steps().pause_s(10_000_000) == 2.0


def test_a_lost_connection_waits_for_its_delay_and_a_part_of_the_splay() -> None:
    assert RabbitSettings().delay_before_again_s(random.Random(1)) == 0.0
    assert RabbitSettings(delay_s=1.5).delay_before_again_s(random.Random(1)) == 1.5
    delays = [RabbitSettings(delay_s=1.0, splay_s=2.0).delay_before_again_s(random.Random(seed)) for seed in range(200)]
    assert 1.0 <= min(delays) < 1.1
    assert 2.9 < max(delays) <= 3.0


def test_round_robin_begins_after_the_host_that_was_lost() -> None:
    settings = RabbitSettings()
    assert settings.order(HOSTS, 0, random.Random(1)) == ["one", "two", "three"]
    assert settings.order(HOSTS, 2, random.Random(1)) == ["three", "one", "two"]
    assert settings.order(HOSTS, 3, random.Random(1)) == ["one", "two", "three"]


def test_shuffle_begins_anywhere_and_leaves_no_host_out() -> None:
    orders = [RabbitSettings(failover="shuffle").order(HOSTS, 0, random.Random(seed)) for seed in range(50)]
    assert {order[0] for order in orders} == set(HOSTS)
    assert all(sorted(order) == sorted(HOSTS) for order in orders)


def test_hosts_are_shuffled_without_loss() -> None:
    assert {next(iter(shuffled(HOSTS, random.Random(seed)))) for seed in range(50)} == set(HOSTS)


@pytest.mark.parametrize(
    ("text", "version"),
    [("", None), ("SSLv23", None), ("TLSv1_2", ssl.TLSVersion.TLSv1_2), ("tlsv1_3", ssl.TLSVersion.TLSv1_3)],
)
def test_a_version_of_tls_may_be_asked_for(text: str, version: ssl.TLSVersion | None) -> None:
    assert tls_version(text) == version
    context = Tls(tls_version(text)).context()
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    if version is not None:
        assert context.minimum_version == context.maximum_version == version


@pytest.mark.parametrize("text", ["SSLv2", "SSLv3", "TLSv1", "TLSv1_1", "x"])
def test_a_forbidden_version_of_tls_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match=f"ssl_version is '{text}'; wanted: TLSv1_2"):
        tls_version(text)


def test_certificate_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"\(/no/such/ca\.pem\): No such file"):
        Tls(ca_file="/no/such/ca.pem").context()
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(Misconfigured, match=r"certificate files of the message bus \(.*cert\.pem\)"):
        Tls(cert_file=str(tmp_path / "cert.pem")).context()
