"""From a file to a checked configuration: find, read, expand, validate, check. Every problem is named at once."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.checks import ALL_CHECKS, known_exit_service
from config.errors import ConfigError, Problem
from config.models import BridgeConfig, GroupConfig, SecretName, ServiceConfig, SystemConfig
from config.private import is_private, veiled
from config.source import Path as KeyPath
from config.source import Source, read_source

SHIPPED: Final = Path(__file__).resolve().parent
DEMO: Final = SHIPPED / "demo.yaml"
VERSION: Final = SystemConfig.model_fields["version"].default
"""What `version:` says. Every file says it, so that one that was cut off to nothing is never taken for a good one."""


def find_config(argument: str | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """The file to use: the argument, `$SELFHEAL_CONFIG`, `./selfheal.yaml`, the shipped demo."""
    named = argument or environ.get("SELFHEAL_CONFIG")
    if named:
        return cwd / named
    here = cwd / "selfheal.yaml"
    return here if here.exists() else DEMO


def resolve_state_dir(argument: str | None, config: SystemConfig | None, environ: Mapping[str, str]) -> Path:
    """The argument, `state_dir` of the file, `$SELFHEAL_STATE`, `$XDG_STATE_HOME/selfheal`, then the home's default."""
    if argument:
        return Path(argument).absolute()
    if config is not None and config.state_dir is not None:
        return config.state_dir
    if environ.get("SELFHEAL_STATE"):
        return Path(environ["SELFHEAL_STATE"]).absolute()
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "selfheal"
    return Path.home() / ".local" / "state" / "selfheal"


