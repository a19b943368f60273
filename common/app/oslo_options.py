"""oslo.messaging's options under its own names, so that an operator's nova.conf says here what it says there.

Names, types, limits and defaults are those of oslo.messaging 18.3.1. Every option of its sections is known; those that can mean
nothing here are taken too, and a value that somebody chose for one of them is answered by a warning that says why.
Options of [oslo_messaging_rabbit] may also stand in the query part of transport_url and win there, as in oslo.messaging.
"""

import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
from oslo_config import cfg

from common.app.config import DEFAULT, Section, Settings
from common.app.config_files import Problem, misconfigured
from common.app.config_types import wanted
from common.base.errors import Misconfigured
from common.host.queue_names import StableNames, names_folder
from common.rpc.options import RpcOptions
from common.transport.rabbit_settings import LoginMethod, RabbitSettings, Steps, Tls, tls_version
from common.transport.rabbit_url import SCHEMES, split_options, without_password
from common.wire.compression import Compression

RABBIT = "oslo_messaging_rabbit"
NOTIFICATIONS = "oslo_messaging_notifications"
METRICS = "oslo_messaging_metrics"
TRACING = "oslo_messaging_tracing"

_HEARTBEAT_S_MAX = 65_534
"""AMQP's Connection.Tune holds 16 bits, and the driver takes the largest number for 0."""

_ONE_CONNECTION = "a process publishes everything over one connection"
_IDLE = {
    "rpc_conn_pool_size": _ONE_CONNECTION,
    "conn_pool_min_size": _ONE_CONNECTION,
    "conn_pool_ttl": _ONE_CONNECTION,
    "ssl_enforce_hostname_verification": "with ssl the broker's name is always checked, as in oslo.messaging since 18",
    "ssl_enforce_fips_mode": "OpenSSL 3 has no such switch, as in oslo.messaging since 18",
    "heartbeat_rate": "heartbeats are sent twice in heartbeat_timeout_threshold",
    "heartbeat_in_pthread": "there are no threads for heartbeats, and oslo.messaging no longer has the option",
}
"""Option of [oslo_messaging_rabbit] -> why it has no effect."""


@dataclass(frozen=True, slots=True)
class BusOptions:
    """What the configuration means for the bus.

    url        transport_url without the options in its query part, which are in `rabbit` and `rpc`
    warnings   what has no effect and was not told with file and line
    """

    url: str = field(repr=False)
    rabbit: RabbitSettings
    rpc: RpcOptions
    warnings: tuple[str, ...] = ()


def oslo_sections() -> tuple[Section, ...]:
    """[oslo_messaging_*], for `load` and for a sample."""
    return (
        Section(RABBIT, rabbit_options(), help="RabbitMQ, where transport_url begins with rabbit:// or amqp://.", idle=_IDLE),
        _idle_section(NOTIFICATIONS, _notification_options(), "this version sends no notifications"),
        _idle_section(METRICS, _metrics_options(), "nothing is sent to oslo.metrics"),
        _idle_section(TRACING, _tracing_options(), "this version exports no traces"),
    )


def read_bus(settings: Settings, *, state_path: Path) -> BusOptions:
    """What [DEFAULT], [oslo_messaging_rabbit] and the query part of transport_url mean together.

    state_path   where locks of stable queue names go on a machine without /dev/shm
    Raises Misconfigured for options that contradict each other, and for a query part that is wrong.
    """
    process = settings.read(DEFAULT, _Process)
    plain = RpcOptions(
        control_exchange=process.control_exchange,
        response_timeout_s=process.rpc_response_timeout,
        prefetch=process.executor_thread_pool_size,
        ping_enabled=process.rpc_ping_enabled,
    )
    if not process.transport_url.startswith(SCHEMES):
        # A bus in a folder has no quorum queues, and what is one stream on RabbitMQ would be one queue there.
        return BusOptions(process.transport_url, RabbitSettings(), plain, tuple(_idle_without_rabbit(settings)))
    url, query = split_options(process.transport_url)
    given = _converted(query, without_password(url))
    rabbit = msgspec.convert({**settings.values[RABBIT], **given}, _Rabbit)
    if problems := [Problem(f"[{RABBIT}] {text}") for text in (*_queue_problems(rabbit), *_connection_problems(rabbit))]:
        raise misconfigured(problems)
    warnings = (*_idle_in_url(given), *_idle_prefetch(rabbit))
    return BusOptions(url, _rabbit_settings(rabbit), _rpc_options(plain, rabbit, state_path), warnings)


