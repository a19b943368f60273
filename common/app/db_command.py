"""`lite db`: the database's tables."""

import asyncio

import typer

from common.app.commands import ConfigFiles, Debug, tell
from common.app.whole import read_whole
from common.db.engine import open_database
from common.db.migrate import upgrade as migrate
from common.db.url import parse
from common.host.clock import SystemClock

app = typer.Typer(help="The database's tables.", no_args_is_help=True)


@app.command()
def upgrade(config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Bring the database to the newest tables; nothing happens when it has them. It may run while services do."""
    whole = read_whole(config_file, debug=debug)
    connection = whole.database.connection
    revisions = asyncio.run(migrate(connection, whole.branches, clock=SystemClock()))
    tell(f"{parse(connection).shown} has the tables of {', '.join(sorted(revisions))}.")


@app.command()
def check(config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Say whether the database answers and has the newest tables; exit code 0 if so."""
    whole = read_whole(config_file, debug=debug)

    async def look() -> str:
        database = open_database(whole.database.connection, clock=SystemClock(), branches=whole.branches)
        try:
            await database.check()
            return database.url
        finally:
            await database.close()

    tell(f"{asyncio.run(look())} answers and has the newest tables.")
