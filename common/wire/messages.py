"""The inner layer: requests and replies, and their keys on the wire (oslo-wire 3.3, 3.4)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from common.base.context import Context
from common.base.ids import RequestId, new_request_id
from common.base.limits import WORD_MAX
from common.base.trace import Trace
from common.wire.address import is_reply_queue
from common.wire.compression import HEADER, plain
from common.wire.envelope import UNREADABLE, NotAMessage, enveloped, opened, pack, unpack

CONTROL_NAMESPACE = "lite.control"
"""Messages between servers and clients of this framework; they come by an exchange that no other peer is bound to."""
CANCEL = "cancel"
"""The caller of the call `msg_id` (its only argument) is gone."""
_CONTEXT = "_context_"
_TRACEPARENT, _TRACESTATE = "traceparent", "tracestate"
TRACE_HEADERS = frozenset((_TRACEPARENT, _TRACESTATE))
"""What a request's own peer puts into its headers."""
_CONTEXT_SIZE = len(_CONTEXT)
_SECONDS_MAX = 1e9  # 30 years; more, or NaN, is no time that anybody waits


class Request(msgspec.Struct, frozen=True):
    """One call or cast.

    unique_id           new for every message; a repeated one is a duplicate
    msg_id, reply_q     of a call: what the reply must carry, and where it goes; None for a cast
    monitor_timeout_s   `_timeout`: the caller wants a sign of life at least this often; None: it wants none
    deadline_s          `_deadline`, our extension: seconds that the caller still waits; oslo peers ignore it
    version             None on the wire means 1.0
    """

    method: str
    args: Mapping[str, Any]
    unique_id: str | None = None
    namespace: str | None = None
    version: str | None = None
    msg_id: str | None = None
    reply_q: str | None = None
    monitor_timeout_s: float | None = None
    deadline_s: float | None = None
    context: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def is_call(self) -> bool:
        """True when somebody waits for a reply."""
        return self.msg_id is not None and self.reply_q is not None


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One answer, or with `ending` false a sign of life. `failure` is a JSON string (module failure)."""

    msg_id: str
    result: Any = None
    failure: str | None = None
    ending: bool = True
    unique_id: str | None = None


def encode_request(request: Request) -> bytes:
    """The body of a request. Keys that are None are left out where oslo leaves them out."""
    message: dict[str, Any] = {"method": request.method, "args": request.args}
    if request.namespace is not None:
        message["namespace"] = request.namespace
    if request.version is not None:
        message["version"] = request.version
    if request.is_call:
        message["_msg_id"] = request.msg_id
        message["_reply_q"] = request.reply_q
        message["_timeout"] = _whole(request.monitor_timeout_s)
    if request.deadline_s is not None:
        message["_deadline"] = request.deadline_s
    message["_unique_id"] = request.unique_id
    for key, value in request.context.items():
        message[_CONTEXT + key] = value
    return pack(message)


def _whole(seconds: float | None) -> float | None:
    """Whole seconds as oslo writes them."""
    return int(seconds) if seconds is not None and seconds == int(seconds) else seconds


def cancellation(msg_id: str, *, unique_id: str) -> bytes:
    """The body of the message that ends a call."""
    return encode_request(Request(CANCEL, {"msg_id": msg_id}, unique_id=unique_id, namespace=CONTROL_NAMESPACE, version="1.0"))


def cancelled_call(request: Request) -> str | None:
    """The call that this message ends; None when it is none of that kind."""
    if request.namespace != CONTROL_NAMESPACE or request.method != CANCEL:
        return None
    msg_id = request.args.get("msg_id")
    return msg_id if isinstance(msg_id, str) and len(msg_id) <= WORD_MAX else None


_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=WORD_MAX)]
_Time = Annotated[float, msgspec.Meta(ge=-_SECONDS_MAX, le=_SECONDS_MAX)]


class UsualRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A request whose keys are those that our own peers send, each of its type, with the arguments as they are on the wire.

    It is written and read in one step each. Words as in `Request`; of the context `user` is oslo.context's older word for `user_id`,
    as `project` is.
    """

    method: _Word
    args: msgspec.Raw
    namespace: _Word | None = None
    version: _Word | None = None
    msg_id: _Word | None = msgspec.field(name="_msg_id", default=None)
    reply_q: _Word | None = msgspec.field(name="_reply_q", default=None)
    timeout: _Time | msgspec.UnsetType | None = msgspec.field(name="_timeout", default=msgspec.UNSET)
    deadline_s: _Time | None = msgspec.field(name="_deadline", default=None)
    unique_id: _Word | None = msgspec.field(name="_unique_id", default=None)
    request_id: _Word | msgspec.UnsetType = msgspec.field(name="_context_request_id", default=msgspec.UNSET)
    user_id: _Word | msgspec.UnsetType | None = msgspec.field(name="_context_user_id", default=msgspec.UNSET)
    user: _Word | msgspec.UnsetType | None = msgspec.field(name="_context_user", default=msgspec.UNSET)
    project_id: _Word | msgspec.UnsetType | None = msgspec.field(name="_context_project_id", default=msgspec.UNSET)
    project: _Word | msgspec.UnsetType | None = msgspec.field(name="_context_project", default=msgspec.UNSET)
    is_admin: bool | msgspec.UnsetType = msgspec.field(name="_context_is_admin", default=msgspec.UNSET)
    roles: tuple[str, ...] | msgspec.UnsetType = msgspec.field(name="_context_roles", default=msgspec.UNSET)
    fence: _Word | msgspec.UnsetType = msgspec.field(name="_context_fence", default=msgspec.UNSET)
    traceparent: str | msgspec.UnsetType = msgspec.field(name="_context_traceparent", default=msgspec.UNSET)

    @property
    def is_call(self) -> bool:
        """As of `Request`."""
        return self.msg_id is not None and self.reply_q is not None

    @property
    def monitor_timeout_s(self) -> float | None:
        """As of `Request`."""
        return None if self.timeout is msgspec.UNSET else self.timeout

    def context(self, *, deadline: float | None, message_id: str | None) -> Context:
        """What `Context.from_dict` makes of its keys."""
        return Context(
            RequestId(self.request_id or new_request_id()),
            self.user_id or self.user or None,
            self.project_id or self.project or None,
            self.is_admin is True,
            self.roles or (),
            deadline,
            {},
            message_id,
            Trace.parse(self.traceparent),
            self.fence or None,
        )

    def general(self) -> "Request":
        """The same for who looks at arguments and context by name.

        Raises NotAMessage for arguments that are no object, msgspec.DecodeError for what is no JSON in them.
        """
        args = msgspec.json.decode(self.args)
        if not isinstance(args, dict):
            raise NotAMessage(f"args is {type(args).__name__}; wanted an object")
        context = {
            name: list(value) if isinstance(value, tuple) else value
            for name in _CONTEXT_FIELDS
            if (value := getattr(self, name)) is not msgspec.UNSET
        }
        return Request(
            self.method, args, self.unique_id, self.namespace, self.version, self.msg_id, self.reply_q,
            self.monitor_timeout_s, self.deadline_s, context,
        )  # fmt: skip


