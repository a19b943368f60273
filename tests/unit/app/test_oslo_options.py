"""oslo.messaging's options as operators write them, and what they mean here."""

from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

from cinder_lite.config import load_cinder
from common.app.config_sample import sample
from common.app.oslo_options import BusOptions, oslo_sections, program_name
from common.base.errors import Misconfigured
from common.host.queue_names import StableNames
from common.rpc.options import RpcOptions
from common.transport.rabbit_settings import RabbitSettings, Steps, Tls
from nova_lite.config import NovaConfig, load_nova, nova_sections
from tests.support.oslo import OPTIONS

OPERATORS = Path(__file__).with_name("files") / "operators_nova.conf"

Nova = Callable[..., NovaConfig]


@pytest.fixture
def nova(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nova:
    monkeypatch.chdir(tmp_path)

    def nova(rabbit: str = "", *, url: str = "rabbit://u:s3cret@h/v", more: str = "") -> NovaConfig:
        Path("nova.conf").write_text(f"[DEFAULT]\ntransport_url = {url}\n[oslo_messaging_rabbit]\n{rabbit}\n{more}\n")
        return load_nova([Path("nova.conf")], overrides={"DEFAULT": {"state_path": str(tmp_path)}})

    return nova


def refusal(nova: Nova, rabbit: str = "", *, url: str = "rabbit://u:s3cret@h/v") -> str:
    with pytest.raises(Misconfigured) as caught:
        nova(rabbit, url=url)
    assert "s3cret" not in str(caught.value)
    return str(caught.value).removeprefix("Configuration: ")


# oslo.messaging's own list ----------------------------------------------------------------------------------------------


def described(opt: cfg.Opt) -> tuple[object, ...]:
    kind = opt.type
    limits = tuple(getattr(kind, name, None) for name in ("min", "max"))
    choices = getattr(kind, "choices", None)
    return type(opt).__name__, type(kind).__name__, limits, tuple(choices) if choices else None, opt.default


OURS = {(section.name, opt.name): opt for section in nova_sections() for opt in section.options}
OLDER = {("oslo_messaging_rabbit", "heartbeat_in_pthread")}


@pytest.mark.parametrize("where", [*OPTIONS], ids=".".join)
def test_every_option_of_oslo_messaging_is_known_with_its_type_limits_and_default(where: tuple[str, str]) -> None:
    theirs, ours = OPTIONS[where], OURS[where]
    if where[0] != "DEFAULT":  # the bus without a broker is ours, and so are its defaults
        assert described(ours) == described(theirs)
    assert bool(ours.secret) >= bool(theirs.secret)
    assert {old.name for old in theirs.deprecated_opts} <= {old.name for old in ours.deprecated_opts}


def test_no_option_is_known_that_oslo_messaging_has_not_or_had() -> None:
    own = {where for where in OURS if where[0].startswith("oslo_messaging_")}
    assert own - OPTIONS.keys() == OLDER


def test_a_sample_shows_every_option_and_says_which_have_no_effect() -> None:
    text = sample(oslo_sections())
    assert "\n#rabbit_quorum_queue = false\n" in text
    assert "# Without effect here: a process publishes everything over one connection.\n" in text
    for section, name in OPTIONS:
        if section != "DEFAULT":
            assert f"[{section}]\n" in text
            assert f"\n#{name} =" in text


# An operator's file ------------------------------------------------------------------------------------------------------


def test_an_operators_nova_conf_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OPERATORS.parent)
    config = load_nova([Path(OPERATORS.name)])
    bus = config.common.bus
    assert bus.url == "rabbit://openstack:s3cret@10.0.0.2:5671,openstack:s3cret@10.0.0.3:5671,openstack:s3cret@10.0.0.4:5671//"
    assert bus.rabbit == RabbitSettings(
        tls=Tls(ca_file="/etc/ssl/certs/ca-certificates.crt"),
        retry=Steps(1, 2, 10),
        delay_s=0.5,
        splay_s=2.5,
        compression="gzip",
    )
    assert isinstance(bus.rpc.own_name, StableNames)
    assert bus.rpc == RpcOptions(
        control_exchange="nova",
        response_timeout_s=180,
        prefetch=32,
        ping_enabled=True,
        reply_retry_s=30,
        own_name=bus.rpc.own_name,
        durable=True,
        quorum_queue=True,
        transient_quorum_queue=True,
        stream_fanout=True,
        quorum_delivery_limit=20,
        transient_queues_ttl_s=1200,
    )
    assert config.warnings == (
        (
            "operators_nova.conf:36: [oslo_messaging_rabbit] kombu_reconnect_timeout is deprecated, "
            "use kombu_missing_consumer_retry_timeout"
        ),
        (
            "operators_nova.conf:22: [oslo_messaging_rabbit] heartbeat_in_pthread has no effect here: "
            "there are no threads for heartbeats, and oslo.messaging no longer has the option"
        ),
        (
            "operators_nova.conf:25: [oslo_messaging_rabbit] conn_pool_ttl has no effect here: "
            "a process publishes everything over one connection"
        ),
        "operators_nova.conf:15: [oslo_messaging_notifications] driver has no effect here: this version sends no notifications",
        "operators_nova.conf:14: [oslo_messaging_notifications] transport_url has no effect here: this version sends no notifications",
    )
    assert "s3cret" not in repr(config)


