"""The thin adapter: a scripted child, and the run-time calls spelled as the scenarios spell them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from actors.context import ActorContext, ActorSystem
from actors.kernel import IGNORE, StartRefused, SupervisedActor
from actors.messages import ChildExited, ChildIgnored, ChildStarted, ChildStartFailed, ExitNow
from actors.refs import ActorGone
from actors.spec import NORMAL, SHUTDOWN, BadSpec, ChildType, ExitKind, ExitReason, ShutdownKind
from supervisors import AutoShutdown, StartIgnored, Strategy, SupervisionError, Supervisor

TIMEOUT_S = 20.0


@dataclass
class Diary:
    """Everything that happened, in order, as the lifecycle observer of the tree saw it."""

    lock: threading.Condition = field(default_factory=threading.Condition)
    events: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    starts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    live: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    downs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    root_reason: str | None = None
    last_at: float = field(default_factory=time.monotonic)

    def observe(self, path: str, message: object) -> None:
        name = short(path)
        with self.lock:
            match message:
                case ChildStarted():
                    self.starts[name] += 1
                    self.live[name] += 1
                    if name != "root":
                        self._write(f"start {name} ok")
                case ChildIgnored():
                    self._write(f"start {name} ignore")
                case ChildStartFailed():
                    if name != "root":
                        self._write(f"start {name} error")
                case ChildExited(reason=reason):
                    self.live[name] -= 1
                    self.downs[name] += 1
                    if name == "root":
                        self.root_reason = str(reason)
                    self._write(f"down {name} {reason}")
            self.lock.notify_all()

    def _write(self, event: str) -> None:
        self.events.append(event)
        self.last_at = time.monotonic()

    def attempt(self, name: str) -> int:
        with self.lock:
            self.attempts[name] += 1
            self.last_at = time.monotonic()
            return self.attempts[name]

    def wait_until_quiet(self, quiet_s: float) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        with self.lock:
            while (left := self.last_at + quiet_s - time.monotonic()) > 0:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no quiet within {TIMEOUT_S} s: {self.events[-6:]}")
                self.lock.wait(left)


def short(path: str) -> str:
    return path.split("/", 1)[1] if "/" in path else path


class ScriptedChild(SupervisedActor):
    """Starts and stops as its script says."""

    def __init__(self, context: ActorContext, diary: Diary, starts: list[Any], stop: Any) -> None:
        super().__init__(context)
        self._diary, self._starts, self._reaction = diary, starts, stop

    def setup(self) -> object:
        attempt = self._diary.attempt(short(self.context.path))
        return _begin(self._starts[min(attempt, len(self._starts)) - 1])

    def stop_requested(self, reason: ExitReason) -> None:
        match self._reaction:
            case "ignore":
                threading.Event().wait()
            case {"delay_ms": int(pause_ms)}:
                threading.Event().wait(pause_ms / 1000)
                self.exit(reason)
            case {"exit": str(other)}:
                self.exit(as_reason(other))
            case _:
                self.exit(reason)


def _begin(outcome: Any) -> object:
    match outcome:
        case "ok":
            return None
        case "ignore":
            return IGNORE
        case {"error": reason}:
            raise StartRefused(reason)
        case {"raise": reason}:
            raise RuntimeError(reason)
        case {"garbage": value}:
            return value if value is not None else "garbage"
        case {"delay_ms": int(pause_ms), "then": then}:
            threading.Event().wait(pause_ms / 1000)
            return _begin(then)
    raise AssertionError(f"unknown start outcome {outcome!r}")


def as_reason(text: str) -> ExitReason:
    if text == "normal":
        return NORMAL
    if text == "shutdown":
        return SHUTDOWN
    if text.startswith("shutdown:"):
        return ExitReason(ExitKind.SHUTDOWN, text.split(":", 1)[1])
    return ExitReason(ExitKind.CRASHED, text)


def flat(reason: ExitReason) -> list[str]:
    """A failed start as OTP's nested terms, flattened."""
    if "child" in reason.evidence:
        return ["failed_to_start_child", reason.evidence["child"], *flat(reason.evidence["reason"])]
    if "returned" in reason.evidence:
        return [str(reason.evidence["returned"])]
    error = reason.evidence.get("error")
    return [str(error) if error is not None else reason.detail]


