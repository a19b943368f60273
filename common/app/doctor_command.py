"""`lite doctor`: what differs between the rows and reality, and what mends it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from common.app.auditing import Audit
from common.app.cli import print_json, print_table
from common.app.commands import AsJson, ConfigFiles, Debug, UsersSender, on_transport, tell
from common.app.doctor import OLDER_THAN_S, RECHECK_S, Doctor
from common.app.exits import Exit
from common.app.service import Service, ServiceConfig, neighbours, services
from common.app.whole import Whole, read_whole
from common.base.clock import Clock
from common.base.violation import Violation
from common.db.engine import open_database
from common.rpc.session import client
from common.transport.port import Transport

OLDER_THAN_S_MAX = 365 * 86400.0


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when anything is found that is not mended.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Have every service mend what it can, then look again.")] = False,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="S", help="Seconds that a state may last which should pass.")
    ] = OLDER_THAN_S,
    json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> int:  # fmt: skip
    """Compare the rows with what targets, hosts and machines really have, and say what differs.

    Every service that has a row in `services` is asked over the bus; one that does not answer is a finding too. Services may be at
    work meanwhile: what looks wrong is looked at again after two seconds.
    """
    if not 0 <= older_than <= OLDER_THAN_S_MAX:
        raise typer.BadParameter(f"--older-than is {older_than:g}; wanted: 0 to {OLDER_THAN_S_MAX:g} seconds")
    whole = read_whole(config_file, debug=debug)
    known = services()
    loaded = [(service, service.load(config_file or [], {}, neighbours(service.name, known))) for service in known.values()]

    async def work(transport: Transport, clock: Clock) -> tuple[Audit, list[str], Audit | None]:
        async with _doctor(whole, loaded, transport, clock, older_than) as at_work:
            before = await at_work.audit()
            if not fix:
                return before, [], None
            done = await at_work.mend()
            if done or before.violations:
                await clock.sleep(RECHECK_S)
            return before, done, await at_work.audit()

    before, done, after = on_transport(whole.common, work)
    left = before if after is None else after
    if json:
        print_json(_as_json(before, done, after))
    else:
        _print(before, done, after)
    return Exit.REFUSED if strict and left.violations else Exit.OK


@asynccontextmanager
async def _doctor(
    whole: Whole, loaded: Sequence[tuple[Service, ServiceConfig]], transport: Transport, clock: Clock, older_than_s: float
) -> AsyncIterator[Doctor]:
    database = open_database(whole.database.connection, clock=clock, branches=whole.branches)
    try:
        await database.check()
        async with client(transport, clock=clock, options=whole.common.bus.rpc) as rpc:
            yield Doctor(loaded, database, transport, UsersSender(rpc, bus=transport.url), clock, older_than_s)
    finally:
        await database.close()


def _print(before: Audit, done: Sequence[str], after: Audit | None) -> None:
    for line in done:
        tell(f"mended: {line}")
    left = before if after is None else after
    if after is not None and before.violations:
        tell(f"Found: {len(before.violations)}; mended: {len(_mended(before, after))}.")
    if left.violations:
        columns = ("Invariant", "Subject", "Evidence", "Mend")
        print_table(columns, [(found.invariant, found.subject, found.evidence, found.mend) for found in left.violations])
    what = "Wrong" if after is None else "Still wrong"
    tell(
        f"{what if left.violations else 'Nothing is wrong'}{f': {len(left.violations)}' if left.violations else ''}. {_checked(left)}"
    )


def _checked(audit: Audit) -> str:
    return f"Looked at {', '.join(f'{what}: {number}' for what, number in sorted(audit.checked.items()))}."


def _mended(before: Audit, after: Audit) -> list[Violation]:
    left = {found.identity for found in after.violations}
    return [found for found in before.violations if found.identity not in left]


def _as_json(before: Audit, done: Sequence[str], after: Audit | None) -> dict[str, object]:
    left = before if after is None else after
    found: dict[str, object] = {"checked": dict(left.checked), "violations": [_row(each) for each in left.violations]}
    if after is not None:
        found |= {"done": list(done), "mended": [_row(each) for each in _mended(before, after)]}
    return found


def _row(found: Violation) -> dict[str, str]:
    return {"invariant": found.invariant, "subject": found.subject, "evidence": found.evidence, "mend": found.mend}