def test_cinder_takes_the_section_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "[DEFAULT]\ntransport_url = rabbit://h\nrpc_thread_pool_size = 7\n[oslo_messaging_rabbit]\nheartbeat_rate = 2\n"
    Path("cinder.conf").write_text(text)
    config = load_cinder([Path("cinder.conf")])
    assert (config.common.bus.rpc.control_exchange, config.common.bus.rpc.prefetch) == ("openstack", 7)
    assert config.warnings == (
        "cinder.conf:3: [DEFAULT] rpc_thread_pool_size is deprecated, use executor_thread_pool_size",
        (
            "cinder.conf:5: [oslo_messaging_rabbit] heartbeat_rate has no effect here: "
            "heartbeats are sent twice in heartbeat_timeout_threshold"
        ),
    )


def test_without_a_word_the_bus_is_as_oslo_messaging_has_it(nova: Nova) -> None:
    bus = nova().common.bus
    assert bus == BusOptions(
        "rabbit://u:s3cret@h/v",
        RabbitSettings(retry=Steps(1, 2, 30), delay_s=1.0),
        RpcOptions(control_exchange="nova"),
    )


def test_a_prefetch_of_oslo_messaging_does_not_make_a_server_do_one_request_at_a_time(nova: Nova) -> None:
    config = nova("rabbit_qos_prefetch_count = 1")
    assert config.common.bus.rpc.prefetch == 64
    assert config.warnings == (
        (
            "[oslo_messaging_rabbit] rabbit_qos_prefetch_count has no effect here: "
            "a server holds executor_thread_pool_size requests and acks them when they are done"
        ),
    )
    streams = "rabbit_qos_prefetch_count = 1\nrabbit_stream_fanout = true\nrabbit_transient_quorum_queue = true"
    assert nova(streams).warnings == ()


@pytest.mark.parametrize(
    ("word", "method"),
    [
        ("gzip", "gzip"),
        ("zlib", "gzip"),
        ("application/x-gzip", "gzip"),
        ("bz2", "bz2"),
        ("bzip2", "bz2"),
        ("application/x-bz2", "bz2"),
    ],
)
def test_compression_has_kombus_names_and_oslo_messagings(nova: Nova, word: str, method: str) -> None:
    assert nova(f"kombu_compression = {word}").common.bus.rabbit.compression == method


@pytest.mark.parametrize(("threshold", "heartbeat_s"), [(0, 0), (-5, 0), (30, 30), (100_000, 65_534)])
def test_heartbeats_may_be_off(nova: Nova, threshold: int, heartbeat_s: int) -> None:
    assert nova(f"heartbeat_timeout_threshold = {threshold}").common.bus.rabbit.heartbeat_s == heartbeat_s


@pytest.mark.parametrize(
    ("path", "name"),
    [("/opt/lite/bin/nova-lite", "nova-lite"), ("/opt/lite/nova_lite/__main__.py", "nova_lite"), ("", ""), ("-c", "-c")],
)
def test_stable_names_bear_the_programs_name(path: str, name: str) -> None:
    assert program_name(path) == name


# Contradictions ----------------------------------------------------------------------------------------------------------

AT = "[oslo_messaging_rabbit] "


