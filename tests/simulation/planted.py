"""Planted bugs: mistakes that the program could have, each put in by a patch, and the case that catches it.

python -m tests.simulation.planted --search NAME   look for a case that catches it
python -m tests.simulation.planted --write         try each with its case, and write PLANTED.md

A tier that catches none of them would be worth nothing.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.flows.parts import BackendParts
from cinder_lite.flows.terminate_connection import Detach
from cinder_lite.store import volume_attachment
from common.base.errors import Invalid
from common.base.ids import new_uuid
from common.db import fence, journal
from common.db.engine import when_committed
from common.db.journal import Journal, NewRow
from common.db.outbox import Outbox
from common.db.owner import ME
from common.db.tables import flows
from common.flow import driver, lines
from common.flow.places import Place
from common.flow.relay import Relay
from common.flow.runner import Runner
from common.machine.decide import Mark
from common.machine.table import Machine
from common.rpc.server import RpcServer
from common.transport.memory import MemoryTransport
from common.transport.port import Unroutable
from nova_lite.flows.attach_volume import AttachVolume
from nova_lite.flows.boot import Boot
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.flows.request_attach import RequestAttach
from nova_lite.flows.request_detach import RequestDetach
from tests.simulation.cases import Case, flawless, run_case, single_faults
from tests.simulation.history import run_history
from tests.simulation.race import run_races
from tests.simulation.scenario import SINGLE, STAGES
from tests.simulation.workers import quiet

TABLE = Path(__file__).with_name("PLANTED.md")
_NOT_SEEN = "not seen"

Patch = AbstractContextManager[Any]


@dataclass(frozen=True, slots=True)
class Planted:
    """A mistake. `caught` is the case that shows it; `hunt` the kinds of faults among which a search looks for one."""

    name: str
    what: str
    put_in: Callable[[], Patch]
    caught: str
    hunt: tuple[str, ...] = ("crash",)

    @property
    def tier(self) -> str:
        """Of the case that catches it."""
        return (
            "none yet"
            if not self.caught
            else {"race": "race", "history": "3"}.get(self.caught.partition(" ")[0], "2" if " + " in self.caught else "1")
        )


def violations(case: str) -> Sequence[tuple[str, str]]:
    """Of a case of tier 1, "history SEED" or "race SEED"; whatever ends it unforeseen counts too."""
    kind, _, seed = case.partition(" ")
    try:
        match kind:
            case "history":
                return run_history(seed).violations
            case "race":
                return run_races(seed, rounds=5)
            case _:
                return run_case(Case.parse(case)).violations
    except Exception as exc:  # noqa: BLE001  # a mistake may end in anything
        return [("L4", f"{type(exc).__name__}: {exc}")]


def caught(planted: Planted) -> Sequence[tuple[str, str]]:
    """What its case says with the mistake in the program; nothing: it was not caught."""
    if not planted.caught:
        return ()
    prepare()
    with planted.put_in():
        return violations(planted.caught)


def prepare() -> None:
    """What cases begin with is made before any mistake is put in."""
    flawless(list(STAGES)[-1], 0)


# -- the mistakes ------------------------------------------------------------------------------------------------------


async def _nothing(*_: object, **__: object) -> None:
    """Does not do what it is for."""


async def _zero(*_: object) -> int:
    return 0


async def _no(*_: object, **__: object) -> bool:
    return False


def _without(kind: type, method: str) -> Callable[[], Patch]:
    return lambda: patch.object(kind, method, _nothing)


def _other_saga(kind: type[Any], change: Callable[[tuple[Any, ...]], tuple[Any, ...]], **values: Any) -> Callable[[], Patch]:
    return lambda: patch.object(kind, "saga", replace(kind.saga, steps=change(kind.saga.steps), **values))


def _acks_first() -> Patch:
    serve = RpcServer._handle

    async def handle(self: Any, taken: Any) -> None:
        await taken.delivery.ack()
        await serve(self, taken)

    return patch.object(RpcServer, "_handle", handle)


@contextmanager
def _any_state_will_do() -> Iterator[None]:
    """The machines forbid nothing."""
    with (
        patch.object(Machine, "allows", lambda *_: True),
        patch.object(Machine, "sources", lambda self, _: self.states - self.ends),
    ):
        yield


def _unroutable_is_taken() -> Patch:
    publish = MemoryTransport.publish

    async def published(self: Any, message: Any, *, timeout_s: float) -> None:
        try:
            await publish(self, message, timeout_s=timeout_s)
        except Unroutable:
            return

    return patch.object(MemoryTransport, "publish", published)


def _done_before_the_act() -> Patch:
    """The journal says `done` first, and then it is done."""

    async def do(self: Any, run: Any, step: Any, attempt: int) -> None:
        await self._before(run, attempt)
        self._note(run, step, NewRow(step=step.name, mark=Mark.BEGUN, attempt=attempt), Place.BEGUN)
        self._note(run, step, NewRow(step=step.name, mark=Mark.DONE, attempt=attempt), Place.DONE)
        await self._write(run)
        run.flow.letters.clear()
        run.flow.outputs[step.name] = await self._act(run, run.flow.method(step.name), step) or {}

    return patch.object(driver.Driver, "_do", do)


def _intent_is_not_written() -> Patch:
    note = driver.Driver._note

    def noted(run: Any, step: Any, row: Any, place: Any, *, is_undo: bool = False) -> None:
        if row.mark is not Mark.BEGUN:
            note(run, step, row, place, is_undo=is_undo)

    return patch.object(driver.Driver, "_note", staticmethod(noted))


def _every_message_is_another_flow(kind: type[Any]) -> Callable[[], Patch]:
    made = kind.of.__func__

    def of(cls: Any, *args: Any, **kwargs: Any) -> Any:
        flow = made(cls, *args, **kwargs)
        flow.id = f"{flow.id}:{new_uuid()}"
        return flow

    return lambda: patch.object(kind, "of", classmethod(of))


def _letters_follow_the_commit() -> Patch:
    """In a transaction of their own."""
    put = Outbox.put

    async def later(self: Any, conn: AsyncConnection, letters: Any) -> None:
        kept = list(letters)

        async def enter() -> None:
            await self._db.run(lambda own: put(self, own, kept))

        if kept:
            when_committed(conn, lambda: _soon(enter()))

    return patch.object(Outbox, "put", later)


def _soon(work: Any) -> None:
    import asyncio  # noqa: PLC0415  # for this mistake alone

    asyncio.get_running_loop().create_task(work)


def _strikes_off_before_sending() -> Patch:
    send = Relay._send_line

    async def sent_line(self: Any, address: str, line: Any, *more: Any) -> Any:
        await self._outbox.sent([letter.id for letter in line])
        return await send(self, address, line, *more)

    return patch.object(Relay, "_send_line", sent_line)


def _adopts_under_the_old_fence() -> Patch:
    async def adopt(self: Any, flow: Any, owner: Any) -> int | None:
        change = update(flows).where(flows.c.id == flow.id).values(owner=str(owner))
        return flow.fence if (await self._db.run(lambda conn: conn.execute(change))).rowcount else None

    return patch.object(Journal, "adopt", adopt)


def _waits_for_nobody() -> Patch:
    join = lines.Lines.join

    def joined(self: Any, key: str) -> Any:
        place = join(self, key)
        place.reached.set()
        return place

    return patch.object(lines.Lines, "join", joined)


def _detached_first(steps: tuple[Any, ...]) -> tuple[Any, ...]:
    return (steps[-1], *steps[:-1])


def _no_undo_of(name: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    return lambda steps: tuple(replace(step, undo=None) if step.name == name else step for step in steps)


def _all_failures_are_refusals() -> Patch:
    """A time-out taken for "nothing happened"."""
    real = isinstance

    class Anything(type(Invalid)):  # type: ignore[misc]
        def __instancecheck__(cls, _: object) -> bool:
            return True

    class AnyFault(Invalid, metaclass=Anything):
        """Every fault is one."""

    assert real(ValueError(), AnyFault)
    return patch.object(driver, "Invalid", AnyFault)


@contextmanager
def _nobody_is_alive() -> Iterator[None]:
    """A running flow is anybody's, whoever has it."""
    left = journal._FLOWS.where(flows.c.home == bindparam("of_home"), flows.c.state == fence.RUNNING)
    with patch.object(journal, "_LEFT_BEHIND", left), patch.object(journal, "_ADOPT", journal._HELD.values(owner=ME)):
        yield


