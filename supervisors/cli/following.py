"""What ``selfheal events`` does, with the client any Guardian imports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bridge_link.errors import LinkError
from guardian_link.client import GuardianClient
from guardian_link.errors import DaemonUnreachable, EventsLost, GuardianError
from guardian_link.events import Event
from supervisors.cli.alerting import client_of, why_unreachable
from supervisors.cli.exits import FAILED, UNREACHABLE, Quit
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain, print_json, say, table
from supervisors.manager import SCHEMA
from supervisors.phrases import clean

HEAD = ("SEQ", "AT", "PATH", "EVENT", "WHAT")


def show_events(outside: Outside, after: int | None, limit: int, *, follow: bool) -> None:
    """Raises Quit with what the command ends with, when that is not 0."""
    try:
        with client_of(outside) as client:
            if after is None:
                after = max(0, client.events().last - limit)
            if follow:
                _follow(outside, client, after)
            else:
                found = list(_all(client, after))
                _print(outside, found)
                if not found:
                    complain(f"selfheal: no events behind {after}; the last is {client.events().last}")
    except KeyboardInterrupt:
        return
    except (DaemonUnreachable, LinkError) as error:
        raise Quit(UNREACHABLE, why_unreachable(outside, error)) from None
    except GuardianError as error:
        raise Quit(FAILED, str(error)) from None


def _all(client: GuardianClient, after: int) -> Iterator[Event]:
    """Behind ``after``, up to what there was when asked first."""
    page = client.events(after)
    end = page.last
    while page.events and page.events[0].seq <= end:
        yield from page.events
        page = client.events(page.events[-1].seq)


def _follow(outside: Outside, client: GuardianClient, after: int) -> None:
    stream = client.subscribe(after)
    while True:
        try:
            for event in stream:
                if outside.as_json:
                    print_json(asdict(event))
                else:
                    say("  ".join(clean(cell) for cell in _row(event)))
        except EventsLost as lost:
            complain(f"selfheal: {lost}")


def _print(outside: Outside, found: list[Event]) -> None:
    if outside.as_json:
        shown: dict[str, Any] = {"schema": SCHEMA, "events": [asdict(one) for one in found]}
        print_json(shown)
    else:
        say(table(HEAD, [_row(one) for one in found]))


def _row(event: Event) -> tuple[str, ...]:
    return str(event.seq), event.at, event.path, event.event, event.text
