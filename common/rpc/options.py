"""What an operator can set about RPC, under oslo.messaging's names where it has one."""

from dataclasses import dataclass

from common.base.limits import DUPLICATES_REMEMBERED, PUBLISH_TIMEOUT_S, RPC_PREFETCH, RPC_RESPONSE_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """Options of one connection.

    control_exchange         exchange of contracts that name none
    response_timeout_s       rpc_response_timeout: how long a call waits when nobody says otherwise
    prefetch                 executor_thread_pool_size: requests of one queue that are worked on at once
    durable, auto_delete     amqp_durable_queues, amqp_auto_delete: of topic exchanges and topic and server queues
    duplicates_remembered    size of a server's window of `_unique_id`s (oslo.messaging: 16)
    """

    control_exchange: str = "openstack"
    response_timeout_s: float = RPC_RESPONSE_TIMEOUT_S
    publish_timeout_s: float = PUBLISH_TIMEOUT_S
    prefetch: int = RPC_PREFETCH
    durable: bool = False
    auto_delete: bool = False
    duplicates_remembered: int = DUPLICATES_REMEMBERED
