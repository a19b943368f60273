"""What a flow's file holds: a saga, and a class whose methods are its steps and their undos.

    class AttachVolume(Flow[AttachArguments]):
        saga = ATTACH_VOLUME

        async def initialize_connection(self, ctx: Context) -> Output: ...
        async def terminate_connection(self, ctx: Context) -> None: ...

A step's output is written to the journal and is found in `self.outputs` by later steps, also after a crash: it must be JSON, small and
free of secrets. `ctx` carries the step's deadline. A step that raises Invalid says that it was refused and nothing happened: it is not
undone. Any other fault leaves that open, and it is.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from common.base.context import Context
from common.base.errors import Fault
from common.base.ids import FlowId
from common.machine.saga import Saga

Output = Mapping[str, Any] | None
A = TypeVar("A", bound=msgspec.Struct)
Act = Callable[[Context], Awaitable[Output]]


class Flow(Generic[A]):
    """One run of a saga.

    id          the same work has the same id: a second start of it changes nothing
    subject     what it works on, "volume:<id>" or "server:<uuid>"
    Raises TypeError at class creation when a step or undo of the saga has no method.
    """

    saga: ClassVar[Saga]

    def __init__(self, ctx: Context, *, id: str, subject: str, arguments: A) -> None:  # noqa: A002  # the journal's word
        self.id = FlowId(id)
        self.subject = subject
        self.arguments = arguments
        self.ctx = ctx.without_deadline().elevated()
        self.outputs: dict[str, Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = [name for step in cls.saga.steps for name in (step.name, step.undo) if name is not None]
        missing = [name for name in names if not callable(getattr(cls, name, None))]
        if missing:
            raise TypeError(f"{cls.__name__} has no method for {', '.join(missing)} of saga {cls.saga.name}")

    def method(self, name: str) -> Act:
        """The step or undo of that name."""
        found: Act = getattr(self, name)
        return found

    async def turned_back(self, fault: Fault) -> None:
        """Called before the first undo; `fault` is what made the flow turn back. May run twice.

        The place to write down why: whoever sees the outcome finds the reason there already.
        """

    async def parked(self, fault: Fault) -> None:
        """Called when neither forward nor back leads on without a person. May run twice."""