@dataclass(frozen=True, slots=True)
class _Process:
    """What [DEFAULT] says about the bus."""

    transport_url: str
    control_exchange: str
    rpc_response_timeout: float
    executor_thread_pool_size: int
    rpc_ping_enabled: bool


@dataclass(frozen=True, slots=True)
class _Rabbit:
    """The options of [oslo_messaging_rabbit] that have an effect."""

    amqp_durable_queues: bool
    amqp_auto_delete: bool
    ssl: bool
    ssl_version: str
    ssl_key_file: str
    ssl_cert_file: str
    ssl_ca_file: str
    kombu_reconnect_delay: float
    kombu_reconnect_splay: float
    kombu_compression: str | None
    kombu_missing_consumer_retry_timeout: int
    kombu_failover_strategy: Literal["round-robin", "shuffle"]
    rabbit_login_method: str
    rabbit_retry_interval: int
    rabbit_retry_backoff: int
    rabbit_interval_max: int
    rabbit_ha_queues: bool
    rabbit_quorum_queue: bool
    rabbit_transient_quorum_queue: bool
    rabbit_quorum_delivery_limit: int
    rabbit_quorum_max_memory_length: int
    rabbit_quorum_max_memory_bytes: int
    rabbit_transient_queues_ttl: int
    rabbit_qos_prefetch_count: int
    heartbeat_timeout_threshold: int
    direct_mandatory_flag: bool
    enable_cancel_on_failover: bool
    use_queue_manager: bool
    hostname: str
    processname: str
    rabbit_stream_fanout: bool


_SASL: Mapping[str, LoginMethod] = {"PLAIN": "PLAIN", "AMQPLAIN": "AMQPLAIN", "EXTERNAL": "EXTERNAL"}
_COMPRESSIONS: Mapping[str, Compression | None] = {
    "": None,
    "gzip": "gzip",
    "zlib": "gzip",
    "application/x-gzip": "gzip",
    "bz2": "bz2",
    "bzip2": "bz2",
    "bzip": "bz2",
    "application/x-bz2": "bz2",
}
"""kombu's words for the two, and bz2, which oslo.messaging's help says and kombu does not know."""


def _queue_problems(rabbit: _Rabbit) -> Iterator[str]:
    """What a broker would answer with 406, or oslo.messaging with a RuntimeError."""
    quorum = [name for name in ("rabbit_quorum_queue", "rabbit_transient_quorum_queue") if getattr(rabbit, name)]
    if rabbit.rabbit_ha_queues and quorum:
        yield (
            f"rabbit_ha_queues and {' and '.join(quorum)}: a queue is mirrored or a quorum queue, not both; "
            "RabbitMQ since 3.0 ignores rabbit_ha_queues, so turn that off"
        )
    if rabbit.rabbit_quorum_queue and rabbit.amqp_auto_delete:
        yield "rabbit_quorum_queue and amqp_auto_delete: no quorum queue deletes itself; turn one of them off"
    if rabbit.rabbit_stream_fanout and rabbit.rabbit_qos_prefetch_count <= 0:
        yield "rabbit_stream_fanout: RabbitMQ wants a limit for consumers of a stream; set rabbit_qos_prefetch_count to 1 or more"
    if rabbit.rabbit_stream_fanout and not rabbit.rabbit_transient_quorum_queue:
        yield "rabbit_stream_fanout: a stream is durable, and so is its exchange; turn rabbit_transient_quorum_queue on"
    for name in ("rabbit_quorum_delivery_limit", "rabbit_quorum_max_memory_length", "rabbit_quorum_max_memory_bytes"):
        if getattr(rabbit, name) < 0:
            yield f"{name} is {getattr(rabbit, name)}; wanted: 1 or more, or 0 for no limit"


