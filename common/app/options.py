"""The options that every process has: [DEFAULT], [database] and oslo.messaging's. Names and defaults are oslo's and nova's where they have them."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from oslo_config import cfg

from common.app.config import DEFAULT, Section, Settings
from common.app.config_types import matching, path_type
from common.app.oslo_options import BusOptions, oslo_sections, read_bus
from common.base.errors import Misconfigured
from common.base.limits import DRAIN_TIMEOUT_S, RPC_PREFETCH, RPC_RESPONSE_TIMEOUT_S

ADDRESS = r"(?:(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]*):)?(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
"""metrics_listen."""

BUILTIN = """\
Without any file everything lies in state_path and no other program is needed: the bus is a directory, the database a file.
"""


@dataclass(frozen=True, slots=True)
class _Default:
    """[DEFAULT] as every process has it; times are in seconds."""

    transport_url: str = field(repr=False)
    control_exchange: str
    host: str
    my_ip: str
    state_path: Path
    debug: bool
    log_format: Literal["console", "json"]
    rpc_response_timeout: float
    executor_thread_pool_size: int
    report_interval: float
    service_down_time: float
    graceful_shutdown_timeout: float
    enable_data_probe: bool
    metrics_listen: str
    tracing_enabled: bool


@dataclass(frozen=True, slots=True)
class CommonConfig(_Default):
    """[DEFAULT] as every process has it, times in seconds; and what it and [oslo_messaging_rabbit] mean for the bus."""

    bus: BusOptions = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """[database]"""

    connection: str = field(repr=False)


def common_sections(
    *, control_exchange: str, more: tuple[cfg.Opt, ...] = (), environ: Mapping[str, str] = os.environ
) -> tuple[Section, ...]:
    """[DEFAULT], with `more` options of a service, [database], and oslo.messaging's sections.

    control_exchange   the service's default: "nova", "openstack"
    """
    process = (*_bus(control_exchange), *_place(environ), *_logs(), *_life(), *_observability())
    connection = cfg.StrOpt(
        "connection",
        default="sqlite:///$state_path/lite.sqlite",
        secret=True,
        help="Where the database is, as SQLAlchemy writes it: sqlite, postgresql or mysql. nova and cinder may share one server.",
    )
    return (
        Section(DEFAULT, (*process, *more), help=BUILTIN.strip()),
        Section("database", (connection,), help="The database that this service keeps its state in."),
        *oslo_sections(),
    )


def read_common(settings: Settings) -> tuple[CommonConfig, DatabaseConfig]:
    """The sections of every process, typed. Raises Misconfigured when their values contradict each other."""
    mine = settings.read(DEFAULT, _Default)
    bus = read_bus(settings, state_path=mine.state_path)
    common = CommonConfig(**{option.name: getattr(mine, option.name) for option in fields(mine)}, bus=bus)
    if common.service_down_time <= common.report_interval:
        raise Misconfigured(
            reason=f"[{DEFAULT}] service_down_time is {common.service_down_time:g} s and report_interval "
            f"{common.report_interval:g} s: every service would be taken for dead; "
            "wanted: service_down_time of several times report_interval"
        )
    return common, settings.read("database", DatabaseConfig)


def _bus(control_exchange: str) -> tuple[cfg.Opt, ...]:
    return (
        cfg.StrOpt(
            "transport_url",
            default="kombu+filesystem://$state_path/bus",
            secret=True,
            help="Where the message bus is: rabbit://USER:PASSWORD@HOST:5672/VHOST, the same with amqp:// for the faster engine, or kombu+ before any URL that kombu knows.",
        ),
        cfg.StrOpt(
            "control_exchange",
            default=control_exchange,
            help="Exchange that this service's topics are on. Processes that are to hear each other need the same one.",
        ),
        cfg.FloatOpt(
            "rpc_response_timeout",
            default=RPC_RESPONSE_TIMEOUT_S,
            min=0.1,
            help="Seconds that a caller waits for a reply.",
        ),
        cfg.IntOpt(
            "executor_thread_pool_size",
            default=RPC_PREFETCH,
            min=1,
            deprecated_name="rpc_thread_pool_size",
            help="Requests that one server works on at once; the rest waits on the bus.",
        ),
        cfg.BoolOpt("rpc_ping_enabled", default=False, help="Servers answer oslo_rpc_server_ping, for monitoring."),
    )


def _place(environ: Mapping[str, str]) -> tuple[cfg.Opt, ...]:
    state_home = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return (
        cfg.Opt(
            "host",
            type=matching(r"[^\s@#*/]+", wanted="a name without blanks and without any of @ # * /"),
            default=socket.gethostname(),
            sample_default="<this machine's host name>",
            help="Name of this host on the bus and in the database. It stays the same for the life of the host.",
        ),
        cfg.HostAddressOpt(
            "my_ip",
            default=own_address(),
            sample_default="<the address that this machine's default route goes out from>",
            help="Address under which other hosts reach this one.",
        ),
        cfg.Opt(
            "state_path",
            type=path_type(),
            default=f"{state_home}/lite",
            sample_default="~/.local/state/lite",
            help="Directory for what the services keep on this host: machines, volumes, and bus and database unless they are elsewhere.",
        ),
    )


def _logs() -> tuple[cfg.Opt, ...]:
    return (
        cfg.BoolOpt("debug", default=False, help="Log more, and show tracebacks of our own bugs."),
        cfg.StrOpt(
            "log_format",
            default="console",
            choices=["console", "json"],
            help="Logs go to stderr, as lines for people or as one JSON object a line.",
        ),
        cfg.BoolOpt(
            "enable_data_probe",
            default=False,
            help="Lets clients read and write pattern bytes through machines and volumes. For demos and tests only.",
        ),
    )


def _life() -> tuple[cfg.Opt, ...]:
    return (
        cfg.FloatOpt("report_interval", default=10.0, min=0.1, help="Seconds between two signs of life of a service."),
        cfg.FloatOpt(
            "service_down_time",
            default=60.0,
            min=0.1,
            help="Seconds without a sign of life after which a service is taken for dead.",
        ),
        cfg.FloatOpt(
            "graceful_shutdown_timeout",
            default=DRAIN_TIMEOUT_S,
            min=0.0,
            help="Seconds that work in hand may take to end after SIGTERM; what is left then is taken up again after the next start.",
        ),
    )


def _observability() -> tuple[cfg.Opt, ...]:
    return (
        cfg.Opt(
            "metrics_listen",
            type=matching(ADDRESS, wanted="PORT, HOST:PORT or HOST:FIRST-LAST"),
            default="",
            help="Where Prometheus finds the metrics of RPC, http://HOST:PORT/metrics: HOST:PORT, or HOST:FIRST-LAST for processes "
            "that share a file; each takes the first port that is free, and logs it. HOST is the loopback unless it is given. "
            "Empty: nowhere.",
        ),
        cfg.BoolOpt(
            "tracing_enabled",
            default=False,
            help="Sends an OpenTelemetry span for every request to where the variables OTEL_... say. Needs the extra otel.",
        ),
    )


def own_address() -> str:
    """The address from which packets leave by the default route, as nova finds my_ip; 127.0.0.1 without such a route.

    Nothing is sent: connecting a UDP socket only asks the routing table. 192.0.2.1 is nobody's (RFC 5737).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
    return address
