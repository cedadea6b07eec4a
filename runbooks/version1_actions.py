"""One step of an old runbook file as a step of version 2. Pure.

A step that says no ``effect`` is taken for mutating and *undeclared*, except where its type can only look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.border import NETWORK, seconds
from runbooks.catalogue import ARGUMENTS
from runbooks.model import CallType, Effect
from runbooks.problems import Level
from runbooks.shellwords import ShellSyntax, argv_of
from runbooks.templating import fill, placeholders

_OLD: Final = frozenset({"retry_count", "retry_delay", "verification_command", "rollback_command"})
_OPTIONAL: Final = frozenset({"command", "probe", "verify", "rollback", "irreversible_reason", "when"})
"""Fields that null stands for the absence of, in version 2 too."""
_EFFECTS: Final = tuple(one.value for one in Effect)
_OF_A_COMMAND: Final = ARGUMENTS[CallType.COMMAND].known - {"argv"}
_ONLY_LOOK: Final = ("wait_until", "network_operation")
_RETRY_DELAY_S: Final = 5.0
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
"""RFC 9110, 9.2.1: they change nothing the client asked for."""
_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "service_restart": {"service_name": "service", "name": "service"},
    "api_call": {"endpoint": "url", "data": "body", "json": "body", "payload": "body"},
    "configuration_change": {
        "config_file": "file",
        "file_path": "file",
        "path": "file",
        "changes": "set",
        "config_changes": "set",
    },
    "resource_cleanup": {"path": "root", "directory": "root", "max_age": "older_than", "max_size": "larger_than"},
    "database_operation": {"db_type": "engine", "database_type": "engine", "connection_string": "url"},
}
"""Words of the old files for arguments of today's calls."""

Said = tuple[str, str, Level]


@dataclass
class Converted:
    """``lacks`` is what must be written beside ``effect`` to have it carried out."""

    raw: dict[str, Any]
    pointer: str
    is_declared: bool
    lacks: str = ""
    is_counted: bool = False
    """Its ``retry`` is what ``retry_count`` says."""
    said: list[Said] = field(default_factory=list)

    def note(self, where: str, text: str) -> None:
        self.said.append((self.pointer + where, text, Level.NOTE))

    def refuse(self, where: str, text: str) -> None:
        self.said.append((self.pointer + where, text, Level.ERROR))


def converted(raw: Mapping[str, Any], pointer: str) -> Converted:
    """The step as version 2; what could not be converted is among ``said``, as an error."""
    made = {key: value for key, value in raw.items() if key not in _OLD and not (value is None and key in _OPTIONAL)}
    one = Converted(made, pointer, is_declared="effect" in raw)
    kind = raw.get("action_type")
    parameters = raw.get("parameters", {})
    made["parameters"] = dict(parameters) if isinstance(parameters, dict) else parameters
    if one.is_declared and raw["effect"] not in _EFFECTS:
        one.refuse("/effect", f"{raw['effect']!r:.40} is none of {', '.join(_EFFECTS)}")
    _retry(raw, one)
    _command(raw, one)
    _renamed(one, _NAMES.get(str(kind), {}))
    if isinstance(made["parameters"], dict):
        _KINDS.get(str(kind), _nothing)(one)
    _verify(raw, one)
    _rollback(raw, one)
    made.setdefault("effect", "mutating")
    lacking = [name for name in ("probe", "verify", "rollback") if name not in made]
    one.lacks = f", and for mutating {', '.join(lacking)}" if lacking else ""
    return one


def _retry(raw: Mapping[str, Any], one: Converted) -> None:
    count, delay = raw.get("retry_count", 0), raw.get("retry_delay", _RETRY_DELAY_S)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        one.refuse("/retry_count", f"{count!r:.40} is no number of tries")
        return
    try:
        seconds(delay)
    except ValueError as bad:
        one.refuse("/retry_delay", f"{delay!r:.40} {bad}")
        return
    if "retry" in raw or "retry_count" not in raw or one.raw.get("effect") == "none":
        return
    one.raw["retry"] = {"attempts": max(1, count), "delay": delay, "factor": 1}
    one.is_counted = True
    one.note("/retry_count", f"{max(1, count)} attempts, {delay!r:.20} s apart")


def _command(raw: Mapping[str, Any], one: Converted) -> None:
    """The line is split once; then the file's own values are put in, each into its word."""
    line = raw.get("command")
    if not isinstance(line, str):
        return
    one.raw.pop("command")
    if raw.get("action_type") in ("service_restart", "network_operation", "api_call") and one.raw["parameters"]:
        one.note("/command", "is not used: the parameters say it all")
        return
    argv = _argv(line, "/command", one, is_check=False)
    if argv is None:
        return
    parameters = one.raw["parameters"]
    if isinstance(parameters, dict) and raw.get("action_type") == "command":
        used = set(placeholders(argv))
        for name in sorted(used & parameters.keys()):
            if not isinstance(parameters[name], (str, int, float)):
                one.refuse(f"/parameters/{name}", f"{parameters[name]!r:.40} is no text, number, true or false")
                return
        argv = _filled(argv, parameters)
        one.raw["parameters"] = {key: value for key, value in parameters.items() if key in _OF_A_COMMAND}
        _say_unused(one, sorted(parameters.keys() - used - _OF_A_COMMAND))
    one.raw["command"] = argv
    one.note("/command", f"is the argument list {argv!r:.200}")


def _argv(line: Any, where: str, one: Converted, *, is_check: bool) -> list[str] | None:
    if isinstance(line, list) and line and all(isinstance(word, str) for word in line):
        return line
    if not isinstance(line, str):
        one.refuse(where, f"{line!r:.40} is no command line")
        return None
    try:
        return argv_of(line, is_check=is_check)
    except ShellSyntax as bad:
        one.refuse(where, str(bad))
        return None


