"""What an operator can set about RPC, under oslo.messaging's names where it has one."""

from dataclasses import dataclass

from common.base.limits import (
    ANSWERS_BYTES_MAX,
    DUPLICATES_REMEMBERED,
    PUBLISH_TIMEOUT_S,
    REPLY_RETRY_S,
    RPC_DELIVERY_LIMIT,
    RPC_PREFETCH,
    RPC_RESPONSE_TIMEOUT_S,
)


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """Options of one connection.

    control_exchange         exchange of contracts that name none
    response_timeout_s       rpc_response_timeout: how long a call waits when nobody says otherwise
    prefetch                 executor_thread_pool_size: requests of one server that are worked on at once
    durable, auto_delete     amqp_durable_queues, amqp_auto_delete: of topic exchanges and topic and server queues
    duplicates_remembered    size of a server's window of `_unique_id`s (oslo.messaging: 16), and `answers_bytes` of their replies
    delivery_limit           times that a request is begun, over all servers, before it is taken for poison
    reply_retry_s            kombu_missing_consumer_retry_timeout: how long a reply waits for its queue
    ping_enabled             rpc_ping_enabled: servers answer `oslo_rpc_server_ping`
    allowed_remote_exmods    modules whose exceptions a client rebuilds besides the faults of its contracts
    """

    control_exchange: str = "openstack"
    response_timeout_s: float = RPC_RESPONSE_TIMEOUT_S
    publish_timeout_s: float = PUBLISH_TIMEOUT_S
    prefetch: int = RPC_PREFETCH
    durable: bool = False
    auto_delete: bool = False
    duplicates_remembered: int = DUPLICATES_REMEMBERED
    answers_bytes: int = ANSWERS_BYTES_MAX
    delivery_limit: int = RPC_DELIVERY_LIMIT
    reply_retry_s: float = REPLY_RETRY_S
    ping_enabled: bool = False
    allowed_remote_exmods: tuple[str, ...] = ()