def _connection_problems(rabbit: _Rabbit) -> Iterator[str]:
    if rabbit.rabbit_login_method not in _SASL:
        yield f"rabbit_login_method is {rabbit.rabbit_login_method}, which there is not here; wanted: {', '.join(_SASL)}"
    if rabbit.rabbit_login_method == "EXTERNAL" and not rabbit.ssl:
        yield "rabbit_login_method EXTERNAL: the broker knows us by our certificate; turn ssl on and set ssl_cert_file"
    if (rabbit.kombu_compression or "") not in _COMPRESSIONS:
        yield f"kombu_compression is {rabbit.kombu_compression!r}; wanted: gzip, bz2, or nothing"


def _rabbit_settings(rabbit: _Rabbit) -> RabbitSettings:
    tls = (
        Tls(tls_version(rabbit.ssl_version), rabbit.ssl_ca_file, rabbit.ssl_cert_file, rabbit.ssl_key_file) if rabbit.ssl else None
    )
    return RabbitSettings(
        login_method=_SASL[rabbit.rabbit_login_method],
        tls=tls,
        heartbeat_s=min(max(rabbit.heartbeat_timeout_threshold, 0), _HEARTBEAT_S_MAX),
        failover=rabbit.kombu_failover_strategy,
        retry=Steps(rabbit.rabbit_retry_interval, rabbit.rabbit_retry_backoff, rabbit.rabbit_interval_max),
        delay_s=rabbit.kombu_reconnect_delay,
        splay_s=rabbit.kombu_reconnect_splay,
        compression=_COMPRESSIONS[rabbit.kombu_compression or ""],
    )


def _rpc_options(plain: RpcOptions, rabbit: _Rabbit, state_path: Path) -> RpcOptions:
    names = StableNames(names_folder(state_path), hostname=rabbit.hostname, processname=rabbit.processname)
    return replace(
        plain,
        replies_mandatory=rabbit.direct_mandatory_flag,
        reply_retry_s=max(rabbit.kombu_missing_consumer_retry_timeout, 0),
        own_name=names if rabbit.use_queue_manager else plain.own_name,
        durable=rabbit.amqp_durable_queues,
        auto_delete=rabbit.amqp_auto_delete,
        ha_queues=rabbit.rabbit_ha_queues,
        quorum_queue=rabbit.rabbit_quorum_queue,
        transient_quorum_queue=rabbit.rabbit_transient_quorum_queue,
        quorum_delivery_limit=rabbit.rabbit_quorum_delivery_limit,
        quorum_max_memory_length=rabbit.rabbit_quorum_max_memory_length,
        quorum_max_memory_bytes=rabbit.rabbit_quorum_max_memory_bytes,
        transient_queues_ttl_s=rabbit.rabbit_transient_queues_ttl,
        stream_fanout=rabbit.rabbit_stream_fanout,
        cancel_on_failover=rabbit.enable_cancel_on_failover,
    )


def _converted(query: Mapping[str, str], shown: str) -> dict[str, Any]:
    """The options of a URL's query part, typed. Raises Misconfigured, and says no value: it may be anything."""
    options = {opt.dest: opt for opt in rabbit_options()}
    found: dict[str, Any] = {}
    for name, value in query.items():
        if name not in options:
            raise Misconfigured(reason=f"transport_url {shown}: option {name} is none of [{RABBIT}]")
        try:
            found[name] = options[name].type(value)
        except ValueError:
            raise Misconfigured(reason=f"transport_url {shown}: option {name} is wrong; wanted {wanted(options[name])}") from None
    return found


def _idle_in_url(given: Mapping[str, Any]) -> Iterator[str]:
    for opt in rabbit_options():
        if opt.dest in _IDLE and given.get(opt.dest, opt.default) != opt.default:
            yield f"[{DEFAULT}] transport_url: option {opt.dest} has no effect here: {_IDLE[opt.dest]}"


def _idle_prefetch(rabbit: _Rabbit) -> Iterator[str]:
    if rabbit.rabbit_qos_prefetch_count > 0 and not rabbit.rabbit_stream_fanout:
        why = "a server holds executor_thread_pool_size requests and acks them when they are done"
        yield f"[{RABBIT}] rabbit_qos_prefetch_count has no effect here: {why}"


def _idle_without_rabbit(settings: Settings) -> Iterator[str]:
    chosen = [opt.dest for opt in rabbit_options() if opt.dest not in _IDLE and settings.values[RABBIT][opt.dest] != opt.default]
    if chosen:
        yield f"[{RABBIT}] {', '.join(chosen)} has no effect here: transport_url does not begin with rabbit:// or amqp://"


