"""oslo.messaging's RPC protocol without I/O: bytes in, values out. Facts: oslo.messaging 18.3.1, `_drivers/{amqp,amqpdriver,common}.py`."""
