"""Logging in: SASL's mechanisms as RabbitMQ has them (https://www.rabbitmq.com/docs/access-control, "Authentication mechanisms")."""

from dataclasses import dataclass, field
from typing import Literal

from common.amqp.fields import table_content

Mechanism = Literal["PLAIN", "AMQPLAIN", "EXTERNAL"]
_SAME = {"PLAIN": "AMQPLAIN", "AMQPLAIN": "PLAIN"}
"""Both send the name and the password."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are. EXTERNAL: whoever the certificate says."""

    user: str
    password: str = field(repr=False)
    mechanism: Mechanism = "AMQPLAIN"

    def chosen(self, offered: bytes) -> str | None:
        """The mechanism to use of those that the server offers; None when it has none that will do."""
        known = offered.decode("ascii", "replace").split()
        return next((each for each in (self.mechanism, _SAME.get(self.mechanism)) if each in known), None)

    def response(self, mechanism: str) -> bytes:
        """What is sent for it."""
        match mechanism:
            case "PLAIN":
                return b"\0" + self.user.encode() + b"\0" + self.password.encode()
            case "AMQPLAIN":
                return table_content({"LOGIN": self.user, "PASSWORD": self.password})
            case _:
                return b""
