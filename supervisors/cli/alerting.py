"""What ``selfheal alert send`` does, with the client any Guardian imports."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bridge_link.errors import KeyRefused, LinkError
from guardian_link import errors
from guardian_link.client import GuardianClient
from guardian_link.messages import Ack, Alert, BadAlert, Outcome
from supervisors.cli.exits import FAILED, SOMETHING_DOWN, TIMED_OUT, UNREACHABLE, WELL, WRONG_USAGE, Quit
from supervisors.cli.near import nearest
from supervisors.cli.outside import Outside
from supervisors.cli.own_key import check_own_key
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA, DaemonUnreachable, ManagerError, UnknownNode
from supervisors.phrases import clean, status
from supervisors.single_root import holder
from supervisors.tree_json import find

GUARDIAN_PATH: Final = "root/links/guardian"
WITH_OPTION: Final = ("type", "service", "severity", "message")
"""Fields of an alert that have an option of their own."""
ONLY_AS_FIELD: Final = ("source", "dedup_key", "id")
"""Fields of an alert that ``--field`` sets; every other key becomes a label."""
FIELDS: Final = (*WITH_OPTION, "source", "dedup_key", "labels")
_WORDS: Final = {"run": "accepted"}
"""Outcomes are told by their own names, but for this one."""


def send_alert(
    outside: Outside, file: str | None, said: Mapping[str, Any], fields: Sequence[str], *, limit_s: float, wait: bool
) -> None:
    """Send it and tell what was decided; with ``wait`` also what came of it.

    Args:
        said: fields of the alert; None: not said.
        limit_s: seconds to wait for the end.

    Raises:
        Quit: what the command ends with, when that is not 0.
    """
    alert = _alert(file, {key: value for key, value in said.items() if value is not None}, fields)
    outcome: Outcome | None = None
    try:
        with client_of(outside) as client:
            ack = client.send(alert, timeout_s=min(limit_s, 10.0))
            if not outside.as_json:
                say(_told(ack))
            if wait and ack.execution_id is not None:
                outcome = client.wait(ack.execution_id, timeout_s=limit_s)
    except errors.AlertRefused as refused:
        raise Quit(FAILED, f"the alert was refused: {refused}") from None
    except KeyRefused as error:
        raise Quit(FAILED, str(error)) from None
    except errors.OutcomeTimeout as late:
        raise Quit(TIMED_OUT, str(late)) from None
    except (errors.DaemonUnreachable, LinkError) as error:
        raise Quit(UNREACHABLE, why_unreachable(outside, error)) from None
    _print_end(outside, ack, outcome)
    if wait:
        raise Quit(*_end(ack, outcome))


def _alert(file: str | None, said: Mapping[str, Any], fields: Sequence[str]) -> Alert:
    """From the file, overruled by what was said. Ends the command when it is no alert."""
    raw: dict[str, Any] = {"source": "cli", **_read(file), **said} if file is not None else {"source": "cli", **said}
    if file is None and "type" not in raw:
        raise Quit(WRONG_USAGE, "an alert needs --type (or --file)")
    labels = raw.get("labels")
    added = dict(_field(one) for one in fields)
    raw |= {key: added.pop(key) for key in ONLY_AS_FIELD if key in added}
    given = [*added, *(key for key in raw if key != "labels")]
    if added:
        raw["labels"] = {**(labels if isinstance(labels, Mapping) else {}), **added}
    try:
        alert = Alert.from_mapping(raw)
    except BadAlert as bad:
        raise Quit(WRONG_USAGE, f"this is no alert: {bad}") from None
    for key in given:
        meant = nearest(key, FIELDS) if key in alert.labels else None
        if meant is not None:
            complain(
                f"selfheal: {key!r} is no field of an alert, it became the label {key}; did you mean {_to_say(meant)}?"
            )
    return alert


def _to_say(field: str) -> str:
    return f"{field} (--{field})" if field in WITH_OPTION else field


def _read(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
        raw = json.loads(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Quit(WRONG_USAGE, f"--file {file}: {why}") from None
    if not isinstance(raw, dict):
        raise Quit(WRONG_USAGE, f"--file {file}: an alert is a JSON object")
    return raw


def _field(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise Quit(WRONG_USAGE, f"--field {text!r} is not K=V")
    if key in WITH_OPTION:
        raise Quit(WRONG_USAGE, f"--field {text!r}: {key} is a field of its own; say --{key} {value}")
    return key, value


def client_of(outside: Outside) -> GuardianClient:
    """By --address (the link's own, or the daemon's HTTP address, which knows it), --state, or the environment.

    Raises Quit when the key is known to be refused.
    """
    check_own_key(outside)
    base = outside.base()
    if base.address is not None and "://" in base.address and not base.address.startswith("http"):
        return GuardianClient(base.address, state_dir=outside.state_dir())
    if base.address is not None and not _is_found_elsewhere(outside):
        return GuardianClient(_asked(outside), state_dir=outside.state_dir())
    if _is_found_elsewhere(outside):
        return GuardianClient()
    return GuardianClient(state_dir=base.state_dir)


def why_unreachable(outside: Outside, error: Exception) -> str:
    """What the daemon itself says of its guardian link, where it is found and the link is not well; else the error's
    own words.
    """
    directory = outside.base().state_dir
    if directory is None or _is_found_elsewhere(outside):
        return str(error)
    try:
        with outside.manager() as manager:
            link = find(manager.tree()["root"], GUARDIAN_PATH)
    except UnknownNode:
        return f"the daemon has no guardian link; see 'selfheal tree links' ({error})"
    except DaemonUnreachable as gone:
        is_known_better = holder(directory) is not None or not directory.is_dir()
        return str(gone if is_known_better else error)
    except ManagerError:
        return str(error)
    if link["state"] == "ready":
        return str(error)
    return f"the daemon runs, but its guardian link is not well: {status(link, time.time())}; see 'selfheal tree links'"


def _is_found_elsewhere(outside: Outside) -> bool:
    """Whether only $SELFHEAL_GUARDIAN says where: nothing was said on the command line."""
    said = outside.choice.address is not None or outside.choice.state is not None
    return not said and bool(outside.environ.get("SELFHEAL_GUARDIAN"))


def _asked(outside: Outside) -> str:
    """The guardian link's address, as the daemon's tree shows it."""
    with outside.manager() as manager:
        root = manager.tree()["root"]
    try:
        endpoint = find(root, GUARDIAN_PATH).get("endpoint")
    except UnknownNode:
        endpoint = None
    if endpoint is None:
        raise Quit(UNREACHABLE, "the daemon has no guardian link that is up; see 'selfheal tree links'")
    return endpoint


def _told(ack: Ack) -> str:
    """``accepted ID execution EID``; what is not accepted has its reason behind it."""
    if ack.decision is None:
        return f"stored {ack.id}"
    word = _WORDS.get(ack.decision.outcome, ack.decision.outcome)
    execution = f" execution {ack.execution_id}" if ack.execution_id is not None else ""
    is_why_told = ack.decision.reason and ack.decision.outcome != "run"
    return f"{word} {ack.id}{execution}" + (f" ({clean(ack.decision.reason)})" if is_why_told else "")


def _print_end(outside: Outside, ack: Ack, outcome: Outcome | None) -> None:
    if outside.as_json:
        decision = ack.decision
        told = {
            "schema": SCHEMA,
            "id": ack.id,
            "status": ack.status,
            "outcome": decision.outcome if decision is not None else None,
            "execution_id": ack.execution_id,
            "runbook": decision.runbook if decision is not None else None,
            "reason": decision.reason if decision is not None else "",
        }
        end = {"execution": {"status": outcome.status, "detail": outcome.detail}} if outcome is not None else {}
        print_json(told | end)
    elif outcome is not None:
        word = "recovered" if outcome.is_recovered else outcome.status
        say(f"{word} {outcome.execution_id}" + (f": {outcome.detail}" if outcome.detail else ""))


def _end(ack: Ack, outcome: Outcome | None) -> tuple[int, str | None]:
    """The exit code of ``--wait``, and what to say."""
    if outcome is not None:
        return (WELL, None) if outcome.is_recovered else (FAILED, f"recovery {outcome.execution_id}: {outcome.status}")
    if ack.decision is None:
        return TIMED_OUT, f"alert {ack.id} is stored and not decided yet; see 'selfheal alerts'"
    reason = f": {ack.decision.reason}" if ack.decision.reason else ""
    return SOMETHING_DOWN, f"nothing was recovered ({ack.decision.outcome}{reason})"
