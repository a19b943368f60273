"""What an operator can set about RPC, under oslo.messaging's names where it has one."""

from collections.abc import Callable
from dataclasses import dataclass

from common.base.ids import new_hex
from common.base.limits import (
    ANSWERS_BYTES_MAX,
    DUPLICATES_REMEMBERED,
    PUBLISH_TIMEOUT_S,
    REPLY_RETRY_S,
    RPC_DEATHS_LIMIT,
    RPC_DELIVERY_LIMIT,
    RPC_PREFETCH,
    RPC_RESPONSE_TIMEOUT_S,
    TRANSIENT_QUEUES_TTL_S,
)


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """Options of one connection. Peers that are to share queues need the same ones from `durable` on.

    control_exchange         exchange of contracts that name none
    response_timeout_s       rpc_response_timeout: how long a call waits when nobody says otherwise
    prefetch                 executor_thread_pool_size: requests of one server that are worked on at once
    duplicates_remembered    size of a server's window of `_unique_id`s (oslo.messaging: 16), and `answers_bytes` of their replies
    delivery_limit           times that a cast may fail in a way nobody foresaw
    deaths_limit             servers that may die with a request in hand before it is taken for poison
    reply_retry_s            kombu_missing_consumer_retry_timeout: how long a reply waits for its queue
    ping_enabled             rpc_ping_enabled: servers answer `oslo_rpc_server_ping`
    allowed_remote_exmods    modules whose exceptions a client rebuilds besides the faults of its contracts
    replies_mandatory        direct_mandatory_flag: a reply to a queue that is gone is an error at its sender
    own_name                 makes the part of a reply or fanout queue's name that no other process has; with use_queue_manager
                             one of this host's stable names

    durable, auto_delete     amqp_durable_queues, amqp_auto_delete: of topic exchanges and topic and server queues
    ha_queues                rabbit_ha_queues: `x-ha-policy` in every queue, which RabbitMQ since 3.0 ignores
    quorum_queue             rabbit_quorum_queue: topic and server queues are quorum queues, and durable
    transient_quorum_queue   rabbit_transient_quorum_queue: reply and fanout queues are, and fanout exchanges are durable
    quorum_*                 limits of quorum queues, 0: none
    transient_queues_ttl_s   rabbit_transient_queues_ttl: reply and fanout queues without consumers live so long, 0: for ever
    stream_fanout            rabbit_stream_fanout: one stream for each topic instead of a fanout queue for each server
    cancel_on_failover       enable_cancel_on_failover: consumers end when their mirrored queue moves to another node
    """

    control_exchange: str = "openstack"
    response_timeout_s: float = RPC_RESPONSE_TIMEOUT_S
    publish_timeout_s: float = PUBLISH_TIMEOUT_S
    prefetch: int = RPC_PREFETCH
    duplicates_remembered: int = DUPLICATES_REMEMBERED
    answers_bytes: int = ANSWERS_BYTES_MAX
    delivery_limit: int = RPC_DELIVERY_LIMIT
    deaths_limit: int = RPC_DEATHS_LIMIT
    reply_retry_s: float = REPLY_RETRY_S
    ping_enabled: bool = False
    allowed_remote_exmods: tuple[str, ...] = ()
    replies_mandatory: bool = True
    own_name: Callable[[], str] = new_hex
    durable: bool = False
    auto_delete: bool = False
    ha_queues: bool = False
    quorum_queue: bool = False
    transient_quorum_queue: bool = False
    quorum_delivery_limit: int = 0
    quorum_max_memory_length: int = 0
    quorum_max_memory_bytes: int = 0
    transient_queues_ttl_s: int = TRANSIENT_QUEUES_TTL_S
    stream_fanout: bool = False
    cancel_on_failover: bool = False

    @property
    def names_come_back(self) -> bool:
        """True when a server that stops in order leaves its own queue: the next one of its name goes on with what waits there.

        So does oslo.messaging with the queue manager; queues with random names are deleted (oslo-wire 2.5).
        """
        return self.own_name is not new_hex
