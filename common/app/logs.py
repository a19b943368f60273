"""Logs: structlog's events and the standard library's records, one line each on stderr, with no secret in them.

What is logged carries service, host, pid, and whatever is bound to the running task with `structlog.contextvars`: the request id.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from common.app.masking import mask
from common.base.context import Context
from common.host.lean import structlog


def configure_logs(
    *,
    service: str,
    host: str,
    debug: bool = False,
    quiet: bool = False,
    log_format: str = "console",
    stream: Callable[[], TextIO] = lambda: sys.stderr,
) -> None:
    """Send everything that this process logs to `stream`, called now; a second call replaces the first.

    Our own events from INFO on (DEBUG with `debug`, WARNING with `quiet`), other libraries' from WARNING on (INFO with `debug`).
    log_format   "console" for people, "json" for machines: an object a line
    """
    out = stream()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Stamp(service=service, host=host),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer = _renderer(log_format, colors=out.isatty() and not os.environ.get("NO_COLOR"))
    own = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(own),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _take_over_stdlib(shared, renderer, out, logging.INFO if debug else logging.WARNING)
    logging.getLogger(_OWN).setLevel(own)
    for name in _TOLD_BY_US:
        logging.getLogger(name).setLevel(logging.NOTSET if debug else logging.CRITICAL)


def bind_request(ctx: Context) -> None:
    """What the running task logs from now on carries the request id."""
    structlog.contextvars.bind_contextvars(request_id=ctx.request_id)


def mask_secrets(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A structlog processor: every value of the event without its secrets, and exceptions as text."""
    del logger, method
    kept = {key: value for key, value in event.items() if key in _STRUCTLOGS}
    masked: dict[str, Any] = mask({key: value for key, value in event.items() if key not in _STRUCTLOGS})
    return {**masked, **kept}


_STRUCTLOGS = ("_record", "_from_structlog")
"""Keys by which structlog's formatter finds its way; it takes them out before anything is shown."""


class _Stamp:
    """A structlog processor: which process says this."""

    def __init__(self, *, service: str, host: str) -> None:
        self._fixed = {"service": service, "host": host}

    def __call__(
        self, logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        del logger, method
        return {**event, **{key: event.get(key, value) for key, value in self._fixed.items()}, "pid": os.getpid()}


def _renderer(log_format: str, *, colors: bool) -> structlog.typing.Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer(default=str, ensure_ascii=True)
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0)


def _take_over_stdlib(
    shared: list[structlog.typing.Processor], renderer: structlog.typing.Processor, out: TextIO, level: int
) -> None:
    """aio_pika, sqlalchemy, alembic, kombu and asyncio log through the standard library: one handler, at the root, renders them alike."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _THEIR_OWN_MIND:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.captureWarnings(capture=True)


_OWN = "common"
"""Floors that know no structlog log by the standard library."""

_TOLD_BY_US = ("aiormq.connection",)
"""What it says of a lost connection in fifty lines, tracebacks and an error for each try to connect, our transport says in two."""

_THEIR_OWN_MIND = ("sqlalchemy", "sqlalchemy.engine", "alembic", "kombu", "amqp", "aio_pika", "aiormq", "asyncio")
"""Loggers for which somebody may have set a level or a handler before us."""