@contextmanager
def _nobody_asks_for_the_fence() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(patch.object(fence, "check", _nothing))
        yield


PLANTED = (
    Planted("ack-first", "a request is acked before it is handled", _acks_first, "attach: nova-compute.cmp1|failpoint rpc.compute.attach_volume.delivered#1|before|crash"),
    Planted("no-cas", "a status is written whatever it was", _any_state_will_do, "race 0", ("twice", "late")),
    Planted("no-fence", "writes are not asked for their fence", _nobody_asks_for_the_fence, "boot: nova-api.ctl1|failpoint request_boot.build_and_run_instance.begun#1|before|pause", ("pause", "crash")),
    Planted("unroutable", "a message that no queue takes counts as sent", _unroutable_is_taken, "attach: nova-compute.cmp1|ack reserve_block_device_name#1|after|gone", ("crash", "cut")),
    Planted("undo-roll", "detach: the volume is not made in-use again", _without(RequestDetach, "roll_detaching"), "detach: cinder-api.ctl1|publish reply#2|before|lost", ("clings", "raise")),
    Planted("undo-connect", "attach: the host's end is not taken back", _without(AttachVolume, "disconnect_volume"), "attach: nova-compute.cmp1|effect hypervisor.attach_volume#1|after|hang", ("raise", "hang")),
    Planted("undo-disk", "attach: the disk is not taken back", _without(AttachVolume, "detach_volume"), "attach: nova-compute.cmp1|effect hypervisor.attach_volume#1|after|hang", ("hang", "lost", "late")),
    Planted("undo-free", "attach: the volume is not given free", _without(AttachVolume, "detach"), "attach: nova-compute.cmp1|effect hypervisor.attach_volume#1|before|hang", ("raise", "hang")),
    Planted("undo-reserve", "nova-api: the reservation is not taken back", _without(RequestAttach, "unreserve_volume"), "attach: cinder-api.ctl2|publish reply#1|before|lost", ("lost", "late", "raise")),
    Planted("undo-spawn", "boot: the machine is not taken back", _without(Boot, "destroy"), "boot: nova-compute.cmp1|effect hypervisor.spawn#1|after|raise", ("raise", "hang")),
    Planted("done-first", "the journal says done before it is", _done_before_the_act, "attach: nova-api.ctl1|failpoint rpc.nova-api.attach_volume.handled#1|before|crash"),
    Planted("no-intent", "the journal does not say what is begun", _intent_is_not_written, "attach: nova-compute.cmp1|effect connector.connect_volume#1|before|raise", ("raise", "hang", "crash")),
    Planted("flow-twice", "a message that comes twice is two flows", _every_message_is_another_flow(AttachVolume), "attach: nova-compute.cmp1|failpoint rpc.compute.attach_volume.handled#1|before|crash", ("twice", "unconfirmed", "crash")),
    Planted("boot-twice", "an order to boot that comes twice is two flows", _every_message_is_another_flow(Boot), "boot: nova-compute.cmp1|failpoint rpc.compute.build_and_run_instance.replied#1|before|crash", ("twice", "unconfirmed", "crash")),
    Planted("outbox-apart", "letters are entered after the commit", _letters_follow_the_commit, "create: cinder-api.ctl1|commit flows+volumes#1|after|crash"),
    Planted("sent-first", "letters are struck off before they are sent", _strikes_off_before_sending, "attach: nova-api.ctl1|failpoint outbox.publishing#1|before|crash"),
    Planted("same-fence", "a flow is taken over under its old fence", _adopts_under_the_old_fence, "attach: nova-compute.cmp1|effect hypervisor.attach_volume#1|after|crash", ("pause",)),
    Planted("no-lease", "a flow is taken from a living process", _nobody_is_alive, "attach: nova-api.ctl1|failpoint request_attach.reserve_volume.begun#1|before|pause", ("pause", "crash", "hang")),
    Planted("no-adoption", "nobody carries on what a dead process left", lambda: patch.object(Runner, "adopt", _zero), "detach: nova-compute.cmp1|failpoint detach_volume.destroy_block_device_mapping.before#1|before|crash"),
    Planted("no-line", "flows of one volume do not wait for one another", _waits_for_nobody, "detach: nova-compute.cmp1|publish cinder-api.terminate_connection#1|after|twice", ("late", "twice", "swap", "lost")),
    Planted("free-first", "a volume is available before its export is gone", _other_saga(Detach, _detached_first, pivot="detached"), "detach: ", ("crash", "raise")),
    Planted("any-attachment", "an attachment that is over still takes the export away", lambda: patch.object(BackendParts, "is_over", _no), "history lost,late,twice:any-attachment.60", ("late", "twice", "lost", "pause")),
    Planted("not-again", "a step does not know its own change again", lambda: patch.object(volume_attachment, "began", _no), "detach: nova-api.ctl1|failpoint request_detach.begin_detaching.acted#1|before|crash", ("crash", "unconfirmed", "error")),
    Planted("half-pivot", "detach: a disk that may be gone is not given back", _other_saga(DetachVolume, _no_undo_of("detach_volume")), "detach: nova-compute.cmp1|effect hypervisor.detach_volume#1|after|raise + nova-compute.cmp1|effect hypervisor.detach_volume#2|after|raise + nova-compute.cmp1|effect hypervisor.detach_volume#3|after|raise", ("raise", "hang")),
    Planted("time-out-is-no", "a failure of unknown outcome counts as none", _all_failures_are_refusals, "attach: nova-compute.cmp1|effect connector.connect_volume#1|after|raise", ("hang", "raise", "lost")),
)  # fmt: skip
"""Twenty and a few more."""


