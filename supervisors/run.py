"""``selfheal run``: from the command line's words to a running daemon and its exit code. Main thread."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

import structlog

from actors.failpoints import DAEMON_VARIABLE, arm, reached, register
from config import ConfigError, ending_with, load_config, resolve_state_dir
from config.cautions import cautions
from supervisors.app import App
from supervisors.daemon import EXIT_FAILED, View
from supervisors.logging_setup import configure_logging
from supervisors.manager import Manager
from supervisors.overseers import Overseers
from supervisors.reload import OwnFile
from supervisors.single_root import RootLock, StateInUse

EXIT_BAD_CONFIG: Final = 2
SWITCH_INTERVAL_S: Final = 0.0005
"""Threads hand over to each other on the way from a death to the next spawn; Python's default of 5 ms is long there."""
LOCK_TAKEN: Final = register("daemon.lock.taken", "the state directory is ours, nothing was read")


def run_daemon(
    config_path: Path,
    state_argument: str | None = None,
    *,
    exit_with: str | None = None,
    make_view: Callable[[Manager], View] | None = None,
    as_json: bool = False,
) -> int:
    """Run the root supervisor in the foreground until it ends; returns the exit code.

    Args:
        exit_with: the service whose end is the daemon's end, instead of the file's.
        make_view: makes what shows the tree meanwhile; without it one line ``ready ADDRESS`` is printed.
        as_json: that line is ``{"schema": 1, "ready": true, "address": ADDRESS, "not_yet_ready": [NAME]}``.
    """
    overseers = Overseers.take(os.environ)
    environ = _environment(state_argument)
    arm(DAEMON_VARIABLE)
    try:
        config = load_config(config_path, environ)
        if exit_with is not None:
            config = ending_with(config, exit_with)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_CONFIG
    state_dir = resolve_state_dir(state_argument, config, environ)
    try:
        with RootLock(state_dir) as lock, _log_place(state_dir, has_view=make_view is not None):
            reached(LOCK_TAKEN)
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            raise_limits()
            own_file = OwnFile(config_path.absolute(), environ)
            _warn(config_path, cautions(config, environ), has_view=make_view is not None)
            daemon = App(config, state_dir, own_file, lock, overseers).daemon(make_view)
            daemon.as_json = as_json
            return daemon.run()
    except StateInUse as error:
        print(f"selfheal: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        where = error.filename or state_dir
        print(
            f"selfheal: cannot use the state directory: {where}: {error.strerror}; choose another --state",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _warn(path: Path, lines: Sequence[str], *, has_view: bool) -> None:
    """In the log; on the terminal too, before the live tree has it."""
    for line in lines:
        structlog.get_logger().warning("the file names what is not there", file=str(path), warning=line)
        if has_view:
            print(f"{path}: warning: {line}", file=sys.stderr)


@contextmanager
def _log_place(state_dir: Path, *, has_view: bool) -> Iterator[None]:
    """Log to standard error, or to a file while the live tree has the terminal."""
    if not has_view:
        configure_logging()
        yield
        return
    with _daemon_log(state_dir) as file:
        configure_logging(file)
        try:
            yield
        finally:
            configure_logging()


def _daemon_log(state_dir: Path) -> TextIO:
    try:
        return (state_dir / "daemon.log").open("a", encoding="utf-8")
    except OSError:  # a full or read-only disk: the view shows what is wrong
        return Path(os.devnull).open("a", encoding="utf-8")


def _environment(state_argument: str | None) -> dict[str, str]:
    """The daemon's environment, with the state directory in it, so that what it starts finds it."""
    environ = dict(os.environ)
    environ["SELFHEAL_STATE"] = str(resolve_state_dir(state_argument, None, environ))
    return environ


def raise_limits() -> None:
    """As many open files as the system lets us have: every service, probe and client needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