_CONTEXT_FIELDS = tuple(
    name
    for name, key in zip(UsualRequest.__struct_fields__, UsualRequest.__struct_encode_fields__, strict=True)
    if key == _CONTEXT + name
)
_USUAL_REQUEST = msgspec.json.Decoder(UsualRequest)
AnyRequest = Request | UsualRequest


def encoded(request: AnyRequest) -> tuple[bytes, Mapping[str, str]]:
    """The body of a request, and the headers that go with it: the trace's, by which others than its server see it."""
    if isinstance(request, UsualRequest):
        if request.timeout:
            request = msgspec.structs.replace(request, timeout=_whole(request.timeout))
        headers = {} if request.traceparent is msgspec.UNSET else {_TRACEPARENT: request.traceparent}
        return enveloped(msgspec.json.encode(request)), headers
    context = request.context
    return encode_request(request), {word: context[word] for word in (_TRACEPARENT, _TRACESTATE) if word in context}


def usual_request(body: bytes) -> UsualRequest | None:
    """The request in a body; None: something is unusual, or wrong, and `decode_request` must look at it."""
    usual = opened(body, _USUAL_REQUEST)
    if usual is None or ((reply_q := usual.reply_q) is not None and not is_reply_queue(reply_q)):
        return None
    return usual


def decode_request(body: bytes) -> Request:
    """The request in a body. Raises NotAMessage, naming the key that is missing or of a wrong type."""
    usual = usual_request(body)
    if usual is not None:
        with suppress(*UNREADABLE):  # what stands in the arguments was passed over until now
            return usual.general()
    return _decode_request(body)


