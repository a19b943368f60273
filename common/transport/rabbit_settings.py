"""How RabbitMQ is connected to: what [oslo_messaging_rabbit] says about connections, and the decisions that follow from it."""

import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from common.base.errors import Misconfigured
from common.base.retry import Retry
from common.wire.compression import Compression

T = TypeVar("T")

STREAM_OFFSET = "x-stream-offset"
"""Of a subscription: where a stream is read from; of a delivery: which message it is. Source: rabbitmq.com/docs/streams, "Consuming"."""

LoginMethod = Literal["PLAIN", "AMQPLAIN", "EXTERNAL"]
"""SASL mechanisms. The driver has no AMQPLAIN; PLAIN sends the same name and password, and RabbitMQ takes both unless told not to."""

_TLS_VERSIONS = {"": None, "sslv23": None, "tlsv1_2": ssl.TLSVersion.TLSv1_2, "tlsv1_3": ssl.TLSVersion.TLSv1_3}
"""What ssl_version may say, in lower case; older ones are forbidden (RFC 8996)."""


def tls_version(text: str) -> ssl.TLSVersion | None:
    """The only version of TLS that ssl_version lets be; None: the best that both sides know. Raises Misconfigured."""
    try:
        return _TLS_VERSIONS[text.lower()]
    except KeyError:
        wanted = "TLSv1_2, TLSv1_3, or SSLv23 or nothing for the best that both sides know"
        raise Misconfigured(reason=f"[oslo_messaging_rabbit] ssl_version is {text!r}; wanted: {wanted}") from None


@dataclass(frozen=True, slots=True)
class Steps:
    """rabbit_retry_interval, then rabbit_retry_backoff more each time, at most rabbit_interval_max, as kombu counts.

    The defaults find a broker that comes back within two seconds.
    """

    first_s: float = 0.1
    step_s: float = 0.2
    max_s: float = 2.0

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row, >= 1."""
        return min(self.first_s + (failures - 1) * self.step_s, self.max_s)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with the broker.

    version   the only one that is taken; None: the best that both sides know
    ca_file   ssl_ca_file; empty: the system's authorities
    """

    version: ssl.TLSVersion | None = None
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """What a connection needs. The broker's certificate and name are checked in any case. Raises Misconfigured."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except OSError as exc:
            files = ", ".join(file for file in (self.ca_file, self.cert_file, self.key_file) if file)
            raise Misconfigured(reason=f"the certificate files of the message bus ({files}): {exc.strerror or exc}") from exc
        if self.version is not None:
            context.minimum_version = context.maximum_version = self.version
        return context


@dataclass(frozen=True, slots=True)
class RabbitSettings:
    """How connections to RabbitMQ are made. The defaults are for a process without a configuration, which may be impatient.

    tls             None: plain TCP
    heartbeat_s     silence after which the peer is taken for dead; 0: never
    failover        which host comes after one that was lost; several hosts are shuffled once, so that not all clients of a
                    cluster are at its first node
    retry           before connecting is tried again
    delay_s         before a lost connection is made again, and a consumer that the broker ended begins again
    splay_s         at most so much more, by chance: not all clients of a broker shall come back in the same moment
    compression     of the bodies that are sent; what is received is unpacked whatever this says
    """

    login_method: LoginMethod = "AMQPLAIN"
    tls: Tls | None = None
    heartbeat_s: int = 60
    failover: Literal["round-robin", "shuffle"] = "round-robin"
    retry: Steps = Steps()
    delay_s: float = 0.0
    splay_s: float = 0.0
    compression: Compression | None = None

    def delay_before_again_s(self, chance: random.Random) -> float:
        """Seconds to wait when something that worked has ended."""
        return self.delay_s + (chance.uniform(0.0, self.splay_s) if self.splay_s else 0.0)

    def order(self, hosts: Sequence[T], first: int, chance: random.Random) -> list[T]:
        """Each of the hosts once, in the order in which they are tried; round-robin begins with number `first`."""
        if self.failover == "shuffle":
            return shuffled(hosts, chance)
        first %= len(hosts)
        return [*hosts[first:], *hosts[:first]]


def shuffled(hosts: Sequence[T], chance: random.Random) -> list[T]:
    """The hosts in a new order."""
    return chance.sample(list(hosts), k=len(hosts))


_AGAIN = Retry(first_delay_s=0.1, delay_s_max=2.0)
"""What failed on a connection that is there; how often a connection is tried is said by RabbitSettings."""
_FAILURES_COUNTED_MAX = 10
"""By then the delay no longer grows, and its power of two is still a small number."""


def pause_s(failures: int) -> float:
    """Seconds to wait before something is tried again, after that many failures in a row."""
    return _AGAIN.delay_s(min(failures, _FAILURES_COUNTED_MAX))


def reason_of(exc: BaseException) -> str:
    """The broker's or the system's own words, without the driver's around them."""
    words = [str(word) for word in exc.args if isinstance(word, str)]
    return words[-1] if words else str(exc) or type(exc).__name__