def _filled(argv: list[str], own: Mapping[str, Any]) -> list[str]:
    """What the file says itself is no alert's to choose; every other placeholder stays."""
    made = []
    for word in argv:
        names = set(placeholders(word))
        values = {name: own.get(name, f"{{{name}}}") for name in names}
        made.append(str(fill(word, values)) if names else word)
    return made


def _say_unused(one: Converted, names: Iterable[str]) -> None:
    for name in names:
        one.note("/parameters/" + name.replace("~", "~0").replace("/", "~1"), "is not used")


def _renamed(one: Converted, names: Mapping[str, str]) -> None:
    parameters = one.raw["parameters"]
    if isinstance(parameters, dict):
        for old, new in names.items():
            if old in parameters and new not in parameters:
                parameters[new] = parameters.pop(old)


def _verify(raw: Mapping[str, Any], one: Converted) -> None:
    line = raw.get("verification_command")
    if line is None:
        return
    argv = _argv(line, "/verification_command", one, is_check=True)
    if argv is None:
        return
    if raw.get("verify") is not None or one.raw.get("action_type") in _ONLY_LOOK:
        one.note("/verification_command", "is not used: the step says itself what is looked at")
        return
    one.raw["verify"] = {"call": {"type": "command_ok", "argv": argv}, "within": "30s"}
    one.note("/verification_command", f"is the check command_ok {argv!r:.200}, within 30 s: exit code 0 is a yes")


def _rollback(raw: Mapping[str, Any], one: Converted) -> None:
    line = raw.get("rollback_command")
    if line is None:
        return
    if _argv(line, "/rollback_command", one, is_check=False) is not None:
        one.note("/rollback_command", "is not used: nothing says whether the undoing holds; write rollback")


# -- the types --------------------------------------------------------------------------------------------------------


def _nothing(_one: Converted) -> None:
    """The border says what is wrong."""


def _service_restart(one: Converted) -> None:
    service = {"service": one.raw["parameters"].get("service")}
    if service["service"] is None:
        one.refuse("/parameters", "service_restart needs service_name: which service of the tree")
        return
    _say_unused(one, sorted(one.raw["parameters"].keys() - service.keys()))
    one.raw["parameters"] = service
    one.raw.setdefault("probe", {"call": {"type": "service_generation", "with": service}, "within": "30s"})
    one.raw.setdefault("verify", {"call": {"type": "service_ready", "with": service}, "within": "30s"})
    restored = {"call": {"type": "service_restored", "with": service}, "within": "10s"}
    one.raw.setdefault("rollback", {"call": {"type": "service_restore", "with": service}, "verify": restored})
    one.note("", "is probed by service_generation, verified by service_ready, undone by service_restore")


def _api_call(one: Converted) -> None:
    parameters = one.raw["parameters"]
    if "expected_status" in parameters:
        status = parameters.pop("expected_status")
        parameters["expect"] = status if isinstance(status, list) else [status]
    if not one.is_declared and str(parameters.get("method", "GET")).upper() in _SAFE_METHODS:
        one.raw["effect"], one.is_declared = "none", True
        one.note("", "only reads: effect none")


def _network_operation(one: Converted) -> None:
    known = {kind.value for kind in NETWORK}
    same_as = {"port_check": "tcp_connect", "connectivity": "tcp_connect", "tcp": "tcp_connect", "dns": "dns_resolves"}
    asked = str(one.raw["parameters"].get("operation", ""))
    operation = same_as.get(asked, asked)
    if operation in known:
        one.raw["parameters"]["operation"] = operation
        one.raw["effect"], one.is_declared = "none", True
        if one.is_counted:
            one.raw.pop("retry", None)
        one.note("", f"only looks: {operation}, again and again until its timeout")
    elif "command" in one.raw:
        one.raw["action_type"] = "command"
        one.raw["parameters"] = {}
    else:
        one.refuse("/parameters/operation", f"{asked!r:.40} is none of {', '.join(sorted(known))}")


def _configuration_change(one: Converted) -> None:
    parameters = one.raw["parameters"]
    key = next((parameters.pop(name) for name in ("key", "setting", "config_key") if name in parameters), None)
    if key is not None and "value" in parameters:
        parameters["set"] = {str(key): parameters.pop("value")}
    same = {name: parameters[name] for name in ("file", "format", "set", "remove") if name in parameters}
    one.raw["parameters"] = same
    _say_unused(one, sorted(parameters.keys() - same.keys()))
    file = {"file": same.get("file")}
    one.raw.setdefault("probe", {"call": {"type": "configuration_is", "with": same}})
    one.raw.setdefault("verify", {"call": {"type": "configuration_is", "with": same}})
    one.raw.setdefault(
        "rollback",
        {
            "call": {"type": "configuration_restore", "with": file},
            "verify": {"call": {"type": "configuration_restored", "with": file}},
        },
    )


def _custom_function(one: Converted) -> None:
    parameters = one.raw["parameters"]
    name = parameters.pop("function_name", parameters.pop("function", None))
    inner = parameters.pop("parameters", {})
    if not isinstance(inner, dict):
        one.refuse("/parameters/parameters", f"{inner!r:.40} is no object")
        return
    more = {**parameters, **inner}
    one.raw["parameters"] = {"name": name, **({"parameters": more} if more else {})}
    one.note("/parameters/function_name", f"{name!r:.60} must be a registered function")


_KINDS: Final[Mapping[str, Callable[[Converted], None]]] = {
    "service_restart": _service_restart,
    "api_call": _api_call,
    "network_operation": _network_operation,
    "configuration_change": _configuration_change,
    "custom_function": _custom_function,
}
