"""``selfheal events``: what happened, in order, and what happens."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisors.cli.outside import Outside, command


@command
def events(
    outside: Outside,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    after: Annotated[
        int | None, typer.Option("--after", min=0, metavar="SEQ", help="Those behind this number (0: all).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, without --after.")] = 20,
) -> None:
    """What happened, oldest first, with numbers; with --follow and --json one event a line."""
    from supervisors.cli.following import show_events  # noqa: PLC0415  slow to import

    show_events(outside, after, limit, follow=follow)