def read_request(body: bytes, headers: Mapping[str, Any]) -> AnyRequest:
    """The request in a body as it came with these headers. Raises NotAMessage."""
    if not headers or HEADER not in headers:
        usual = usual_request(body)
        if usual is not None and usual.namespace != CONTROL_NAMESPACE:
            return usual
    return decode_request(plain(body, headers))


def _decode_request(body: bytes) -> Request:
    """Key by key, since something is unusual, or wrong."""
    message = unpack(body)
    args = message.get("args", {})
    if not isinstance(args, dict):
        raise NotAMessage(f"args is {type(args).__name__}; wanted an object")
    context = {}
    for key, value in message.items():
        if key[:_CONTEXT_SIZE] == _CONTEXT:
            context[key[_CONTEXT_SIZE:]] = value
    return Request(
        _text(message, "method", needed=True) or "",
        args,
        _text(message, "_unique_id"),
        _text(message, "namespace"),
        _text(message, "version"),
        _text(message, "_msg_id"),
        _reply_q(message),
        _seconds(message, "_timeout"),
        _seconds(message, "_deadline"),
        context,
    )


def encode_reply(reply: Reply) -> bytes:
    """The body of a reply: all of its keys, since an oslo caller dies without `failure` and waits on without `ending`."""
    return pack(
        {
            "result": reply.result,
            "failure": reply.failure,
            "ending": reply.ending,
            "_msg_id": reply.msg_id,
            "_unique_id": reply.unique_id,
        }
    )


_NULL = msgspec.Raw(b"null")


def encode_result(msg_id: str, result: bytes, unique_id: str) -> bytes:
    """The body of the reply with a result, which is JSON already."""
    return enveloped(msgspec.json.encode(_UsualReply(msg_id, msgspec.Raw(result), None, True, unique_id)))


class _UsualReply(msgspec.Struct, frozen=True, gc=False):
    """A reply whose keys are each of its type, with its result as it is on the wire."""

    msg_id: _Word = msgspec.field(name="_msg_id")
    result: msgspec.Raw = _NULL
    failure: str | None = None
    ending: bool = False
    unique_id: _Word | None = msgspec.field(name="_unique_id", default=None)


_USUAL_REPLY = msgspec.json.Decoder(_UsualReply)


def unread_reply(body: bytes) -> Reply:
    """The reply in a body, its result a msgspec.Raw unless it is null or the reply is an unusual one. Raises NotAMessage."""
    usual = opened(body, _USUAL_REPLY)
    if usual is None:
        return _decode_reply(body)
    result = usual.result
    return Reply(usual.msg_id, None if result == _NULL else result, usual.failure, usual.ending, usual.unique_id)


def decode_reply(body: bytes) -> Reply:
    """The reply in a body. A failure given as an object is taken as well as oslo's JSON string. Raises NotAMessage."""
    reply = unread_reply(body)
    if type(reply.result) is not msgspec.Raw:
        return reply
    try:
        return msgspec.structs.replace(reply, result=msgspec.json.decode(reply.result))
    except UNREADABLE:
        return _decode_reply(body)


def _decode_reply(body: bytes) -> Reply:
    message = unpack(body)
    return Reply(
        msg_id=_text(message, "_msg_id", needed=True) or "",
        result=message.get("result"),
        failure=_failure(message.get("failure")),
        ending=bool(message.get("ending", False)),
        unique_id=_text(message, "_unique_id"),
    )


def _failure(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (ValueError, RecursionError) as exc:
        raise NotAMessage(f"failure cannot be read: {exc}") from None


def _text(message: Mapping[str, Any], key: str, *, needed: bool = False) -> str | None:
    value = message.get(key)
    if type(value) is str and 0 < len(value) <= WORD_MAX:
        return value
    if value is None and not needed:
        return None
    if not isinstance(value, str) or not value:
        raise NotAMessage(f"{key} is {'missing' if value is None else type(value).__name__}; wanted text")
    if len(value) > WORD_MAX:
        raise NotAMessage(f"{key} has {len(value)} characters; the limit is {WORD_MAX}")
    return value


def _reply_q(message: Mapping[str, Any]) -> str | None:
    """A reply goes to a reply queue: whoever may send requests shall not make servers fill others' queues."""
    name = _text(message, "_reply_q")
    if name is not None and not is_reply_queue(name):
        raise NotAMessage("_reply_q names a queue that is no reply queue", kind="reply_q")
    return name


def _seconds(message: Mapping[str, Any], key: str) -> float | None:
    value = message.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _SECONDS_MAX:
        return None
    return float(value)
