"""``selfheal services``: the service manager."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from supervisors.cli.commands.reload import show_applied
from supervisors.cli.exits import FAILED, TIMED_OUT, WRONG_USAGE, Quit
from supervisors.cli.outside import ByOption, Outside, command, seconds_of
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA, ManagerError, Node, Result, TimedOut, UnknownNode
from supervisors.phrases import clean
from supervisors.remote import RemoteManager
from supervisors.render import render_services

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Which services.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All services.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait, e.g. 30s.")]
Named = Annotated[list[str], typer.Argument(metavar="NAME...", help="Which services.", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="Why, for the record.")]


@command
def status(outside: Outside, names: Names = None) -> None:
    """The state of all services, or of those named. Exit code 0 also when one is down; `selfheal tree` tells that."""
    with outside.manager() as manager:
        found = manager.services()
    if names:
        found = _all_named(names, found)
    _print_services(outside, found)


@command
def start(
    outside: Outside,
    names: Names = None,
    everything: All = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    by: ByOption = None,
) -> None:
    """Start services and wait until they are ready. A stop by hand is forgotten."""
    limit_s, who, wait = seconds_of(timeout), by or outside.by, not no_wait
    _command(
        outside,
        _chosen(names, everything),
        lambda manager, name: manager.start(name, by=who, wait=wait, timeout_s=limit_s),
        lambda manager: manager.start_all(by=who, wait=wait, timeout_s=limit_s),
    )


@command
def stop(
    outside: Outside,
    names: Names = None,
    everything: All = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    why: Why = "",
    by: ByOption = None,
) -> None:
    """Stop services; they stay stopped until they are started by hand."""
    limit_s, who, wait = seconds_of(timeout), by or outside.by, not no_wait
    _command(
        outside,
        _chosen(names, everything),
        lambda manager, name: manager.stop(name, by=who, why=why, wait=wait, timeout_s=limit_s),
        lambda manager: manager.stop_all(by=who, why=why, wait=wait, timeout_s=limit_s),
    )


@command
def restart(
    outside: Outside,
    names: Names = None,
    everything: All = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    by: ByOption = None,
) -> None:
    """Stop services, start them again and wait until they are ready."""
    limit_s, who, wait = seconds_of(timeout), by or outside.by, not no_wait
    _command(
        outside,
        _chosen(names, everything),
        lambda manager, name: manager.restart(name, by=who, wait=wait, timeout_s=limit_s),
        lambda manager: manager.restart_all(by=who, wait=wait, timeout_s=limit_s),
    )


@command
def scale(
    outside: Outside,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which service.", show_default=False)],
    replicas: Annotated[int | None, typer.Argument(metavar="N", help="How many; 0: none.", show_default=False)] = None,
    reset: Annotated[bool, typer.Option("--reset", help="As many as the file says.")] = False,
    timeout: Timeout = "60s",
    why: Why = "",
    by: ByOption = None,
) -> None:
    """Run N replicas of a service, remembered until --reset. What is too much is stopped newest first."""
    if reset == (replicas is not None):
        raise Quit(WRONG_USAGE, "say how many replicas, or --reset" + (", not both" if reset else ""))
    with outside.manager() as manager:
        made = manager.scale(name, replicas, by=by or outside.by, why=why, timeout_s=seconds_of(timeout))
    show_applied(outside, made)


@command
def pause(
    outside: Outside,
    names: Named,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    why: Why = "",
    by: ByOption = None,
) -> None:
    """Freeze services: they neither run nor are restarted until they are resumed by hand."""
    limit_s, who, wait = seconds_of(timeout), by or outside.by, not no_wait
    _command(
        outside,
        names,
        lambda manager, name: manager.pause(name, by=who, why=why, wait=wait, timeout_s=limit_s),
    )


@command
def resume(
    outside: Outside, names: Named, no_wait: NoWait = False, timeout: Timeout = "60s", by: ByOption = None
) -> None:
    """Let paused services go on and wait until they are ready; one that does not run is started."""
    limit_s, who, wait = seconds_of(timeout), by or outside.by, not no_wait
    _command(outside, names, lambda manager, name: manager.resume(name, by=who, wait=wait, timeout_s=limit_s))


COMMANDS = {
    "status": status,
    "start": start,
    "stop": stop,
    "restart": restart,
    "scale": scale,
    "pause": pause,
    "resume": resume,
}

OneService = Callable[[RemoteManager, str], Node]
AllServices = Callable[[RemoteManager], list[Result]]


def _chosen(names: Sequence[str] | None, everything: bool) -> list[str] | None:
    """The names, or None for all."""
    if bool(names) == everything:
        raise Quit(WRONG_USAGE, "name services, or say --all" + (", not both" if everything else ""))
    return None if everything else list(names or ())


def _command(outside: Outside, names: list[str] | None, one: OneService, every: AllServices | None = None) -> None:
    """Carry it out for each; what failed is told when all were tried."""
    late = False
    with outside.manager() as manager:
        if names is None:
            results = every(manager) if every is not None else []
        elif len(names) == 1:
            results = [Result(name=names[0], ok=True, service=one(manager, names[0]))]
        else:
            results = []
            for name in names:
                result, was_late = _tried(manager, name, one)
                results.append(result)
                late = late or was_late
        touched = [result["service"] for result in results if "service" in result]
        notes = [f"{node['name']}: {clean(node['note'])}" for node in touched if "note" in node]
        if names is not None and touched:  # a name stands for all replicas
            touched = _all_named([node["name"] for node in touched], manager.services())
    _print_services(outside, touched, results)
    if not outside.as_json:
        for note in notes:
            say(f"note: {note}")
    failed = [result for result in results if not result["ok"]]
    for result in failed:
        complain(f"selfheal: {result.get('error', 'failed')}")
    if failed:
        raise Quit(TIMED_OUT if late else FAILED)


def _tried(manager: RemoteManager, name: str, one: OneService) -> tuple[Result, bool]:
    try:
        return Result(name=name, ok=True, service=one(manager, name)), False
    except ManagerError as error:
        return Result(name=name, ok=False, error=str(error)), isinstance(error, TimedOut)


def _all_named(names: Sequence[str], found: Sequence[Node]) -> list[Node]:
    """Each once, in the order they were named: ``worker`` is all its replicas, ``worker.1`` the first alone."""
    chosen: dict[str, Node] = {}
    for name in names:
        ours = [node for node in found if _is_meant(name, node)]
        if not ours:
            raise UnknownNode(name, None, "service")
        chosen |= {node["path"]: node for node in ours}
    return list(chosen.values())


def _is_meant(name: str, node: Node) -> bool:
    if name in (node["name"], node["path"], f"{node['name']}.1"):
        return True
    family, _, number = node["name"].rpartition(".")
    return family == name and number.isdecimal()


def _print_services(outside: Outside, nodes: Sequence[Node], results: Sequence[Result] = ()) -> None:
    if outside.as_json:
        failed = [{"name": one["name"], "error": one.get("error", "")} for one in results if not one["ok"]]
        print_json({"schema": SCHEMA, "services": nodes} | ({"errors": failed} if results else {}))
    elif nodes:
        terminal = outside.terminal
        say(
            render_services(
                nodes,
                now=time.time(),
                width=terminal.width,
                colour=terminal.colour,
                ascii_only=terminal.ascii_only,
            )
        )
