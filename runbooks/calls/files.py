"""Changes of configuration files: made whole or not at all, undone to the very bytes.

Remembered before the change: the file's bytes and mode, and the hash of what the change makes of it. So a file that
somebody else edited meanwhile is told from one that we changed, and neither a change nor an undoing runs over it.
"""

from __future__ import annotations

from typing import Any, Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, yes_no
from runbooks.config_files import as_snapshot, from_snapshot, sha256
from runbooks.engine_words import Answer
from runbooks.formats import BadChange, Changes, as_json, changed, format_of, holds
from runbooks.model import Call, CallType
from runbooks.ports import Files, FileState, PortError, Untouched

REMOVED: Final = "absent"


def _key(call: Call) -> str:
    return f"file:{call.arguments['file']}"


def _files(context: Context) -> Files:
    if context.ports.files is None:
        raise PortError("there are no configuration files here; nothing was changed")
    return context.ports.files


def _changes(call: Call) -> tuple[str, Changes]:
    given = call.arguments
    changes = Changes(as_json(given.get("set", {})), tuple(given.get("remove", ())))
    if not changes.set and not changes.remove:
        raise PortError("say what to `set` or `remove`")
    try:
        return format_of(given["file"], given.get("format")), changes
    except BadChange as bad:
        raise PortError(str(bad)) from bad


def _made(call: Call, content: bytes | None) -> bytes:
    form, changes = _changes(call)
    try:
        return changed(content, form, changes)
    except BadChange as bad:
        raise PortError(f"{call.arguments['file']}: {bad}") from bad


def _before(call: Call, context: Context) -> tuple[str, Any]:
    state = _files(context).read(call.arguments["file"])
    remembered = as_snapshot(state)
    if call.type is CallType.CONFIGURATION_CHANGE:
        remembered["after"] = sha256(_made(call, state.content))
    return _key(call), remembered


def _remembered(call: Call, context: Context) -> dict[str, Any]:
    remembered = context.snapshot.get(_key(call))
    if not isinstance(remembered, dict):
        raise PortError(f"{call.arguments['file']}: what it was before is not known")
    return remembered


def _hash(state: FileState) -> str:
    return REMOVED if state.content is None else sha256(state.content)


# -- acting -----------------------------------------------------------------------------------------------------------


def _change(call: Call, context: Context) -> CallOutcome:
    file, files = call.arguments["file"], _files(context)
    before, now = from_snapshot(_remembered(call, context)), files.read(file)
    made = _made(call, before.content)
    if now != before and now.content != made:
        raise Untouched(f"{file}: was changed by somebody else since it was looked at; nothing was written")
    files.replace(file, now, made)
    is_new = now.content != made
    said = f"{file}: {'changed' if is_new else 'is so already'}"
    return CallOutcome(ok=True, output=said, result={"changed": is_new, "sha256": sha256(made)})


def _restore(call: Call, context: Context) -> CallOutcome:
    file, files, remembered = call.arguments["file"], _files(context), _remembered(call, context)
    before, now = from_snapshot(remembered), files.read(file)
    is_ours = now.content == before.content or remembered.get("after") in (None, _hash(now))
    if not is_ours:
        raise PortError(f"{file}: was changed by somebody else since; it is not put back over that")
    files.restore(file, now, before)
    return CallOutcome(ok=True, output=f"{file}: is as it was")


# -- looking ----------------------------------------------------------------------------------------------------------


def _is(call: Call, context: Context) -> CheckOutcome:
    form, changes = _changes(call)
    file = call.arguments["file"]
    state = _files(context).read(file)
    if state.content is None:
        return yes_no(not changes.set, f"{file}: does not exist")
    try:
        problems = holds(state.content, form, changes, quotes=not context.names_secrets)
    except BadChange as bad:
        return CheckOutcome(Answer.UNKNOWN, f"{file}: {bad}")
    return yes_no(not problems, f"{file}: {'; '.join(problems) or 'is so'}")


def _restored(call: Call, context: Context) -> CheckOutcome:
    file = call.arguments["file"]
    before, now = from_snapshot(_remembered(call, context)), _files(context).read(file)
    if now == before:
        return CheckOutcome(Answer.YES, f"{file}: is as it was")
    return CheckOutcome(Answer.NO, f"{file}: {'its mode differs' if now.content == before.content else 'differs'}")


FAMILY: Final = Family(
    acts={CallType.CONFIGURATION_CHANGE: _change, CallType.CONFIGURATION_RESTORE: _restore},
    looks={CallType.CONFIGURATION_IS: _is, CallType.CONFIGURATION_RESTORED: _restored},
    befores=dict.fromkeys(
        (CallType.CONFIGURATION_CHANGE, CallType.CONFIGURATION_RESTORE, CallType.CONFIGURATION_RESTORED), _before
    ),
)
