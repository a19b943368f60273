"""What a peer can do wrong."""


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow, or more than our limits do. The connection is of no more use.

    code   the reply code that a connection.close for it carries (AMQP 0-9-1, 1.2 "Reply codes")
    text   what was found; never a quotation of the peer's bytes longer than a name
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


FRAME_ERROR = 501
SYNTAX_ERROR = 502
COMMAND_INVALID = 503
CHANNEL_ERROR = 504
UNEXPECTED_FRAME = 505
RESOURCE_ERROR = 506
