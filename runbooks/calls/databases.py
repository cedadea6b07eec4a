"""Calls about PostgreSQL and Redis, through the database port.

What an operation does to the world: ``health`` nothing. ``terminate_idle`` and ``terminate_blocking`` bear repeating
(they end who fits the rule *now*) and cannot be undone: a client whose session ended connects anew. ``clear_locks`` on
Redis bears repeating too and is undone by ``restore_locks`` from the snapshot; on PostgreSQL it ends sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from config.units import seconds
from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, yes_no
from runbooks.catalogue import ALIASES
from runbooks.database_urls import REDIS, engine_of
from runbooks.database_words import (
    Database,
    DatabaseLimits,
    Databases,
    DatabaseTrouble,
    DatabaseView,
    LockKey,
    SessionRules,
    Sessions,
    SessionsEnded,
)
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import PortError

MOST_TOLD: Final = 50
"""Sessions named in a result; their number is told in full."""
_WHICH: Final = {
    "terminate_idle": Sessions.IDLE,
    "terminate_blocking": Sessions.BLOCKING,
    "clear_locks": Sessions.HOLDING,
}
_OUT: Final = frozenset(
    {
        DatabaseTrouble.DOWN,
        DatabaseTrouble.STARTING,
        DatabaseTrouble.HUNG,
        DatabaseTrouble.FULL,
        DatabaseTrouble.DENIED,
    }
)
"""We did not get in, or got no answer: what is inside is not known."""


def _port(context: Context) -> Databases:
    if context.ports.databases is None:
        raise PortError("there are no databases for runbooks here")
    return context.ports.databases


def _database(call: Call, context: Context) -> Database:
    """The url of the call, or that of its service."""
    found = _known(call, context)
    if found is None:
        service = call.arguments.get("service")
        raise PortError(
            f"nobody can look into {service!r}: its url is missing from the configuration's runbooks.databases"
            if service is not None
            else "the database is missing: give its service or its url"
        )
    return found


def _known(call: Call, context: Context) -> Database | None:
    given = call.arguments
    if isinstance(given.get("url"), str):
        return Database(given["url"], given.get("engine"))
    found = _port(context).of_service(str(given["service"])) if "service" in given else None
    return found if found is None else Database(found.url, given.get("engine"))


def _seconds(given: Mapping[str, Any], name: str, default_s: float) -> float:
    value = given.get(name, default_s)
    try:
        return seconds(str(value))
    except ValueError as error:
        raise PortError(f"{name} {value!r:.40} {error}") from None


def _share(given: Mapping[str, Any], default: float) -> float:
    """0.9 of ``90%``, ``0.9`` or 0.9."""
    value = given.get("share", default)
    try:
        share = float(value.removesuffix("%")) / 100 if str(value).endswith("%") else float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise PortError(f"share {value!r:.40} is none; write for example 90%")
    return share


def _limits(given: Mapping[str, Any]) -> DatabaseLimits:
    usual = DatabaseLimits()
    return DatabaseLimits(_share(given, usual.share), _seconds(given, "blocked_for", usual.blocked_for_s))


def _rules(given: Mapping[str, Any]) -> SessionRules:
    usual = SessionRules()
    return SessionRules(
        _seconds(given, "idle_for", usual.idle_for_s),
        _seconds(given, "blocked_for", usual.blocked_for_s),
        tuple(map(str, given.get("keep", ()))),
    )


# -- acting -----------------------------------------------------------------------------------------------------------


def _operate(call: Call, context: Context) -> CallOutcome:
    operation = _operation(call)
    if operation == "health":
        return _health(call, context)
    database = _database(call, context)
    if operation == "restore_locks":
        return _restore_locks(call, context, database)
    if operation == "clear_locks" and engine_of(database) == REDIS:
        return _clear_locks(call, context, database)
    done = _port(context).end_sessions(database, _WHICH[operation], _rules(call.arguments), call.timeout_s)
    result = _result(done)
    told = f"{result['ended']} sessions ended, {result['cancelled']} only stopped, {result['left']} left alone"
    return CallOutcome(ok=True, output=told, result=result)


def _operation(call: Call) -> str:
    given = str(call.arguments["operation"])
    return ALIASES.get(given, given)


def _result(done: SessionsEnded) -> dict[str, Any]:
    return {
        "ended": len(done.ended),
        "cancelled": len(done.cancelled),
        "left": len(done.left),
        "sessions": [
            dict(one) | {"was": was}
            for was, group in (("ended", done.ended), ("cancelled", done.cancelled), ("left", done.left))
            for one in group
        ][:MOST_TOLD],
    }


def _health(call: Call, context: Context) -> CallOutcome:
    """What is wrong, as a result: it fails only when nobody can tell."""
    service, database = call.arguments.get("service"), _known(call, context)
    view, result = None, dict[str, Any]()
    if database is not None:
        view = _port(context).view(database, _limits(call.arguments), call.timeout_s)
    state = None if service is None else context.ports.services.status(str(service))
    if view is None and state is None:
        raise PortError(
            "health needs a url or a service" if service is None else f"no service {service!r} is configured"
        )
    if view is None and state is not None:
        trouble = DatabaseTrouble.UNSEEN if state.ready else DatabaseTrouble.DOWN
        told = f"service {service!r} is {state.state}; nobody looks inside: runbooks.databases has no url of it"
        result = {"trouble": trouble.value, "detail": told}
    elif view is not None:
        result = _seen(view)
    result["inside"] = view is not None
    if state is not None:
        result |= {"service_state": state.state, "service_ready": state.ready, "service_wanted": state.is_wanted}
    return CallOutcome(ok=True, output=f"{result['trouble']}: {result['detail']}", result=result)


def _seen(view: DatabaseView) -> dict[str, Any]:
    share = view.share
    return asdict(view) | {
        "trouble": view.trouble.value,
        "share": None if share is None else round(share, 3),
    }


def _clear_locks(call: Call, context: Context, database: Database) -> CallOutcome:
    keys = _remembered(call, context)
    removed = _port(context).remove_keys(database, keys, call.timeout_s)
    changed = [key.name for key in keys if key.name not in removed]
    told = f"{len(removed)} lock keys deleted" + (f", {len(changed)} changed meanwhile and left" if changed else "")
    return CallOutcome(ok=True, output=told, result={"ended": len(removed), "keys": list(removed), "left": changed})


def _restore_locks(call: Call, context: Context, database: Database) -> CallOutcome:
    restored = _port(context).restore_keys(database, _remembered(call, context), call.timeout_s)
    return CallOutcome(ok=True, output=f"{len(restored)} lock keys put back", result={"keys": list(restored)})


def _remembered(call: Call, context: Context) -> tuple[LockKey, ...]:
    before = context.snapshot.get(_snapshot_name(call))
    if before is None:
        raise PortError("it is not known which lock keys there were before")
    return tuple(LockKey(str(one["name"]), str(one["value"])) for one in before)


def _snapshot_name(call: Call) -> str:
    return f"database_keys:{' '.join(map(str, call.arguments.get('keys', ())))}"


def _before(call: Call, context: Context) -> tuple[str, Any]:
    """Lock keys with their values; other operations have nothing to remember."""
    name = _snapshot_name(call)
    if not call.arguments.get("keys"):
        return name, None
    keys = _port(context).lock_keys(_database(call, context), *_which_keys(call), call.timeout_s)
    return name, [asdict(key) for key in keys]


def _which_keys(call: Call) -> tuple[tuple[str, ...], float]:
    patterns = tuple(map(str, call.arguments["keys"]))
    return patterns, _seconds(call.arguments, "blocked_for", DatabaseLimits().blocked_for_s)


# -- looking ----------------------------------------------------------------------------------------------------------


def _view(call: Call, context: Context) -> DatabaseView:
    return _port(context).view(_database(call, context), _limits(call.arguments), call.timeout_s)


def _ok(call: Call, context: Context) -> CheckOutcome:
    """Yes when it answers a question, whatever else may be wrong with it."""
    view = _view(call, context)
    is_ok = view.trouble not in _OUT and not (view.trouble is DatabaseTrouble.BLOCKED and view.engine == REDIS)
    return yes_no(is_ok, f"{view.engine} {view.trouble.value}: {view.detail}")


def _sessions_below(call: Call, context: Context) -> CheckOutcome:
    """Full is a no: there is no connection left to look with."""
    view = _view(call, context)
    told = f"{view.engine} {view.trouble.value}: {view.detail}"
    if view.trouble is DatabaseTrouble.FULL:
        return CheckOutcome(Answer.NO, told)
    if view.share is None:
        return CheckOutcome(Answer.UNKNOWN, told)
    return yes_no(view.share < _share(call.arguments, 1.0), told)


def _unblocked(call: Call, context: Context) -> CheckOutcome:
    """With ``keys``: no lock key that fits was left so long; after ``clear_locks`` none of those it was to delete."""
    view = _view(call, context)
    told = f"{view.engine} {view.trouble.value}: {view.detail}"
    if view.trouble in _OUT:
        return CheckOutcome(Answer.UNKNOWN, told)
    if view.trouble is DatabaseTrouble.BLOCKED or "keys" not in call.arguments:
        return yes_no(view.trouble is not DatabaseTrouble.BLOCKED, told)
    port, database = _port(context), _database(call, context)
    if context.snapshot.get(_snapshot_name(call)) is None:
        names = port.lock_names(database, *_which_keys(call), call.timeout_s)
    else:
        names = port.keys_standing(database, _remembered(call, context), call.timeout_s)
    return yes_no(not names, f"lock keys left: {', '.join(names)}" if names else told)


def _restored(call: Call, context: Context) -> CheckOutcome:
    """A lock that somebody has taken anew is there again: it is his."""
    keys = _remembered(call, context)
    missing = _port(context).keys_missing(_database(call, context), keys, call.timeout_s)
    return yes_no(not missing, f"missing: {', '.join(missing)}" if missing else f"{len(keys)} lock keys are there")


FAMILY: Final = Family(
    acts={CallType.DATABASE_OPERATION: _operate},
    looks={
        CallType.DATABASE_OK: _ok,
        CallType.DATABASE_SESSIONS_BELOW: _sessions_below,
        CallType.DATABASE_UNBLOCKED: _unblocked,
        CallType.DATABASE_RESTORED: _restored,
    },
    befores=dict.fromkeys((CallType.DATABASE_OPERATION, CallType.DATABASE_RESTORED), _before),
)
