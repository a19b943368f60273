"""AMQP 0-9-1 from a client's side, without I/O: bytes in, events out; commands in, bytes out.

    connection = Connection(Login("nova", password), virtual_host="/", now_s=0.0)
    socket.send(connection.data_to_send(now_s))
    for event in connection.receive_data(socket.recv(65536), now_s): ...

`spec` is the protocol as data, `states` which method may come when, `connection` and `channel` what follows from it. Whatever bytes
come, they give events or a ProtocolError, within the bounds of `limits`.

Sources: AMQP 0-9-1 specification (amqp0-9-1.pdf, amqp0-9-1.xml); RabbitMQ's extensions and errata,
https://www.rabbitmq.com/docs/specification and https://www.rabbitmq.com/amqp-0-9-1-errata.
"""
