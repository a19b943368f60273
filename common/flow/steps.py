"""What a flow's file holds: a saga, and a class whose methods are its steps and their undos.

    class AttachVolume(Flow[AttachArguments, ComputeParts]):
        saga = ATTACH_VOLUME

        async def initialize_connection(self, ctx: Context) -> Output: ...
        async def terminate_connection(self, ctx: Context) -> None: ...

A step's output is written to the journal and is found in `self.outputs` by later steps, also after a crash: it must be JSON, small and
free of secrets. `ctx` carries the step's deadline. A step that raises Invalid says that it was refused and nothing happened: it is not
undone. Any other fault leaves that open, and it is.

A flow is made anew from its row after a crash, in another process: what a step needs is in `arguments`, `outputs` and `parts`, and in
no attribute that another step has set.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

import msgspec

from common.base.context import Context
from common.base.errors import Conflict, Fault
from common.base.ids import FlowId
from common.db.journal import FlowRow
from common.db.outbox import Letter
from common.machine.saga import Saga
from common.wire.values import from_primitive


class TooLate(Conflict):
    """The order came too late: {kind} {name} is {found} by now; wanted: {expected}.

    What an order's first step raises when somebody else has done its work meanwhile, whatever came of that. Nobody is told: whoever
    did it has told.
    """


Output = Mapping[str, Any] | None
A = TypeVar("A", bound=msgspec.Struct)
P = TypeVar("P")
Act = Callable[[Context], Awaitable[Output]]


class Flow(Generic[A, P]):
    """One run of a saga.

    id          the same work has the same id: a second start of it changes nothing
    subject     what it works on, "volume:<id>" or "server:<uuid>"
    parts       what its steps act on
    outputs     what its steps gave, by their names
    fault       what made it turn back, once it has; after a crash as it was recorded
    deadline    of the one who asked for it, as in his context: it is not begun behind it
    letters     what a step wants sent once its result is durable, and not before
    Raises TypeError at class creation when a step or undo of the saga has no method.
    """

    saga: ClassVar[Saga]
    arguments_type: ClassVar[Any]
    is_lined_up: ClassVar[bool] = True
    """Flows of one subject run one after another in this process, in the order in which they were begun."""

    def __init__(self, ctx: Context, parts: P, *, id: str, subject: str, arguments: A) -> None:  # noqa: A002  # the journal's word
        self.id = FlowId(id)
        self.subject = subject
        self.arguments = arguments
        self.parts = parts
        self.ctx = ctx.without_deadline().elevated()
        self.deadline = ctx.deadline
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.fault: Fault | None = None
        self.letters: list[Letter] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Flow:
                cls.arguments_type = get_args(base)[0]
        names = [name for step in cls.saga.steps for name in (step.name, step.undo) if name is not None]
        missing = [name for name in names if not callable(getattr(cls, name, None))]
        if missing:
            raise TypeError(f"{cls.__name__} has no method for {', '.join(missing)} of saga {cls.saga.name}")

    @classmethod
    def restored(cls, row: FlowRow, parts: P) -> Self:
        """The flow of a row, as another process began it. Raises WrongValue when its arguments are of another release."""
        arguments = from_primitive(dict(row.arguments), cls.arguments_type)
        return cls(Context.from_dict(row.context or {}), parts, id=row.id, subject=row.subject, arguments=arguments)

    def method(self, name: str) -> Act:
        """The step or undo of that name."""
        found: Act = getattr(self, name)
        return found

    async def turned_back(self, fault: Fault) -> None:
        """Called before the first undo; `fault` is what made the flow turn back, and never TooLate. May run twice.

        The place to write down why: whoever sees the outcome finds the reason there already.
        """

    async def parked(self, fault: Fault) -> None:
        """Called when neither forward nor back leads on without a person. May run twice."""
