"""Questions and alerts on the way over a client's channel, in the Guardian's own errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from bridge_link.channel import Exchange
from bridge_link.errors import LinkError, Refused, WireError
from bridge_link.wire import Kind, Message
from guardian_link.errors import AlertRefused, DaemonUnreachable
from guardian_link.messages import Alert
from guardian_link.reach import Reach


def begin_alerts(reach: Reach, alerts: Sequence[Alert], *, is_patient: bool = False) -> list[Exchange]:
    """All at once. Raises AlertRefused, DaemonUnreachable: then none is sent.

    Args:
        is_patient: nobody waits for what is decided.
    """
    messages = [Message(Kind.ALERT, alert.id, alert.to_body()) for alert in alerts]
    expects = (Kind.STORED,) if is_patient else (Kind.STORED, Kind.DECIDED)
    try:
        channel = reach.channel()
        exchanges = [channel.prepared(one, expects, is_patient=is_patient) for one in messages]
        channel.begin_all(exchanges)
        return exchanges
    except WireError as error:
        raise AlertRefused(error.code, error.text) from None
    except LinkError as error:  # nobody knows where it is, or it has just moved
        raise DaemonUnreachable(str(error)) from None


def answer_to(
    reach: Reach, exchange: Exchange, kind: Kind, timeout_s: float, said_s: float | None = None
) -> Mapping[str, Any]:
    """Wait for it. ``said_s``: how long was waited in all. Raises AlertRefused, DaemonUnreachable."""
    try:
        return exchange.answers[kind].result(timeout_s)
    except FutureTimeout:
        why = reach.trouble or "does the daemon run, and know this key?"
        text = f"{exchange.address}: no answer within {said_s or timeout_s:g} s; {why}"
        raise DaemonUnreachable(text) from None
    except Refused as refused:
        raise AlertRefused(refused.code, refused.text, is_final=refused.is_final) from None
    except LinkError as error:
        raise DaemonUnreachable(str(error)) from None
