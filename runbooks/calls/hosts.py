"""Looks at host names and hosts."""

from __future__ import annotations

from typing import Final

from runbooks.calls.amounts import number
from runbooks.calls.family import CheckOutcome, Context, Family, yes_no
from runbooks.model import Call, CallType
from runbooks.ports import Hosts, PortError


def _hosts(context: Context) -> Hosts:
    if context.ports.hosts is None:
        raise PortError("no host can be asked from here")
    return context.ports.hosts


def _resolves(call: Call, context: Context) -> CheckOutcome:
    """A name that does not exist is a no; a name service that says nothing tells nothing."""
    host, wanted = call.arguments["host"], call.arguments.get("address")
    found = _hosts(context).addresses(host, call.timeout_s)
    said = f"{host} is {', '.join(found)}" if found else f"{host}: there is no such name"
    return yes_no(wanted in found if wanted is not None else bool(found), said)


def _ping(call: Call, context: Context) -> CheckOutcome:
    """An answer is a yes, a router's "unreachable" a no; silence tells nothing."""
    host, count = call.arguments["host"], int(number(call.arguments.get("count", 3), "count"))
    is_there = _hosts(context).answers(host, count, call.timeout_s)
    return yes_no(is_there, f"{host} {'answers' if is_there else 'cannot be reached'}")


FAMILY: Final = Family(looks={CallType.DNS_RESOLVES: _resolves, CallType.PING: _ping})
