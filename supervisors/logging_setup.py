"""How the daemon speaks: human lines on a terminal, JSON otherwise. Standard logging is taken along."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, TextIO

import structlog


class _PatientStream:
    """A log stream whose reader may go away: what cannot be written is lost, and nobody is disturbed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send structlog and standard logging to ``stream`` (standard error by default)."""
    out = stream or sys.stderr
    is_terminal = out.isatty()
    stamp: Any = structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_terminal else "iso", utc=not is_terminal)
    patient: Any = _PatientStream(out)
    shared: list[Any] = [structlog.stdlib.add_log_level, stamp]
    last: list[Any] = (
        # plain: the rich tracebacks it would choose by itself show local variables, among them values of secrets
        [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=patient),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(patient)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
