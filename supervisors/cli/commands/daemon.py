"""``selfheal run`` and ``selfheal stop``: the daemon's beginning and end."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from actors.init.link import has_init
from supervisors.api.guard import is_loopback
from supervisors.cli.ending import Watched
from supervisors.cli.exits import TIMED_OUT, Quit
from supervisors.cli.imports import importing
from supervisors.cli.outside import Outside, command, seconds_of
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA, DaemonUnreachable
from supervisors.remote import RemoteManager

_LOOK_S: Final = 0.1


@command
def run(
    outside: Outside,
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="What to supervise.")] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Log lines instead of the live tree on a terminal.")] = False,
    exit_with: Annotated[
        str | None, typer.Option("--exit-with", metavar="SERVICE", help="End when it ends, with its exit code.")
    ] = None,
    init: Annotated[bool, typer.Option("--init", help="Run behind a small init, as PID 1 does by itself.")] = False,
) -> None:
    """Run the root supervisor in the foreground: --config, $SELFHEAL_CONFIG, ./selfheal.yaml, or the shipped demo."""
    if outside.choice.address is not None:
        complain("selfheal: --address finds a daemon; this one listens where links.operator.address of its file says")
    if (init or os.getpid() == 1) and not has_init(os.environ):
        from actors.init.entering import become_init  # noqa: PLC0415  only Linux has all of it

        become_init([sys.executable, *sys.orig_argv[1:]])
    with importing():
        from config import find_config  # noqa: PLC0415  slow to import
        from supervisors.cli.live import LiveTree, what_to_try  # noqa: PLC0415  slow to import
        from supervisors.run import run_daemon  # noqa: PLC0415  the whole daemon

    path = find_config(config, os.environ, Path.cwd())
    hints = what_to_try(_option(outside, config))
    is_live = outside.terminal.is_tty and not logs and not outside.as_json
    code = run_daemon(
        path,
        outside.choice.state,
        exit_with=exit_with,
        make_view=(lambda manager: LiveTree(manager, hints)) if is_live else None,
        as_json=outside.as_json,
    )
    raise Quit(code)


def _option(outside: Outside, config: str | None) -> str:
    """What a command in another terminal needs to find this daemon."""
    if outside.choice.state is not None:
        return f"--state {shlex.quote(str(Path(outside.choice.state).absolute()))}"
    if config is None:
        return ""
    from config import ConfigError, load_config, resolve_state_dir  # noqa: PLC0415  slow to import

    try:
        wanted = resolve_state_dir(None, load_config(Path(config), os.environ), os.environ)
    except ConfigError:
        return ""  # ``run_daemon`` tells it
    return "" if wanted == outside.state_dir() else f"--state {shlex.quote(str(wanted))}"


@command
def stop(
    outside: Outside,
    keep_services: Annotated[
        bool, typer.Option("--keep-services", help="Leave all services running for the next daemon.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it has ended.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait.")] = "5m",
) -> None:
    """End the daemon in order, newest first."""
    limit_s = seconds_of(timeout)
    try:
        with outside.manager() as manager:
            pid = manager.info()["pid"]
            watched = None if no_wait else _process(outside, pid)  # looked at before it ends
            manager.shutdown(keep_services=keep_services, by=outside.by)
            has_ended = no_wait or _has_ended(manager, watched, limit_s)
    except DaemonUnreachable:
        ending = _already_ending(outside)
        if ending is None:
            raise
        pid = ending
        watched = None if no_wait else Watched.of(pid)
        has_ended = watched is None or watched.has_ended(limit_s)
    if not has_ended:
        raise Quit(TIMED_OUT, f"the daemon (pid {pid}) had not ended within {limit_s:g} s; it goes on stopping")
    if outside.as_json:
        print_json({"schema": SCHEMA, "stopped": not no_wait, "pid": pid})
    else:
        say("stopping" if no_wait else "stopped")


def _already_ending(outside: Outside) -> int | None:
    """The pid of a daemon that was told to stop before and does not answer any more, when it can be seen from here."""
    from supervisors.single_root import holder  # noqa: PLC0415  only when nobody answers

    directory = outside.base().state_dir
    owner = None if directory is None else holder(directory)
    return owner.pid if owner is not None and owner.is_ending else None


def _process(outside: Outside, pid: int) -> Watched | None:
    """The daemon's process, when it is on this machine."""
    address = outside.base().address
    if address is not None and not is_loopback(_host(address)):
        return None
    return Watched.of(pid)


def _host(address: str) -> str:
    return address.partition("://")[2].partition("/")[0].rpartition(":")[0]


def _has_ended(manager: RemoteManager, watched: Watched | None, limit_s: float) -> bool:
    """Wait for the process's end; of one that cannot be seen, for its silence."""
    if watched is not None:
        return watched.has_ended(limit_s)
    deadline, pause = time.monotonic() + limit_s, threading.Event()
    while time.monotonic() < deadline:
        if _is_silent(manager):
            return True
        pause.wait(_LOOK_S)
    return False


def _is_silent(manager: RemoteManager) -> bool:
    try:
        manager.info()
    except DaemonUnreachable:
        return True
    return False
