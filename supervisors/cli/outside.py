"""How a command finds the daemon: the options every command has, and what follows from them.

``--state``, ``--address`` and ``--json`` stand before or after any subcommand; the last one said counts.
"""

from __future__ import annotations

import functools
import getpass
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.terminal import Terminal, terminal_of
from supervisors.remote import Base, RemoteManager

StateOption = Annotated[
    str | None, typer.Option("--state", metavar="DIR", help="State directory of the daemon.", show_default=False)
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="URL", help="Address of the daemon, e.g. http://127.0.0.1:8090.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]

ByOption = Annotated[
    str | None, typer.Option("--by", metavar="WHO", help="Who asks, for the record; you, if not given.")
]
AbsoluteOption = Annotated[bool, typer.Option("--absolute", help="Times of day instead of ages.")]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was said so far on the command line."""

    state: str | None = None
    address: str | None = None
    as_json: bool = False

    def then(self, state: str | None, address: str | None, as_json: bool) -> Choice:
        return Choice(state or self.state, address or self.address, as_json or self.as_json)


@dataclass(frozen=True)
class Outside:
    """The daemon as a command sees it."""

    choice: Choice
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    subcommand: str | None = None
    """Of a group: what follows."""

    @property
    def as_json(self) -> bool:
        return self.choice.as_json

    @property
    def terminal(self) -> Terminal:
        return terminal_of(sys.stdout, self.environ)

    @property
    def by(self) -> str:
        """Who gives the commands, for the record."""
        try:
            return f"cli:{getpass.getuser()}"
        except (KeyError, OSError):  # a user without a name, as in many containers
            return f"cli:{os.getuid()}"

    def base(self) -> Base:
        """Where the daemon is: --address, --state, $SELFHEAL_ADDRESS, then the state directory of ``run``."""
        token = self.environ.get("SELFHEAL_TOKEN")
        if self.choice.address is not None:
            return Base(address=self.choice.address, token=token)
        if self.choice.state is None and self.environ.get("SELFHEAL_ADDRESS"):
            return Base(address=self.environ["SELFHEAL_ADDRESS"], token=token)
        return Base(state_dir=self.state_dir())

    def manager(self) -> RemoteManager:
        return RemoteManager(self.base())

    def state_dir(self) -> Path:
        """The state directory ``run`` would use here."""
        if self.choice.state:
            return Path(self.choice.state).absolute()
        from config import resolve_state_dir  # noqa: PLC0415  slow to import

        return resolve_state_dir(None, self._config(), self.environ)

    def existing_state_dir(self, hint: str = "--state names another") -> Path:
        """``state_dir``, for a command that reads it without a daemon. Ends the command when there is none."""
        found = self.state_dir()
        if not found.exists():
            raise Quit(WRONG_USAGE, f"there is no state directory {found}; {hint}")
        if not found.is_dir():
            raise Quit(WRONG_USAGE, f"{found} is no state directory: it is no directory at all")
        return found

    def audit_tips(self) -> tuple[Path, ...]:
        """Where the configuration here puts the audit chain's tip, if its daemon has the state directory meant."""
        from config import resolve_state_dir  # noqa: PLC0415  slow to import

        config = self._config()
        if config is None or config.audit.tip is None:
            return ()
        own = resolve_state_dir(None, config, self.environ)
        return (config.audit.tip,) if own.resolve() == self.state_dir().resolve() else ()

    def _config(self) -> Any:
        """The configuration ``run`` would use here; None when it is the shipped demo (which names no directory), or is
        broken: then the daemon that runs was not started from it.
        """
        from config import DEMO, ConfigError, find_config, load_config  # noqa: PLC0415  slow to import

        path = find_config(None, self.environ, Path.cwd())
        if path == DEMO:
            return None
        try:
            return load_config(path, self.environ)
        except ConfigError:
            return None


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command (or a group of commands) the three options; its first parameter becomes an ``Outside``."""
    first, *own = inspect.signature(function, eval_str=True).parameters.values()
    added = [
        _keyword("daemon_state", StateOption, None),
        _keyword("daemon_address", AddressOption, None),
        _keyword("as_json", JsonOption, False),
    ]

    @functools.wraps(function)
    def with_options(context: typer.Context, **given: Any) -> None:
        before = context.obj if isinstance(context.obj, Choice) else Choice()
        choice = before.then(given.pop("daemon_state"), given.pop("daemon_address"), given.pop("as_json"))
        context.obj = choice
        function(**{first.name: Outside(choice, subcommand=context.invoked_subcommand)}, **given)

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *added]
    del with_options.__wrapped__
    vars(with_options)["__signature__"] = inspect.Signature(parameters)
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def seconds_of(text: str, option: str = "--timeout", most_s: float = 3600.0) -> float:
    """A duration as on the command line (``30s``, ``1m30s``, ``5``), more than 0. Ends the command when it is none."""
    from config.units import seconds  # noqa: PLC0415  slow to import

    try:
        duration_s = seconds(text)
    except ValueError as error:
        raise Quit(WRONG_USAGE, f"{option} {text!r} {error}") from None
    if not 0 < duration_s <= most_s:
        raise Quit(WRONG_USAGE, f"{option} {text!r} is not more than 0 and at most {most_s / 3600:g}h")
    return duration_s
