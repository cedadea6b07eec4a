"""``selfheal keys``: who may speak to the daemon over its links. Works on the state directory, without a daemon too."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisors.cli.outside import Outside, command

Name = Annotated[str, typer.Argument(help="The client's name: a-z 0-9 . _ -")]


@command
def new(
    outside: Outside,
    name: Name,
    role: Annotated[list[str], typer.Option("--role", metavar="R", help="guardian, bridge, operator or viewer.")],
    types: Annotated[
        list[str] | None,
        typer.Option("--types", metavar="G", help="Alert types it may send, as globs: 'bridge_*'. May be repeated."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="N/s", help="At most so many alerts and questions a second (5/s, or 5)."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DATE", help="The last day it is good (UTC), or a moment.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where its key file goes; else into the state directory."),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Make the state directory, for a daemon that will use it.")
    ] = False,
) -> None:
    """Make a key for a client; prints the path of its key file. A running daemon knows it within about a second."""
    from supervisors.cli.key_table import make_key  # noqa: PLC0415  slow to import

    make_key(outside, name, role, types or (), rate=rate, expires=expires, out=out, create=create)


@command
def list_(outside: Outside) -> None:
    """Who has a key, and what it is good for."""
    from supervisors.cli.key_table import list_keys  # noqa: PLC0415  slow to import

    list_keys(outside)


@command
def revoke(outside: Outside, name: Name) -> None:
    """Refuse a client from now on, on living connections too. A running daemon does so within about a second.

    What it has not delivered waits there for another key. ``local`` is this user's own, of the command line too.
    """
    from supervisors.cli.key_table import revoke_key  # noqa: PLC0415  slow to import

    revoke_key(outside, name)


COMMANDS = {"new": new, "list": list_, "revoke": revoke}
