"""kombu's redis transport, on `common.transport.redis_store`. Needs redis-py (the extra `kombu-redis`)."""

from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.transport.kombu_store import ANSWER_TIMEOUT_S, Store, StoreChannel
from common.transport.redis_store import RedisStore

_KombuChannel: Any = kombu_redis.Channel
_KombuTransport: Any = kombu_redis.Transport
"""kombu's types say nothing."""


class RedisChannel(StoreChannel, _KombuChannel):  # type: ignore[misc]  # as said above
    """A kombu channel whose queues are a `RedisStore`'s."""

    socket_timeout = ANSWER_TIMEOUT_S
    socket_connect_timeout = ANSWER_TIMEOUT_S
    health_check_interval = 0
    expected_errors = (OSError, redis.RedisError)

    def open_store(self) -> Store:
        return RedisStore(redis.Redis(connection_pool=self.pool), prefix=f"{self.global_keyprefix}lite-bus:")

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Without retries: redis-py's would send a message twice, and wait longer than anybody here waits."""
        found: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        return {**found, "retry": Retry(NoBackoff(), 0)}


class RedisTransport(_KombuTransport):  # type: ignore[misc]  # as said above
    """What `kombu.Connection` is given instead of the name `redis`."""

    Channel = RedisChannel
