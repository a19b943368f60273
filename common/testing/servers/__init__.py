"""Private servers for tests: each in a folder of its own, on free ports of the loopback, stopped by its process id.

    with RabbitServer(folder) as rabbit:          # or: async with
        ... rabbit.url ...
        rabbit.kill()                             # as a power cut would
        rabbit.start()                            # the same folder, the same ports

They are quick rather than safe: nothing is synced to the disk.
"""

from common.testing.servers.base import Server, free_port
from common.testing.servers.mariadb import MariaDbServer
from common.testing.servers.postgres import PostgresServer
from common.testing.servers.programs import ServerFailed
from common.testing.servers.rabbit import RabbitServer
from common.testing.servers.redis import RedisServer

__all__ = ["MariaDbServer", "PostgresServer", "RabbitServer", "RedisServer", "Server", "ServerFailed", "free_port"]
