"""One service process, told to stop."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import commanded

READY_S = 40
END_S = 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_is_told_to_stop_ends_in_order_and_its_topic_falls_silent(
    tmp_path: Path, number: signal.Signals
) -> None:
    assert (await commanded("lite", "db", "upgrade", state=tmp_path)).code == 0
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITE_")} | {"XDG_STATE_HOME": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nova_lite", "run", "api", stderr=asyncio.subprocess.PIPE, env=env
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(READY_S):
            while b"serving" not in (line := await process.stderr.readline()):
                assert line, "it ended before it served"
        listed = await commanded("nova-lite", "list", "--json", state=tmp_path)
        assert (listed.code, listed.json()) == (0, [])
        for program, words in (("nova-lite", ("show", "\udcff")), ("lite", ("rpc", "call", "nova-api", "get", "server=\udcff"))):
            odd = await commanded(program, *words, state=tmp_path)
            assert odd.code in {1, 64}, odd.err
            assert "bug" not in odd.err
        process.send_signal(number)
        async with asyncio.timeout(END_S):
            _, err = await process.communicate()
        assert (process.returncode, b"Traceback" in err) == (0, False)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (await commanded("nova-lite", "list", state=tmp_path)).code == 3
