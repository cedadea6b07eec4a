"""The words of one node's line: ages, sizes, its state in a phrase, why it is down. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from supervisors.manager import REFUSED, Node
from supervisors.tree_json import unix_seconds
from supervisors.wellness import is_bad

CAUSE_SHOWN_FOR_S: Final = 3600.0
"""A ready service tells why it was restarted for this long; ``selfheal why`` tells it for ever."""
CONTAINER_ID_SHOWN: Final = 12  # as `docker ps` does
_COMING_BACK: Final = frozenset({"waiting", "starting", "up", "unknown", "crash_loop", "failed"})
_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")


def clean(text: str) -> str:
    """Text of foreign origin (log lines, error texts) made harmless for a terminal: one line, no control characters."""
    return "".join(char if char.isprintable() else " " for char in _ESCAPE.sub("", text)).strip()


def age(seconds: float) -> str:
    """``40s``, ``12m``, ``3h 5m``, ``3d 4h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def local_time(at: str) -> str:
    """An RFC 3339 moment as this machine's clock on the wall has it, to the second, with its offset."""
    return datetime.fromisoformat(at).astimezone().isoformat(timespec="seconds")


def size(count: int) -> str:
    """Bytes as ``812K``, ``120M``, ``1.2G``."""
    if count < 1024 * 1024:
        return f"{count // 1024}K"
    if count < 1024**3:
        return f"{count // 1024**2}M"
    return f"{count / 1024**3:.1f}G"


def since(at: str | None, now: float) -> str | None:
    return None if at is None else age(now - unix_seconds(at))


def identity(node: Node) -> str:
    """``pid 4211``, a short container id, an endpoint, or a dash."""
    if "container_id" in node:
        return node["container_id"][:CONTAINER_ID_SHOWN]
    if "pid" in node:
        return f"pid {node['pid']}"
    if "endpoint" in node:
        return clean(node["endpoint"])
    return "–" if node["kind"] in ("service", "bridge") else ""  # noqa: RUF001  a dash for "none"


def strategy(node: Node) -> str:
    """``rest_for_one 3/30s``."""
    if "intensity" not in node:
        return node.get("strategy", "")
    return f"{node.get('strategy', '')} {node['intensity']}/{node.get('period_s', 0):g}s"


def status(node: Node, now: float) -> str:
    """The node's state as a phrase."""
    detail = clean(node.get("detail", ""))
    match node["state"]:
        case "up" | "ready" if node["kind"] == "runbook":
            return " ".join(part for part in (detail, since(node.get("since"), now)) if part)
        case "ready":
            return _ready(node, detail, now)
        case "crash_loop" | "failed":
            return _down(node, now)
        case "waiting":
            return _waiting(node, detail, now)
        case "stopped":
            if node.get("replicas") == 0:
                return detail or "scaled to 0"
            by_hand = " by hand" if node["kind"] == "service" and not node["wanted"] else ""
            return _with_detail(desired(node, now) or f"stopped{by_hand}", detail)
        case "paused":
            return _with_detail(desired(node, now) or "paused", detail)
        case "up":
            return _with_detail("up, not ready yet", detail)
        case "degraded":
            return _with_detail("degraded", detail)
        case other:
            wish = desired(node, now)  # it holds whatever is known now
            return _with_detail(other, detail) + ("" if wish is None else f"; {wish}")


def desired(node: Node, now: float) -> str | None:
    """``stopped by alice 3h 5m ago: reason``; None when no person wants anything of it."""
    wish = node.get("desired")
    if wish is None:
        return None
    why = f": {clean(wish['why'])}" if wish["why"] else ""
    return f"{wish['state']} by {clean(wish['by'])} {since(wish['at'], now)} ago{why}"


def restarts(node: Node, now: float) -> str:
    """``↺1 (40s ago: signal SIGKILL)``; nothing when there was none."""
    if not node["restarts"]:
        return ""
    last = node.get("last_exit")
    if last is None:
        return f"↺{node['restarts']}"
    ago = now - unix_seconds(last["at"])
    is_down_in_order = not node["wanted"] or node["state"] == "stopped"  # that end was no reason for a restart
    is_told = node["state"] in _COMING_BACK or ago > CAUSE_SHOWN_FOR_S or is_down_in_order
    why = "" if is_told else f": {clean(last['cause'])}"
    return f"↺{node['restarts']} ({age(ago)} ago{why})"


def reasons(node: Node, now: float) -> list[str]:
    """What stands under an unhealthy node: how its last run ended and what it said last."""
    last = node.get("last_exit")
    is_refused = node.get("detail", "").startswith(REFUSED)
    if last is None or is_refused or node["state"] not in _COMING_BACK or not is_bad(node):
        return []
    is_told = node["state"] in ("crash_loop", "failed")  # the state's own phrase names the cause
    told = [] if is_told else [f"last exit: {clean(last['cause'])}, {since(last['at'], now)} ago"]
    output = [clean(line) for line in last.get("log_tail", [])]
    said = next((line for line in reversed(output) if line), None)
    return told + ([f"last output: {said}"] if said else [])


def _ready(node: Node, detail: str, now: float) -> str:
    ready_for = since(node.get("ready_since"), now)
    if node["kind"] == "supervisor":
        return f"up {ready_for}" if node["path"] == "root" and ready_for else ""
    words = f"ready {ready_for}" if ready_for else "ready"
    return f"{words}, {detail}" if detail else words


def _down(node: Node, now: float) -> str:
    last, again = node.get("last_exit"), node.get("next_try_at")
    words, is_refused = node["state"].upper(), node.get("detail", "").startswith(REFUSED)
    if last is not None and not is_refused:
        words += f" {clean(last['cause'])}"
    if node["restarts_in_window"] > 1:
        words += f" ×{node['restarts_in_window']}"  # noqa: RUF001  "so many times"
    if (last is None or is_refused) and "detail" in node:
        words += f" ({clean(node['detail'])})"
    return words if again is None else f"{words}, {_next_try(again, now)}"


def _waiting(node: Node, detail: str, now: float) -> str:
    words = detail if detail.startswith("waiting") else _with_detail("waiting", detail)
    again = node.get("next_try_at")
    return words if again is None else f"{words}, {_next_try(again, now)}"


def _next_try(at: str, now: float) -> str:
    left = unix_seconds(at) - now
    return "next try now" if left < 1 else f"next try in {age(left)}"


def _with_detail(words: str, detail: str) -> str:
    return f"{words} ({detail})" if detail else words