@pytest.mark.parametrize(
    ("rabbit", "said"),
    [
        (
            "rabbit_ha_queues = true\nrabbit_quorum_queue = true",
            (
                "rabbit_ha_queues and rabbit_quorum_queue: a queue is mirrored or a quorum queue, not both; "
                "RabbitMQ since 3.0 ignores rabbit_ha_queues, so turn that off"
            ),
        ),
        (
            "rabbit_ha_queues = true\nrabbit_transient_quorum_queue = true",
            (
                "rabbit_ha_queues and rabbit_transient_quorum_queue: a queue is mirrored or a quorum queue, not both; "
                "RabbitMQ since 3.0 ignores rabbit_ha_queues, so turn that off"
            ),
        ),
        (
            "rabbit_quorum_queue = true\namqp_auto_delete = true",
            "rabbit_quorum_queue and amqp_auto_delete: no quorum queue deletes itself; turn one of them off",
        ),
        (
            "rabbit_stream_fanout = true\nrabbit_transient_quorum_queue = true",
            "rabbit_stream_fanout: RabbitMQ wants a limit for consumers of a stream; set rabbit_qos_prefetch_count to 1 or more",
        ),
        (
            "rabbit_stream_fanout = true\nrabbit_qos_prefetch_count = 1",
            "rabbit_stream_fanout: a stream is durable, and so is its exchange; turn rabbit_transient_quorum_queue on",
        ),
        ("rabbit_quorum_delivery_limit = -1", "rabbit_quorum_delivery_limit is -1; wanted: 1 or more, or 0 for no limit"),
        (
            "rabbit_login_method = RABBIT-CR-DEMO",
            "rabbit_login_method is RABBIT-CR-DEMO, which there is not here; wanted: PLAIN, AMQPLAIN, EXTERNAL",
        ),
        (
            "rabbit_login_method = EXTERNAL",
            "rabbit_login_method EXTERNAL: the broker knows us by our certificate; turn ssl on and set ssl_cert_file",
        ),
        ("kombu_compression = brotli", "kombu_compression is 'brotli'; wanted: gzip, bz2, or nothing"),
        (
            "ssl = true\nssl_version = TLSv1",
            "ssl_version is 'TLSv1'; wanted: TLSv1_2, TLSv1_3, or SSLv23 or nothing for the best that both sides know",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(nova: Nova, rabbit: str, said: str) -> None:
    assert refusal(nova, rabbit) == AT + said


def test_all_contradictions_are_told_at_once(nova: Nova) -> None:
    said = refusal(nova, "rabbit_stream_fanout = true\nkombu_compression = x")
    assert said.startswith("3 problems\n")
    assert said.count(AT) == 3


def test_a_value_out_of_oslo_messagings_range_is_told_with_its_place(nova: Nova) -> None:
    wanted = "found '5', wanted a number from 0 to 4.5"
    assert refusal(nova, "kombu_reconnect_delay = 5") == f"nova.conf:4: {AT}kombu_reconnect_delay: {wanted}"


# transport_url -----------------------------------------------------------------------------------------------------------


def test_an_option_in_transport_url_wins_over_the_section(nova: Nova) -> None:
    url = (
        "rabbit://u:s3cret@h/v?rabbit_quorum_queue=1&rabbit_transient_queues_ttl=60&kombu_failover_strategy=shuffle&conn_pool_ttl=5"
    )
    config = nova("rabbit_transient_queues_ttl = 90\namqp_durable_queues = true", url=url)
    bus = config.common.bus
    assert bus.url == "rabbit://u:s3cret@h/v"
    assert (bus.rpc.quorum_queue, bus.rpc.durable, bus.rpc.transient_queues_ttl_s) == (True, True, 60)
    assert bus.rabbit.failover == "shuffle"
    assert config.warnings == (
        "[DEFAULT] transport_url: option conn_pool_ttl has no effect here: a process publishes everything over one connection",
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rabbit_quorum=1", "option rabbit_quorum is none of [oslo_messaging_rabbit]"),
        ("rabbit_quorum_queue=perhaps", "option rabbit_quorum_queue is wrong; wanted true or false"),
        ("rabbit_interval_max=0", "option rabbit_interval_max is wrong; wanted an integer of at least 1"),
        ("kombu_failover_strategy=any", "option kombu_failover_strategy is wrong; wanted one of round-robin, shuffle"),
    ],
)
def test_a_wrong_option_in_transport_url_is_named(nova: Nova, query: str, said: str) -> None:
    assert refusal(nova, url=f"rabbit://u:s3cret@h/v?{query}") == f"transport_url rabbit://u:***@h/v: {said}"


@pytest.mark.parametrize(
    "url", ["rabbit://u:a?s3cret@h/v", "rabbit://u:a?s3cret=x@h/v", "rabbit://u:p@h/v?S3CRET=s3cret", "rabbit://h/?s3cret"]
)
def test_what_may_be_the_rest_of_a_password_is_not_repeated(nova: Nova, url: str) -> None:
    said = refusal(nova, url=url)
    assert "is not option=value&option=value; a '?' or '@' within a password is written %3F or %40" in said
    assert "S3CRET" not in said


def test_contradictions_count_what_transport_url_says(nova: Nova) -> None:
    assert "rabbit_ha_queues and rabbit_quorum_queue" in refusal(
        nova, "rabbit_ha_queues = 1", url="rabbit://h/?rabbit_quorum_queue=1"
    )


def test_another_bus_than_rabbitmq_is_told_that_the_section_is_not_for_it(nova: Nova, tmp_path: Path) -> None:
    config = nova("rabbit_quorum_queue = true\nkombu_compression = gzip", url=f"kombu+filesystem://{tmp_path}/bus")
    bus = config.common.bus
    assert bus.rpc == RpcOptions(control_exchange="nova")
    assert config.warnings == (
        "[oslo_messaging_rabbit] rabbit_quorum_queue, kombu_compression has no effect here: transport_url does not begin with rabbit:// or amqp://",
    )
