"""Every bound of the project by name. A queue, buffer, table, retry or wait without one is a bug."""

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""A larger body is refused at the sender and dead-lettered at the receiver."""

NESTING_MAX = 200
"""Depth of a message's JSON. Python's own limit (1000) counts the reader's frames too, so what one reads another could not."""

WORD_MAX = 1000
"""Characters of a method's name, an id, a version or a namespace in a message: servers remember ids and log the rest."""

FAILURE_TEXT_MAX = 10_000
"""Characters of a peer's error that its caller gets to see."""

CALLS_IN_FLIGHT_MAX = 10_000
"""Calls of one process that wait for a reply; one more is refused, not queued."""

DUPLICATES_REMEMBERED = 8_000
"""`_unique_id`s that a server remembers (oslo.messaging: 16), 100 bytes each."""

ANSWERS_BYTES_MAX = 16 * 1024 * 1024
"""Replies that a server keeps for requests that come again."""

RPC_PREFETCH = 64
"""Requests that one server works on at once: oslo.messaging's executor_thread_pool_size."""

RPC_RESPONSE_TIMEOUT_S = 60.0
"""Default of a call, oslo.messaging's rpc_response_timeout."""

UNCONFIRMED_MAX = 16_384
"""Messages on one channel that the broker has not confirmed; one more waits. More than CALLS_IN_FLIGHT_MAX."""

PUBLISH_TIMEOUT_S = 10.0
"""Longest wait for a broker's confirm."""

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a broker or a database at first contact."""

SETTLE_TIMEOUT_S = 5.0
"""Longest wait for an ack to be written."""

STATEMENT_TIMEOUT_S = 30.0
"""Longest wait for one database statement."""

GOODBYE_TIMEOUT_S = 2.0
"""Longest wait for a broker's answer to the end of a connection; acks left before it."""

TRANSIENT_QUEUES_TTL_S = 1800
"""How long the broker keeps a reply or fanout queue that nobody consumes: oslo.messaging's rabbit_transient_queues_ttl."""

QUEUE_NAMES_MAX = 1000
"""Stable names of reply and fanout queues that processes of one name have on one host."""

NOTIFICATION_TIMEOUT_S = 10.0
"""Longest time that the sender of a notification is kept waiting, whatever its `retry` says."""

NOTIFICATIONS_PENDING_MAX = 1000
"""Notifications of one notifier that wait for the bus; one more is dropped, with a word in the log."""

NOTIFICATIONS_PENDING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of these."""

NOTIFICATION_QUEUE_KNOWN_S = 60.0
"""How long a publisher relies on a default queue that it has declared."""

NOTIFICATION_REQUEUE_DELAY_S = 1.0
"""A notification that is given back waits so long before: endpoints that never take one must not keep a processor busy."""

NOTIFICATION_BATCH_TIMEOUT_S = 1.0
"""How long a batch that is not full waits for more."""

NOTIFICATIONS_TESTED_MAX = 1000
"""Notifications that the driver `test` keeps."""

DRAIN_TIMEOUT_S = 20.0
"""After SIGTERM: how long what was begun may take to end."""

COMMAND_OUTPUT_BYTES_MAX = 1024 * 1024
"""Output of a subprocess that is kept; the rest is dropped."""

LIST_ROWS_MAX = 1000
"""Rows of one answer to a list request (osapi_max_limit)."""

CAST_RETRY_DELAY_S = 1.0
"""A cast that could not be begun (the database is away) is tried again after this time, then after twice as long ..."""

RPC_DELIVERY_LIMIT = 5
"""Times that a cast may fail in a way nobody foresaw, over all servers, before it is given up."""
RPC_DEATHS_LIMIT = 20
"""RabbitMQ 4's own limit of deliveries. Of the servers that die with a request in hand, most die of something else."""

DEAD_LETTERS_MAX = 10_000
"""Messages of one dead-letter queue; the oldest makes room for one more."""

DEAD_LETTERS_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of one dead-letter queue."""

REPLY_RETRY_S = 60.0
"""How long a reply to a queue that is missing is tried again (oslo.messaging: kombu_missing_consumer_retry_timeout)."""

REPLIES_WAITING_MAX = 1000
"""Replies of one server that wait for their queue; one more is dropped."""

CANCELLATIONS_REMEMBERED = 1000
"""Calls that were cancelled before their request arrived, and are then not begun."""

INBOX_LEASE_S = 15.0
"""A server that said nothing for so long is taken for dead by those that share an inbox with it."""

INBOX_KEPT_S = 24 * 3600.0
"""Exactly-once requests are remembered so long in the shared inbox."""

INBOX_SWEEP_S = 3600.0
"""Time between two sweeps of the shared inbox by one process."""

ABSENCE_S = 5.0
"""Whoever took a message a moment ago and is not there now may be on the way back, with its broker or its queue; not for longer."""

ADDRESSES_REMEMBERED = 1000
"""Addresses that a client reached."""

RESEND_FIRST_S = 5.0
"""A call of an exactly-once method without any sign of life is sent again after this time, then after twice as long ..."""

RESEND_MAX_S = 30.0
"""... and no longer than this."""

LEASE_S = 15.0
"""A process that did not renew its lease for so long is taken for dead by those who may carry on its flows."""

LEASE_RENEW_S = 5.0
"""Time between two renewals, and between two looks for work that was left behind."""

LEASES_KEPT_S = 24 * 3600.0
"""After that a lease that ran out is forgotten."""

OUTBOX_BATCH = 100
"""Messages of the outbox that are read at once."""

LETTER_ATTEMPTS = 5
"""Times that a letter is tried which the bus refuses for what it is; then those behind it pass."""

FLOWS_MAX = 64
"""Flows that one process drives at once; the casts of further ones wait unacked at the broker."""

FAULT_TEXT_MAX = 1000
"""Characters of an error that are kept in a row."""

JOURNAL_PATIENCE_S = 120.0
"""How long a flow waits for a database that is away before it stops where it is."""

RECONCILE_INTERVAL_S = 10.0
"""Time between two rounds in which a service compares its rows with what is really there."""

RECONCILE_GRACE_S = 20.0
"""What changed less than this ago is still somebody's work, and left alone."""

RECONCILE_RECHECK_S = 2.0
"""Time between two looks of a round that a person asked for: what is to be destroyed must look wrong in both."""

RECONCILE_LOOK_TIMEOUT_S = 30.0
"""Longest look at a hypervisor, a target or the other service; one that takes longer is unknown in this round."""

RECONCILE_ACTIONS_MAX = 100
"""Mendings that one round begins; the next round goes on."""

RECONCILE_LETTERS_MAX = 1000
"""Messages that may wait in the outbox before a round gives up: what they are about is not looked up one by one then."""

RECONCILE_REST_MAX_S = 300.0
"""A mending that failed is begun again after RECONCILE_INTERVAL_S, then after twice as long ... but no longer than this."""

RECONCILE_FAILURES_KEPT_S = 900.0
"""How far back failed mendings are counted."""
