"""Requests in the log."""

import asyncio
import logging
from typing import Any, Protocol

import pytest
import structlog

from common.base.context import Context
from common.base.errors import Conflict
from common.rpc.contract import Contract, call, cast
from common.rpc.logged import LoggedClient, LoggedServer
from tests.unit.rpc.net import CLOCK, net, until


class DeedAPI(Contract, Protocol, topic="deeds", version="1.0"):
    @call()
    async def do(self, ctx: Context, *, secret: str) -> str: ...

    @cast()
    async def tell(self, ctx: Context) -> None: ...


class Deeds(DeedAPI):
    async def do(self, ctx: Context, *, secret: str) -> str:
        if secret == "bad":
            raise Conflict(kind="deed", name="x", found="done", expected="new")
        return secret

    async def tell(self, ctx: Context) -> None:
        pass


def of(logged: list[Any], event: str) -> list[tuple[str, ...]]:
    return [(line["method"], line["kind"], line["outcome"]) for line in logged if line["event"] == event]


async def test_each_request_is_one_line_on_either_side_without_its_arguments() -> None:
    with structlog.testing.capture_logs() as logged:
        async with net() as made:
            await made.serve(Deeds(), middleware=[LoggedServer(CLOCK)])
            deeds = DeedAPI.over(made.client(middleware=[LoggedClient(CLOCK, level=logging.INFO)]))
            ctx = Context()
            await deeds.on("h1").do(ctx, secret="hunter2")
            with pytest.raises(Conflict):
                await deeds.do(ctx, secret="bad")
            await deeds.tell(ctx)
            await until(lambda: len(of(logged, "request served")) == 3)
    wanted = [("do", "call", "ok"), ("do", "call", "conflict"), ("tell", "cast", "ok")]
    assert of(logged, "request sent") == of(logged, "request served") == wanted
    first = next(line for line in logged if line["event"] == "request sent")
    served = next(line for line in logged if line["event"] == "request served")
    assert (first["address"], first["log_level"], first["request_id"]) == ("deeds.h1", "info", ctx.request_id)
    assert (served["server"], served["log_level"], served["request_id"]) == ("deeds.h1", "debug", ctx.request_id)
    assert 0 <= served["ms"] <= first["ms"]
    assert "hunter2" not in str(logged)


async def test_a_cancelled_request_is_logged_as_such() -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    async def cancelled(request: Any) -> None:
        task = asyncio.create_task(LoggedServer(CLOCK)(request, never))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    with structlog.testing.capture_logs() as logged:
        async with net() as made:
            await made.serve(Deeds(), middleware=[_Spy(cancelled)])
            await DeedAPI.over(made.client()).tell(Context())
            await until(lambda: bool(of(logged, "request served")))
    assert of(logged, "request served") == [("tell", "cast", "cancelled")]


class _Spy:
    def __init__(self, seen: Any) -> None:
        self._seen = seen

    async def __call__(self, request: Any, proceed: Any) -> Any:
        await self._seen(request)
        return await proceed(request)