def search(planted: Planted, *, budget: int = 80, histories: int = 6) -> str | None:
    """The id of a case that catches it."""
    prepare()
    hunted = list(single_faults(SINGLE, frozenset(planted.hunt)))
    chosen = Random(planted.name).sample(hunted, min(budget, len(hunted)))
    candidates = [planted.caught] if planted.caught else []
    candidates += [f"{stage}: " for stage in SINGLE] + [str(case) for case in chosen]
    candidates += ["race 0"] + [f"history planted.{number}" for number in range(histories)]
    for case in candidates:
        with planted.put_in():
            is_caught = bool(violations(case))
        if is_caught and not violations(case):
            return case
    return None


def table() -> str:
    """Each mistake with what catches it, as Markdown."""
    lines_ = ["# Planted bugs, and what catches each", "", "Written by `python -m tests.simulation.planted --write`.", ""]
    lines_ += ["| bug | what is wrong | tier | case | what it says |", "|---|---|---|---|---|"]
    number = 0
    for planted in PLANTED:
        found = caught(planted)
        said = found[0][0] if found else _NOT_SEEN
        number += bool(found)
        case = planted.caught.replace("|", "\\|")
        lines_.append(f"| {planted.name} | {planted.what} | {planted.tier} | `{case}` | {said} |")
    lines_ += [
        "",
        f"{number} of {len(PLANTED)} bugs are caught; each case violates nothing without its bug.",
    ]
    return "\n".join(lines_) + "\n"


def main() -> int:
    """0 when every mistake that was asked for is caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("--search", nargs="*", help="names; none: those without a case")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    quiet()
    if asked.write:
        TABLE.write_text(page := table())
        print(page.splitlines()[-1])
        return int(_NOT_SEEN in page)
    wanted = asked.search or [planted.name for planted in PLANTED if not planted.caught]
    is_whole = True
    for planted in PLANTED:
        if planted.name in wanted:
            case = search(planted)
            is_whole = is_whole and case is not None
            print(f"{planted.name}: {case}", flush=True)
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
