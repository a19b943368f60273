"""A saga as data: steps in order, each with the name of what undoes it, and the pivot behind which only forward goes.

    ATTACH_VOLUME = Saga("attach_volume", pivot="attach", steps=(
        Step("get_volume_connector", timeout_s=5),
        Step("initialize_connection", undo="terminate_connection", timeout_s=60, attempts=3),
        ...))

A step's name is the method that does it, `undo` the method that takes it back; both are in the flow's own file. Both may run
twice: a crash between the act and its journal row repeats the act.
"""

from dataclasses import dataclass

PATIENCE = 300
"""Ten seconds apart these are fifty minutes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One side effect, or something that is found out for those behind it.

    undo        name of the method that takes it back; None: there is nothing to take back
    timeout_s   longest run of one attempt, of the act and of its undo alike
    attempts    tries before the step counts as failed; only retryable faults are tried again
    is_pure     it reads and has no effect: its intent need not be durable before it, and goes with the next row that must be
    """

    name: str
    undo: str | None = None
    timeout_s: float = 30.0
    attempts: int = 1
    is_pure: bool = False


@dataclass(frozen=True, slots=True)
class Saga:
    """Steps in order. Once the step named `pivot` is done, failures are no longer undone but retried, then parked.

    pivot      name of a step, or None: everything can be undone to the end
    patience   tries of an undo, and of a step behind the pivot: giving up leaves something behind, so it outlasts an outage
    Raises ValueError for a saga without steps, two steps of one name, or an unknown pivot.
    """

    name: str
    steps: tuple[Step, ...]
    pivot: str | None = None
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names:
            raise ValueError(f"saga {self.name} has no steps")
        if len(set(names)) != len(names):
            raise ValueError(f"saga {self.name} has two steps of one name: {names}")
        if self.pivot is not None and self.pivot not in names:
            raise ValueError(f"saga {self.name}: the pivot {self.pivot} is not one of its steps {names}")

    def step(self, name: str) -> Step:
        """The step of that name. Raises KeyError when there is none."""
        return {step.name: step for step in self.steps}[name]
