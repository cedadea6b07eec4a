"""The thin adapter: one scenario's tree, and the run-time calls spelled as the scenarios spell them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from actors.context import ActorSystem
from actors.messages import ExitNow, StopYourself
from actors.refs import ActorGone, ActorRef
from actors.spec import BadSpec, ChildSpec, ChildType, ExitReason, ShutdownKind
from supervisors import AutoShutdown, StartIgnored, Strategy, SupervisionError, Supervisor
from tests.conformance.scripted import (
    TIMEOUT_S,
    Diary,
    RefusedSupervisor,
    ScriptedChild,
    ScriptedSupervisor,
    as_reason,
    flat,
    refused,
)

_TREES = itertools.count(1)
"""Every tree has a root name of its own, so that scenarios can run side by side in one process."""


class Adapter:
    """One scenario's tree."""

    def __init__(self) -> None:
        self.diary = Diary()
        self.system = ActorSystem(observer=self.diary.observe)
        self.name = f"root{next(_TREES)}"
        self.root: Supervisor | None = None
        self._templates: dict[str, str] = {}

    # -- specs ----------------------------------------------------------------------------------------------------

    def supervisor_spec(self, id_: str, sup: dict[str, Any], path: str) -> ChildSpec:
        """A supervisor of the scenario. Raises BadSpec."""
        given = {name: sup[key] for key, name in (("intensity", "intensity"), ("period", "period_s")) if key in sup}
        for key, words in (("strategy", Strategy), ("auto_shutdown", AutoShutdown)):
            if key in sup:
                given[key] = _word(words, sup[key])
        children = [self.child_spec(one, path) for one in sup.get("children", [])]
        if sup.get("strategy") == "simple_one_for_one":
            if len(children) != 1:
                raise BadSpec("bad_start_spec", f"{len(children)} templates instead of one")
            given["template"] = children[0]
            self._templates[path or "root"] = sup["children"][0].get("id", "")
        else:
            given["children"] = children
        spec = Supervisor.spec(id_, **given)
        flags, specs, *_ = spec.args
        declines = sup.get("init") == "ignore"
        return replace(spec, start=ScriptedSupervisor, args=(self.diary, flags, specs), kwargs={"declines": declines})

    def child_spec(self, raw: Any, parent: str) -> Any:
        if not isinstance(raw, dict):
            return raw
        spec = {key: raw[key] for key in ("id", "restart", "shutdown", "significant", "type") if key in raw}
        if isinstance(spec.get("shutdown"), int):
            spec["shutdown"] = spec["shutdown"] / 1000
        if "sup" in raw:
            spec |= self._nested(raw, f"{parent}/{raw.get('id')}" if parent else str(raw.get("id")))
        else:
            spec |= {"start": ScriptedChild, "args": (self.diary, raw.get("start", ["ok"]), raw.get("stop", "prompt"))}
        for key in raw.get("omit", ()):
            spec.pop(key, None)
        return spec

    def _nested(self, raw: dict[str, Any], path: str) -> dict[str, Any]:
        try:
            nested = self.supervisor_spec(str(raw.get("id")), raw["sup"], path)
        except BadSpec as bad:
            return {"start": RefusedSupervisor, "args": (self.diary, bad), "type": "supervisor"}
        return {"start": nested.start, "args": nested.args, "kwargs": nested.kwargs, "type": "supervisor"}

    # -- start, and what is running ---------------------------------------------------------------------------------

    def start(self, sup: dict[str, Any]) -> Any:
        try:
            spec = self.supervisor_spec(self.name, sup, "")
            self.root = Supervisor.start_spec(spec, system=self.system, timeout_s=TIMEOUT_S)
        except StartIgnored:
            return "ignore"
        except BadSpec as bad:
            return ["error", *refused(bad)]
        except SupervisionError as failed:
            if isinstance(failed.reason, ExitReason):
                return ["error", *flat(failed.reason)]
            return ["error", failed.kind, failed.reason]
        return "ok"

    def find(self, path: str) -> Supervisor:
        """The running supervisor at a path. Raises ActorGone when there is none."""
        found = self.root
        for part in () if path in ("", "root") else path.split("/"):
            found = found.supervisor(part) if found is not None else None
        if found is None:
            raise ActorGone(f"no supervisor runs at {path!r}")
        return found

    def _running(self, path: str) -> ActorRef:
        parent, _, child = path.rpartition("/")
        ref = self.find("").ref if path == "root" else self.find(parent).child(child)
        assert ref is not None, f"{path} does not run"
        return ref

    def _end(self, path: str, ref: ActorRef, reason: str) -> None:
        """Let it end by itself: a supervisor too stops its children before it goes."""
        kind = StopYourself if path in self.diary.supervisors else ExitNow
        ref.tell(kind(as_reason(reason)))

    def exit(self, path: str, reason: str) -> None:
        before = self.diary.downs[path]
        self._end(path, self._running(path), reason)
        with self.diary.lock:
            assert self.diary.lock.wait_for(lambda: self.diary.downs[path] > before, TIMEOUT_S), f"{path} lives on"

    def crash_many(self, targets: list[str], reason: str) -> None:
        refs = {path: self._running(path) for path in targets}
        parents = {path.rpartition("/")[0]: self.find(path.rpartition("/")[0]) for path in targets}
        for parent in parents.values():
            parent.suspend()
        for path, ref in refs.items():
            name = f"actor:{self.name}/{path}#"
            threads = [one for one in threading.enumerate() if one.name.startswith(name)]
            self._end(path, ref, reason)
            for thread in threads:  # when its thread is over, the parent has its exit in the inbox
                thread.join(TIMEOUT_S)
                assert not thread.is_alive(), f"{path} lives on"
        self.diary.touch()
        for parent in parents.values():
            parent.resume()

    # -- calls ----------------------------------------------------------------------------------------------------

    def named(self, step: dict[str, Any]) -> str:
        """The child a call names. OTP's dynamic children have no ids: no id stands for an instance."""
        if step["op"] == "terminate_child" and "child" in step:
            return self._templates.get(step.get("sup", "root"), str(step["child"]))
        return str(step.get("key", step.get("child", "")))

    def answer(self, ask: Callable[[], Any]) -> Any:
        """Carry out a call; its answer as the scenarios spell it.

        A caller in OTP whose supervisor ends during the call sees the reason of that end, else noproc.
        """
        gone = "noproc" if self.root is None or not self.root.is_alive else "shutdown"
        try:
            return ask()
        except BadSpec as bad:
            return ["error", *refused(bad)]
        except SupervisionError as failed:
            if failed.kind == "noproc":
                return ["raised", gone]
            if isinstance(failed.reason, ExitReason):
                return ["error", *flat(failed.reason)]
            return ["error", failed.kind]
        except ActorGone:
            return ["raised", "noproc"]

    def started(self, path: str, ref: ActorRef | None) -> list[Any]:
        return ["ok", "undefined" if ref is None else self.diary.starts[path]]

    def is_dynamic(self, path: str) -> bool:
        return (path or "root") in self._templates

    def children(self, path: str) -> list[list[Any]]:
        prefix = "" if path in ("", "root") else f"{path}/"
        return [
            [info.id, info.state, self.diary.starts[prefix + info.id] if info.state == "running" else None]
            for info in self.find(path).which_children()
        ]

    def counts(self) -> dict[str, int]:
        counts = self.find("").count_children()
        return {
            "specs": counts.specs,
            "active": counts.active,
            "supervisors": counts.supervisors,
            "workers": counts.workers,
        }

    def childspec(self, supervisor: Supervisor, child: str) -> Any:
        spec = supervisor.get_childspec(child)
        limit = spec.shutdown_or_default
        shutdown = limit.value if isinstance(limit, ShutdownKind) else round(limit * 1000)
        return [
            "ok",
            {
                "id": spec.id,
                "restart": spec.restart.value,
                "shutdown": shutdown,
                "type": "supervisor" if spec.type is ChildType.SUPERVISOR else "worker",
                "significant": spec.significant,
            },
        ]

    def supervisor_state(self) -> str:
        if self.root is None:
            return "not_started"
        reason = self.diary.root_reason
        return "alive" if reason is None else f"down:{reason}"

    def close(self) -> None:
        if self.root is not None and self.root.is_alive:
            self.root.stop_begin()
            try:
                self.root.wait(TIMEOUT_S)
            finally:
                self.system.close()
        else:
            self.system.close()


def _word(words: Any, value: str) -> Any:
    try:
        return words(value)
    except ValueError:
        return value
