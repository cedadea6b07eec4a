"""Making room on a disk: old files are put aside, and put back when the run fails.

Remembered before: the manifest of what is to go. So a death in the middle is seen, and the move goes on with the same
files, or all of them come back.
"""

from __future__ import annotations

from typing import Any, Final

from runbooks.calls.amounts import amount_bytes, duration_s, number
from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, yes_no
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import Cleaning, Cleanups, PortError

MAX_SHOWN: Final = 5


def _key(call: Call) -> str:
    return f"cleanup:{call.arguments['root']}"


def _cleanups(context: Context) -> Cleanups:
    if context.ports.cleanups is None:
        raise PortError("nothing can be put aside here")
    return context.ports.cleanups


def _wanted(call: Call, cleanups: Cleanups) -> Cleaning:
    given, root = call.arguments, call.arguments["root"]
    until_free = None
    if "until_free" in given:
        until_free = amount_bytes(given["until_free"], cleanups.free_bytes(root)[1])
    return Cleaning(
        root=root,
        patterns=tuple(given.get("patterns", ("*",))),
        older_than_s=duration_s(given.get("older_than", 0)),
        larger_than_bytes=amount_bytes(given.get("larger_than", 0), 0),
        keep_newest=int(number(given.get("keep_newest", 0), "keep_newest")),
        most_files=int(number(given.get("most_files", 1000), "most_files")),
        quarantine=given.get("quarantine"),
        until_free_bytes=until_free,
        open_files=given.get("open_files", False) is True,
    )


def _before(call: Call, context: Context) -> tuple[str, Any]:
    """Of the cleanup itself; its probe and its undoing find it under the same name."""
    if call.type is not CallType.RESOURCE_CLEANUP:
        return _key(call), None
    cleanups = _cleanups(context)
    return _key(call), cleanups.choose(_wanted(call, cleanups), context.token)


def _manifest(call: Call, context: Context) -> dict[str, Any]:
    manifest = context.snapshot.get(_key(call))
    if not isinstance(manifest, dict):
        raise PortError(f"{call.arguments['root']}: which files were to go is not known")
    return manifest


def _clean(call: Call, context: Context) -> CallOutcome:
    manifest = _manifest(call, context)
    done = _cleanups(context).move(manifest, call.timeout_s)
    said = f"put aside {done.moved} of {len(manifest['files'])} files, {done.freed_bytes} bytes freed"
    if done.moved:
        said += f", kept in {manifest['home']}"
    if done.skipped:
        said += f"; left: {'; '.join(done.skipped[:MAX_SHOWN])}"
    result = {"moved": done.moved, "skipped": len(done.skipped), "freed_bytes": done.freed_bytes}
    return CallOutcome(ok=True, output=said, result=result)


def _restore(call: Call, context: Context) -> CallOutcome:
    restored = _cleanups(context).restore(_manifest(call, context), call.timeout_s)
    return CallOutcome(ok=True, output=f"put back {restored} files", result={"restored": restored})


def _done(call: Call, context: Context) -> CheckOutcome:
    """Half a move is a no: it goes on from there."""
    manifest = _manifest(call, context)
    now = _cleanups(context).progress(manifest)
    if not manifest["files"]:
        return CheckOutcome(Answer.YES, "there was nothing to put aside")
    return yes_no(now.is_complete, f"{now.aside} of {len(manifest['files'])} files are aside")


def _restored(call: Call, context: Context) -> CheckOutcome:
    now = _cleanups(context).progress(_manifest(call, context))
    if now.troubles:
        return CheckOutcome(Answer.NO, "; ".join(now.troubles[:MAX_SHOWN]))
    return yes_no(now.aside == 0, f"{now.aside} files are aside")


def _disk_free(call: Call, context: Context) -> CheckOutcome:
    path = call.arguments["path"]
    free, whole = _cleanups(context).free_bytes(path)
    wanted = amount_bytes(call.arguments["at_least"], whole)
    return yes_no(free >= wanted, f"{path}: {free} bytes free of {whole}, {wanted} wanted")


FAMILY: Final = Family(
    acts={CallType.RESOURCE_CLEANUP: _clean, CallType.CLEANUP_RESTORE: _restore},
    looks={
        CallType.CLEANUP_DONE: _done,
        CallType.CLEANUP_RESTORED: _restored,
        CallType.DISK_FREE: _disk_free,
    },
    befores=dict.fromkeys(
        (
            CallType.RESOURCE_CLEANUP,
            CallType.CLEANUP_RESTORE,
            CallType.CLEANUP_DONE,
            CallType.CLEANUP_RESTORED,
        ),
        _before,
    ),
)