def _idle_section(name: str, options: tuple[cfg.Opt, ...], why: str) -> Section:
    return Section(
        name, options, help=f"Options of oslo.messaging without an effect here: {why}.", idle={opt.dest: why for opt in options}
    )


def rabbit_options() -> tuple[cfg.Opt, ...]:
    """The options of [oslo_messaging_rabbit], in oslo.messaging's terms."""
    return (*_queue_options(), *_name_options(), *_connection_options(), *_tls_options(), *_reply_options(), *_pool_options())


def _queue_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt(
            "amqp_durable_queues",
            default=False,
            help="Topic exchanges and topic and server queues outlive a restart of the broker.",
        ),
        cfg.BoolOpt(
            "amqp_auto_delete", default=False, help="Topic exchanges and topic and server queues go when nobody uses them any more."
        ),
        cfg.BoolOpt("rabbit_ha_queues", default=False, help="Queues get x-ha-policy: all, which RabbitMQ since 3.0 ignores."),
        cfg.BoolOpt("rabbit_quorum_queue", default=False, help="Topic and server queues are quorum queues, and durable."),
        cfg.BoolOpt(
            "rabbit_transient_quorum_queue",
            default=False,
            help="Reply and fanout queues are quorum queues, and fanout exchanges durable.",
        ),
        cfg.IntOpt(
            "rabbit_quorum_delivery_limit",
            default=0,
            help="A quorum queue gives a message at most so often and then drops it; 0: no limit. A service that drains gives back "
            "what it could not begin, which counts.",
        ),
        cfg.IntOpt("rabbit_quorum_max_memory_length", default=0, help="Most messages of a quorum queue in memory; 0: no limit."),
        cfg.IntOpt("rabbit_quorum_max_memory_bytes", default=0, help="Most bytes of a quorum queue in memory; 0: no limit."),
        cfg.IntOpt(
            "rabbit_transient_queues_ttl",
            default=1800,
            min=0,
            help="Seconds after which reply and fanout queues that nobody consumes are deleted, and messages of a fanout stream; 0: never.",
        ),
        cfg.BoolOpt(
            "rabbit_stream_fanout",
            default=False,
            help="One stream for each topic instead of a fanout queue for each server. It wants rabbit_qos_prefetch_count and "
            "rabbit_transient_quorum_queue.",
        ),
        cfg.BoolOpt(
            "enable_cancel_on_failover",
            default=False,
            help="Consumers are told when their mirrored queue moves to another node, and begin again.",
        ),
        cfg.IntOpt(
            "rabbit_qos_prefetch_count",
            default=0,
            help="Only rabbit_stream_fanout asks for it, as in oslo.messaging. It limits nothing: a server holds "
            "executor_thread_pool_size requests, which it acks when they are done, so that a 1 would make it do one at a time.",
        ),
    )


def _name_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt(
            "use_queue_manager",
            default=False,
            help="Reply and fanout queues have names that come back after a restart: hostname:processname:number. "
            "Numbers are locks in /dev/shm, or in state_path on a machine without it.",
        ),
        cfg.StrOpt(
            "hostname", default=socket.gethostname(), sample_default="<this machine's host name>", help="First part of those names."
        ),
        cfg.StrOpt(
            "processname",
            default=program_name(sys.argv[0]),
            sample_default="<name of the program>",
            help="Second part of those names.",
        ),
    )


def program_name(path: str) -> str:
    """The last part of a program's path, as oslo.messaging has it; of a package run by `python -m`, the package's name."""
    program = Path(path)
    return program.parent.name if program.name == "__main__.py" else program.name


