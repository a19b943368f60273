"""What an operator can set about notifications, under oslo.messaging's names where it has one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.base.limits import DUPLICATES_REMEMBERED, NOTIFICATION_REQUEUE_DELAY_S, NOTIFICATION_TIMEOUT_S, RPC_PREFETCH


@dataclass(frozen=True, slots=True)
class NotificationOptions:
    """Options of notifiers and listeners.

    control_exchange         exchange that notifications go through
    driver                   ways that a notification goes, all of them; none: it goes nowhere
    topics                   topics that it goes to, all of them
    retry                    tries after the first one: -1 as many as the time allows, 0 none
    routing_config           YAML file of the driver `routing`
    timeout_s                longest time that a sender waits
    durable, auto_delete     amqp_durable_queues, amqp_auto_delete: of the exchange and the queues
    queue_arguments          of every queue: {"x-queue-type": "quorum"} where the peers have rabbit_quorum_queue, with `durable`
    prefetch                 executor_thread_pool_size: notifications of one listener that are worked on at once
    duplicates_remembered    size of a listener's window of `_unique_id`s (oslo.messaging: 16)
    requeue_delay_s          how long a notification that is given back waits before
    """

    control_exchange: str = "openstack"
    driver: tuple[str, ...] = ("messagingv2",)
    topics: tuple[str, ...] = ("notifications",)
    retry: int = -1
    routing_config: str = ""
    timeout_s: float = NOTIFICATION_TIMEOUT_S
    durable: bool = False
    auto_delete: bool = False
    queue_arguments: Mapping[str, Any] = field(default_factory=dict)
    prefetch: int = RPC_PREFETCH
    duplicates_remembered: int = DUPLICATES_REMEMBERED
    requeue_delay_s: float = NOTIFICATION_REQUEUE_DELAY_S