class Adapter:
    """One scenario's tree."""

    def __init__(self) -> None:
        self.diary = Diary()
        self.system = ActorSystem(observer=self.diary.observe)
        self.root: Supervisor | None = None

    # -- specs ----------------------------------------------------------------------------------------------------

    def sup_args(self, sup: dict[str, Any], path: str) -> dict[str, Any]:
        args: dict[str, Any] = {}
        if "strategy" in sup:
            args["strategy"] = _word(Strategy, sup["strategy"])
        if "intensity" in sup:
            args["intensity"] = sup["intensity"]
        if "period" in sup:
            args["period_s"] = sup["period"]
        if "auto_shutdown" in sup:
            args["auto_shutdown"] = _word(AutoShutdown, sup["auto_shutdown"])
        children = [self.child_spec(one, path) for one in sup.get("children", [])]
        if sup.get("strategy") == "simple_one_for_one":
            args["template"] = children[0]
        else:
            args["children"] = children

        def init() -> object:
            self.diary.attempt(path or "root")
            return IGNORE if sup.get("init") == "ignore" else None

        return args | {"init": init}

    def child_spec(self, raw: Any, parent: str) -> Any:
        if not isinstance(raw, dict):
            return raw
        path = f"{parent}/{raw.get('id')}" if parent else str(raw.get("id"))
        spec = {key: raw[key] for key in ("id", "restart", "shutdown", "significant", "type") if key in raw}
        if isinstance(spec.get("shutdown"), int):
            spec["shutdown"] = spec["shutdown"] / 1000
        if "sup" in raw:
            nested = Supervisor.spec(raw["id"], **self.sup_args(raw["sup"], path))
            spec |= {"start": nested.start, "args": nested.args}
            spec.setdefault("type", "supervisor")
        else:
            spec |= {"start": ScriptedChild, "args": (self.diary, raw.get("start", ["ok"]), raw.get("stop", "prompt"))}
        for key in raw.get("omit", ()):
            spec.pop(key, None)
        return spec

    # -- calls ----------------------------------------------------------------------------------------------------

    def start(self, sup: dict[str, Any]) -> Any:
        try:
            self.root = Supervisor.start(system=self.system, timeout_s=TIMEOUT_S, **self.sup_args(sup, ""))
        except StartIgnored:
            return "ignore"
        except BadSpec as bad:
            return ["error", bad.kind]
        except SupervisionError as failed:
            if isinstance(failed.reason, ExitReason):
                return ["error", *flat(failed.reason)]
            return ["error", failed.kind, failed.reason]
        return "ok"

    def find(self, path: str) -> Supervisor:
        """The running supervisor at a path."""
        assert self.root is not None
        found: Supervisor | None = self.root
        for part in () if path in ("", "root") else path.split("/"):
            assert found is not None, path
            found = found.supervisor(part)
        assert found is not None, path
        return found

    def split(self, path: str) -> tuple[Supervisor, str]:
        parent, _, child = path.rpartition("/")
        return self.find(parent), child

    def exit(self, path: str, reason: str) -> None:
        supervisor, child = self.split(path)
        ref = supervisor.ref if path == "root" else supervisor.child(child)
        assert ref is not None, f"{path} does not run"
        before = self.diary.downs[path]
        ref.tell(ExitNow(as_reason(reason)))
        with self.diary.lock:
            assert self.diary.lock.wait_for(lambda: self.diary.downs[path] > before, TIMEOUT_S), f"{path} lives on"

    def crash_many(self, targets: list[str], reason: str) -> None:
        parents = {self.split(path)[0].path: self.split(path)[0] for path in targets}
        refs = [self.split(path)[0].child(self.split(path)[1]) for path in targets]
        for parent in parents.values():
            parent.suspend()
        for path, ref in zip(targets, refs, strict=True):
            assert ref is not None, path
            threads = [one for one in threading.enumerate() if one.name.startswith(f"actor:root/{path}#")]
            ref.tell(ExitNow(as_reason(reason)))
            for thread in threads:
                thread.join(TIMEOUT_S)
        for parent in parents.values():
            parent.resume()

    def answer(self, ask: Any) -> Any:
        """Carry out a call; its answer as the scenarios spell it."""
        try:
            return ask()
        except BadSpec as bad:
            return ["error", bad.kind]
        except SupervisionError as refused:
            if refused.kind == "noproc":
                return ["raised", "noproc"]
            if isinstance(refused.reason, ExitReason):
                return ["error", *flat(refused.reason)]
            return ["error", refused.kind]
        except ActorGone:
            return ["raised", "noproc"]

    def started(self, supervisor: Supervisor, path: str, ref: object) -> list[Any]:
        if ref is None:
            infos = {info.id: info.state for info in supervisor.which_children()}
            if infos.get(path.rpartition("/")[2]) != "running":
                return ["ok", "undefined"]
        return ["ok", self.diary.starts[path]]

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