def _connection_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            "rabbit_login_method",
            default="AMQPLAIN",
            choices=("PLAIN", "AMQPLAIN", "EXTERNAL", "RABBIT-CR-DEMO"),
            help="How to log in. AMQPLAIN is done as PLAIN, which RabbitMQ offers beside it; EXTERNAL is by our certificate.",
        ),
        cfg.IntOpt(
            "heartbeat_timeout_threshold", default=60, help="Seconds of silence after which the broker is taken for dead; 0: never."
        ),
        cfg.IntOpt("heartbeat_rate", default=3, help="How often the connection is checked in that time."),
        cfg.BoolOpt("heartbeat_in_pthread", default=False, help="An option of oslo.messaging until 17, which many files have."),
        cfg.IntOpt("rabbit_retry_interval", default=1, min=1, help="Seconds between the first two attempts to connect."),
        cfg.IntOpt("rabbit_retry_backoff", default=2, min=0, help="Seconds that are added after each attempt."),
        cfg.IntOpt("rabbit_interval_max", default=30, min=1, help="Most seconds between two attempts."),
        cfg.FloatOpt(
            "kombu_reconnect_delay",
            default=1.0,
            min=0.0,
            max=4.5,
            help="Seconds before a lost connection is made again, and a consumer that the broker ended begins again.",
        ),
        cfg.FloatOpt("kombu_reconnect_splay", default=0.0, min=0.0, help="At most so many seconds more, by chance."),
        cfg.StrOpt(
            "kombu_failover_strategy",
            default="round-robin",
            choices=("round-robin", "shuffle"),
            help="Which host of transport_url comes after one that was lost. Their order is shuffled once in any case.",
        ),
        cfg.StrOpt("kombu_compression", help="Bodies that are sent are compressed: gzip or bz2. What is received may always be."),
    )


def _tls_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt("ssl", default=False, help="TLS. The broker's certificate and name are checked in any case."),
        cfg.StrOpt(
            "ssl_version", default="", help="Empty or SSLv23: the best that both sides know; otherwise TLSv1_2 or TLSv1_3 only."
        ),
        cfg.StrOpt("ssl_key_file", default="", help="Key of our certificate; empty: it is in ssl_cert_file."),
        cfg.StrOpt("ssl_cert_file", default="", help="Our certificate, for brokers that want one."),
        cfg.StrOpt("ssl_ca_file", default="", help="Authorities that may vouch for the broker; empty: the system's."),
        cfg.BoolOpt("ssl_enforce_hostname_verification", default=True, help="Check the broker's name."),
        cfg.BoolOpt("ssl_enforce_fips_mode", default=False, help="OpenSSL's FIPS mode."),
    )


def _reply_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.IntOpt(
            "kombu_missing_consumer_retry_timeout",
            default=60,
            deprecated_name="kombu_reconnect_timeout",
            help="Seconds that a reply is tried to a queue that is not there.",
        ),
        cfg.BoolOpt("direct_mandatory_flag", default=True, help="A reply to a queue that is not there is an error at its sender."),
    )


def _pool_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.IntOpt("rpc_conn_pool_size", default=30, min=1, help="Most connections that publish."),
        cfg.IntOpt("conn_pool_min_size", default=2, help="Connections that are kept."),
        cfg.IntOpt("conn_pool_ttl", default=1200, help="Seconds that the others are kept."),
    )


def _notification_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.MultiStrOpt("driver", default=[], help="Drivers that notifications are sent by."),
        cfg.StrOpt("transport_url", secret=True, help="Another bus for notifications."),
        cfg.ListOpt("topics", default=["notifications"], help="Topics that notifications are sent to."),
        cfg.IntOpt("retry", default=-1, help="How often sending is tried again; -1: for ever."),
        cfg.StrOpt("routing_config", default="", help="File of the routing driver."),
    )


def _metrics_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt("metrics_enabled", default=False, help="Send measurements to oslo.metrics."),
        cfg.IntOpt("metrics_buffer_size", default=1000, help="Measurements that are kept."),
        cfg.StrOpt("metrics_socket_file", default="/var/tmp/metrics_collector.sock", help="Its socket."),  # noqa: S108 - oslo's
        cfg.StrOpt("metrics_process_name", default="", help="Name of this process there."),
        cfg.IntOpt("metrics_thread_stop_timeout", default=10, help="Seconds that the sending thread may take to end."),
    )


def _tracing_options() -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt("tracing_enabled", default=False, help="Export traces by OpenTelemetry."),
        cfg.StrOpt("tracing_service_name", default="openstack", help="Name of this service there."),
        cfg.StrOpt("otel_exporter_otlp_endpoint", default="http://localhost:4318", help="Where to."),
        cfg.StrOpt("otlp_protocol", default="http/protobuf", choices=("http/protobuf", "grpc"), help="How."),
        cfg.BoolOpt("insecure", default=False, help="Without TLS."),
    )
