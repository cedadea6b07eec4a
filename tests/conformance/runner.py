"""Carries out one scenario and says what differed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.conformance.adapter import Adapter

QUIET_S = 0.12
SKIPPED_TAGS = {
    "kill": "a thread cannot be killed from outside",
    "forced_kill": "a thread that does not stop cannot be killed",
}


class Differed(Exception):
    """An expectation did not hold."""


def skipped_for(scenario: dict[str, Any]) -> str | None:
    """The tag a scenario is skipped for, if there is one."""
    return next((tag for tag in scenario.get("tags", ()) if tag in SKIPPED_TAGS), None)


def run(scenario: dict[str, Any], adapter: Adapter | None = None) -> None:
    """Raises Differed, naming the step and both values."""
    adapter = adapter or Adapter()
    try:
        returned = adapter.start(scenario["supervisor"])
        adapter.diary.wait_until_quiet(QUIET_S)
        _check(adapter, {"returns": "ok"} | scenario.get("start", {}), returned, 0, 0.0, "start")
        for number, step in enumerate(scenario["steps"], 1):
            _step(adapter, step, f"step {number} ({step['op']})")
    finally:
        adapter.close()


def _step(adapter: Adapter, step: dict[str, Any], where: str) -> None:
    since = len(adapter.diary.events)
    began = time.monotonic()
    returned = _carry_out(adapter, step)
    took_ms = (time.monotonic() - began) * 1000
    if step["op"] != "check" and step.get("settle", True):
        adapter.diary.wait_until_quiet(QUIET_S)
    _check(adapter, step.get("expect", {}), returned, since, took_ms, where)


def _carry_out(adapter: Adapter, step: dict[str, Any]) -> Any:
    op = step["op"]
    if op in _OPS:
        return _OPS[op](adapter, step)
    name = adapter.named(step)
    sup_path = step.get("sup", "")
    if not sup_path and "/" in name:
        sup_path, _, name = name.rpartition("/")
    prefix = "" if sup_path in ("", "root") else f"{sup_path}/"

    def call() -> Any:
        supervisor = adapter.find(sup_path)
        match op:
            case "start_child" if "key" in step:
                ref = supervisor.start_instance(step["key"])
                return adapter.started(prefix + step["key"], ref)
            case "start_child":
                spec = adapter.child_spec(step["spec"], sup_path if prefix else "")
                ref = supervisor.start_child(spec)
                return adapter.started(prefix + step["spec"]["id"], ref)
            case "restart_child":
                return adapter.started(prefix + name, supervisor.restart_child(name))
            case "terminate_child":
                supervisor.terminate_child(name)
                return "ok"
            case "delete_child":
                supervisor.delete_child(name)
                return "ok"
            case "get_childspec":
                return adapter.childspec(supervisor, name)
        raise AssertionError(f"unknown operation {op!r}")

    return adapter.answer(call)


def _wait(adapter: Adapter, step: dict[str, Any]) -> None:
    with adapter.diary.lock:
        deadline = time.monotonic() + step["ms"] / 1000
        while (left := deadline - time.monotonic()) > 0:
            adapter.diary.lock.wait(left)


def _stop(adapter: Adapter, _step: dict[str, Any]) -> str:
    assert adapter.root is not None
    adapter.root.stop(20.0)
    return "ok"


def _stop_begin(adapter: Adapter, _step: dict[str, Any]) -> str:
    assert adapter.root is not None
    adapter.root.stop_begin()
    return "ok"


_OPS: dict[str, Callable[[Adapter, dict[str, Any]], Any]] = {
    "check": lambda _adapter, _step: None,
    "wait": _wait,
    "exit": lambda adapter, step: adapter.exit(step["child"], step["reason"]),
    "crash_many": lambda adapter, step: adapter.crash_many(step["targets"], step["reason"]),
    "stop_supervisor": _stop,
    "stop_begin": _stop_begin,
    "expect_api_dead": lambda adapter, _step: adapter.answer(lambda: adapter.find("").which_children()),
}


def _check(adapter: Adapter, expect: dict[str, Any], returned: Any, since: int, took_ms: float, where: str) -> None:
    log = adapter.diary.events[since:]
    seen: dict[str, Callable[[Any], Any]] = {
        "returns": lambda wanted: like(returned, wanted),
        "log": lambda _: log,
        "log_unordered": lambda wanted: wanted if sorted(log) == sorted(wanted) else log,
        "children": lambda wanted: _children(adapter, "", wanted),
        "children_unordered": lambda wanted: _any_order(adapter.children(""), wanted),
        "children_of": lambda wanted: {path: _children(adapter, path, wanted[path]) for path in wanted},
        "counts": lambda _: adapter.counts(),
        "supervisor": lambda _: adapter.supervisor_state(),
        "attempts": lambda wanted: {path: adapter.diary.attempts[path] for path in wanted},
        "live": lambda wanted: {path: adapter.diary.live[path] for path in wanted},
        "elapsed_ms": lambda wanted: wanted if wanted[0] <= took_ms <= wanted[1] else round(took_ms),
    }
    for key, wanted in expect.items():
        if key not in seen:
            raise Differed(f"{where}: unknown expectation {key!r}")
        found = seen[key](wanted)
        if found != wanted:
            raise Differed(f"{where}: {key}: expected {wanted}, got {found}")


def _children(adapter: Adapter, path: str, wanted: Any) -> Any:
    """Dynamic children have no order in OTP."""
    found = adapter.children(path)
    return _any_order(found, wanted) if adapter.is_dynamic(path) else found


def like(returned: Any, wanted: Any) -> Any:
    """What was returned, as far as it was asked for: an expected error may leave out the inner detail.

    It may also name the tuples OTP wraps round an error, or the value a bad spec was refused for: those are left out
    on both sides.
    """
    if not (isinstance(wanted, list) and isinstance(returned, list) and wanted[:1] == returned[:1] == ["error"]):
        return returned
    plain: list[str] = []
    for word in map(str, wanted):
        if word not in _WRAPPINGS:
            plain.append(word)
        if word.startswith(("invalid_", "bad_", "missing_")):
            break
    if len(plain) > 2 and plain[1:3] == ["shutdown", "failed_to_start_child"]:
        del plain[1]
    return wanted if [str(word) for word in returned][: len(plain)] == plain else returned


_WRAPPINGS = frozenset({"supervisor_data", "start_spec", "EXIT"})


def _any_order(found: list[Any], wanted: list[Any]) -> list[Any]:
    return wanted if sorted(map(str, found)) == sorted(map(str, wanted)) else found