def load_config(path: Path, environ: Mapping[str, str]) -> SystemConfig:
    """The checked configuration; relative paths in it are relative to the file.

    Raises:
        ConfigError: with every problem of the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError((Problem(str(path), 0, "", "", "there is no such file"),)) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError((Problem(str(path), 0, "", "", f"cannot be read: {why}"),)) from None
    return parse_config(str(path), text, environ, path.absolute().parent)


def parse_config(file: str, text: str, environ: Mapping[str, str], base: Path) -> SystemConfig:
    """As ``load_config``, from text. ``base`` is what relative paths are relative to."""
    built_in = {"SELFHEAL_PYTHON": sys.executable, "SELFHEAL_STATE": str(resolve_state_dir(None, None, environ))}
    source = read_source(file, text, built_in | dict(environ))
    if source.data is not None and "version" not in source.data:
        source.problem(("version",), "is missing", suggestion=f"write 'version: {VERSION}'")
    config = _validate(source, _absolute(source.data, base)) if source.data is not None else None
    if config is not None:
        for check in ALL_CHECKS:
            for path, message, suggestion in check(config):
                source.problem(path, message, suggestion=suggestion)
    if source.problems or config is None:
        raise ConfigError(tuple(source.problems))
    return config


def ending_with(config: SystemConfig, service: str) -> SystemConfig:
    """The configuration with another ``exit_with``.

    Raises:
        ConfigError: there is no such service.
    """
    made = config.model_copy(update={"exit_with": service})
    problems = tuple(
        Problem("--exit-with", 0, "", "", message, suggestion) for _, message, suggestion in known_exit_service(made)
    )
    if problems:
        raise ConfigError(problems)
    return made


def _absolute(data: Any, base: Path) -> Any:
    """The data with its relative paths made absolute."""
    made = dict(data)
    if "state_dir" in made:
        made["state_dir"] = _from_base(made["state_dir"], base)
    for kind, key in (("services", "working_dir"), ("bridges", "directory")):
        if isinstance(made.get(kind), dict):
            made[kind] = {name: _with_path(one, key, base) for name, one in made[kind].items()}
    if isinstance(made.get("services"), dict):
        made["services"] = {name: _with_files(one, base) for name, one in made["services"].items()}
    links = made.get("links")
    if isinstance(links, dict):
        made["links"] = links = dict(links)
        if "alertmanager" in links:
            links["alertmanager"] = _with_path(links["alertmanager"], "token_file", base)
        operator = links.get("operator")
        if isinstance(operator, dict) and isinstance(operator.get("tokens"), dict):
            tokens = {name: _from_base(one, base) for name, one in operator["tokens"].items()}
            links["operator"] = {**operator, "tokens": tokens}
    if "audit" in made:
        made["audit"] = _with_path(made["audit"], "tip", base)
    if isinstance(made.get("runbooks"), dict):
        made["runbooks"] = _with_runbook_paths(made["runbooks"], base)
    if isinstance(made.get("secrets"), dict):
        made["secrets"] = {name: _with_path(one, "file", base) for name, one in made["secrets"].items()}
    watch = made.get("watch")
    if isinstance(watch, dict) and isinstance(watch.get("paths"), list):
        made["watch"] = {**watch, "paths": [_from_base(one, base) for one in watch["paths"]]}
    return made


def _with_runbook_paths(runbooks: dict[str, Any], base: Path) -> dict[str, Any]:
    made = _with_paths(runbooks, "directories", base)
    for part in ("files", "cleanup"):
        if isinstance(made.get(part), dict):
            made[part] = _with_path(_with_paths(made[part], "roots", base), "quarantine", base)
    return made


def _with_paths(one: dict[str, Any], key: str, base: Path) -> dict[str, Any]:
    paths = one.get(key)
    return {**one, key: [_from_base(path, base) for path in paths]} if isinstance(paths, list) else one


def _with_path(one: Any, key: str, base: Path) -> Any:
    return {**one, key: _from_base(one[key], base)} if isinstance(one, dict) and key in one else one


def _with_files(service: Any, base: Path) -> Any:
    """Environment files (a leading `-` makes one optional) and files of secrets."""
    if not isinstance(service, dict):
        return service
    made = dict(service)
    if isinstance(made.get("environment_files"), list):
        made["environment_files"] = [
            "-" + _from_base(one[1:], base) if isinstance(one, str) and one.startswith("-") else _from_base(one, base)
            for one in made["environment_files"]
        ]
    if isinstance(made.get("secrets"), dict):
        made["secrets"] = {name: _with_path(one, "file", base) for name, one in made["secrets"].items()}
    return made


def _from_base(value: Any, base: Path) -> Any:
    return str(base / Path(value).expanduser()) if isinstance(value, str) else value


def _validate(source: Source, data: Any) -> SystemConfig | None:
    """The configuration, or what of it is sound, so that the whole-file checks find their problems too."""
    try:
        return SystemConfig.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        _complain(source, detail)
    sound = _without({tuple(detail["loc"]) for detail in details}, data)
    try:
        return SystemConfig.model_validate(sound)
    except ValidationError:
        return None  # what is wrong was said already


def _without(bad: set[KeyPath], data: Any) -> Any:
    """A copy in which what has a fault is left out; a faulty service leaves its name and what is sound of its ties."""
    sound = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for path in bad:
        kind = str(path[0]) if path else ""
        members = sound.get(kind)
        if kind not in _ITEMS or len(path) < 2 or not isinstance(members, dict):
            sound.pop(kind, None)
        elif kind == "services" and isinstance(members.get(path[1]), dict) and path[2:] != ("[key]",):
            faulty = {str(one[2]) for one in bad if one[:2] == path[:2] and len(one) > 2}
            members[path[1]] = _ties(members[path[1]], faulty)
        else:
            members.pop(path[1], None)
    return sound


def _ties(service: Mapping[str, Any], faulty: set[str]) -> dict[str, Any]:
    kept = {key: service[key] for key in ("dependencies", "health_check") if key in service and key not in faulty}
    return {**kept, "command": ["-"]}


def _complain(source: Source, detail: ErrorDetails) -> None:
    path = _place(detail)
    if path is None:
        return
    is_secret = "secrets" in path or is_private(path) or _may_hold_a_password(detail["input"])
    shown = "" if is_secret else _short(veiled(detail["input"]))
    message, suggestion = _words(detail, path, shown)
    source.problem(path, message, value=shown, suggestion=suggestion)


def _place(detail: ErrorDetails) -> KeyPath | None:
    """The keys to the value. Where a text may be a `{secret: NAME}` too, both kinds complain: None for one of them."""
    path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    if path[:1] not in _WITH_SECRETS:
        return path
    if path[-1] in _TEXT_KINDS:
        return None if isinstance(detail["input"], Mapping) else path[:-1]
    if path[-1] == SecretName.__name__:
        return None
    return (*path[:-2], path[-1]) if path[-2:-1] == (SecretName.__name__,) else path


_WITH_SECRETS: Final = frozenset({("notifications",), ("runbooks",)})
_TEXT_KINDS: Final = frozenset({"str", "constrained-str"})


def _may_hold_a_password(value: Any) -> bool:
    """A user with a password before a host, without the `://` by which it is known elsewhere."""
    return isinstance(value, str) and "@" in value and "://" not in value


def _words(detail: ErrorDetails, path: KeyPath, shown: str) -> tuple[str, str]:
    """The problem in plain words, and what to do."""
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key", _did_you_mean(str(path[-1]), _known_keys(path[:-1]))
        case "missing":
            return "is missing", ""
        case "literal_error":
            choices = [word.strip(" '\"") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
            return f"{shown} is not one of {', '.join(choices)}", _did_you_mean(str(detail["input"]), choices)
        case "string_pattern_mismatch" if len(path) == 2:
            return f"{path[-1]!r} is no usable name", "use lowercase letters, digits, '-', '_' and '.'"
        case "string_pattern_mismatch":
            text, suggestion = _shape(path)
            return f"{shown} {text}".strip(), suggestion
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" as kind:
            word, bound, sign = _BOUNDS[kind]
            return f"{shown} is too {word}".strip(), f"{bound} {detail['ctx'][sign]:g}"
        case kind:
            text = str(detail["ctx"]["error"]) if kind == "value_error" else _PLAIN.get(kind, detail["msg"].lower())
            return f"{shown} {text}" if shown and text.startswith("is n") else text, ""


def _shape(path: KeyPath) -> tuple[str, str]:
    """What a text at this place is not, and how it is written."""
    known = next((_SHAPES[str(key)] for key in reversed(path[-2:]) if key in _SHAPES), None)
    return known if known is not None else ("is not written as it must be", "")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


_WEB: Final = ("is no web address", "write it as http://127.0.0.1:8081/healthz")
_SHAPES: Final = {
    "http": _WEB,
    "webhook": _WEB,
    "tcp": ("is no address", "write it as 127.0.0.1:5432"),
    "url": ("is no address of a database", "it begins with postgresql://, redis://, rediss:// or unix://"),
    "types": ("is no usable type", "use letters, digits, '-', '_' and '.'"),
    "services": ("is no usable name", "use letters, digits, '-', '_', '.', '/' and ':'"),
    "tokens": ("is no usable name", "use lowercase letters, digits, '-', '_' and '.'"),
    "databases": ("is no usable name", "use lowercase letters, digits, '-', '_' and '.'"),
    "channels": ("is no usable name", "use lowercase letters, digits, '-', '_' and '.'"),
}
"""By the key of the text, or the one above it."""
_BOUNDS: Final = {
    "greater_than": ("small", "it must be more than", "gt"),
    "greater_than_equal": ("small", "the least is", "ge"),
    "less_than": ("large", "it must be less than", "lt"),
    "less_than_equal": ("large", "the most is", "le"),
}
_PLAIN: Final = {
    "path_type": "is no path",
    "finite_number": "is no finite number",
    "tuple_type": "is no list; write it as [a, b]",
    "string_type": "is no text",
    "int_type": "is no whole number",
    "int_parsing": "is no whole number",
    "int_from_float": "is no whole number",
    "float_type": "is no number",
    "float_parsing": "is no number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "model_type": "is no mapping of keys",
    "model_attributes_type": "is no mapping of keys",
    "dict_type": "is no mapping of names",
    "too_short": "is not to be empty",
}


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_keys(path: KeyPath) -> list[str]:
    """The keys a mapping at this place may have."""
    model: Any = SystemConfig
    for part in path:
        model = _inner(model, part)
        if model is None:
            return []
    return list(model.model_fields)


_ITEMS: Final[dict[str, type[BaseModel]]] = {
    "services": ServiceConfig,
    "groups": GroupConfig,
    "bridges": BridgeConfig,
}


def _inner(model: Any, part: str | int) -> Any:
    if isinstance(model, str):
        return _ITEMS[model]
    if model is SystemConfig and part in _ITEMS:
        return str(part)
    field = model.model_fields.get(part)
    if field is None:
        return None
    candidates = (field.annotation, *get_args(field.annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
