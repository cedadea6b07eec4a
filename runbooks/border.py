"""The shape of a runbook file, as pydantic models: the border where text comes in. Nothing beyond it sees these.

Every field here is carried out by the engine; one that is not is refused, so that none only looks like protection.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from runbooks.model import CallType, Effect, Op, ParameterType
from runbooks.templating import has_stray_brace

DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_S: Final = 30 * 86400.0


def seconds(value: object) -> float:
    """Seconds of ``5s``, ``200ms``, ``1m``, ``2h``, ``1d`` or a plain number.

    Raises:
        ValueError: it is none of these, or more than 30 days.
    """
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        result = float(found[1]) * _UNIT_S[found[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        result = float(value)
    else:
        raise ValueError("is no duration; write for example 500ms, 5s, 2m, 1h or a number of seconds")
    if not 0 <= result <= _MAX_S:
        raise ValueError("is no duration between 0 and 30 days")
    return result


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as bad:
        raise ValueError(f"is no regular expression: {bad}") from bad
    return text


def _pointer(text: object) -> object:
    if isinstance(text, str) and not text.startswith("/"):
        raise ValueError(f"is no JSON Pointer; write /{text}")
    return text


def _no_stray_brace(template: Any, where: str) -> None:
    match template:
        case str() if has_stray_brace(template):
            raise ValueError(
                f"{where}: a lone brace in {template!r}; placeholders are {{lower_case}}, braces {{{{ }}}}"
            )
        case dict():
            for key, value in template.items():
                _no_stray_brace(value, f"{where}/{key}")
        case list():
            for number, value in enumerate(template):
                _no_stray_brace(value, f"{where}/{number}")


_DURATION_SCHEMA: Final = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$"}]
}
Seconds = Annotated[float, BeforeValidator(seconds), WithJsonSchema(_DURATION_SCHEMA)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Pointer = Annotated[str, BeforeValidator(_pointer), WithJsonSchema({"type": "string", "pattern": "^/"})]
Argv = Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(min_length=1, max_length=256)]
Scalar = bool | int | float | str


class Border(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


class PredicateModel(Border):
    all: list[PredicateModel] | None = Field(default=None, min_length=1)
    any: list[PredicateModel] | None = Field(default=None, min_length=1)
    not_: PredicateModel | None = Field(default=None, alias="not")
    field: Pointer | None = None
    op: Literal["eq", "ne", "in", "ge", "gt", "le", "lt", "matches", "exists"] | None = None
    value: Any = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        forms = [name for name in ("all", "any", "not_", "field") if getattr(self, name) is not None]
        if len(forms) != 1:
            raise ValueError("needs exactly one of all, any, not, field")
        if (self.field is None) != (self.op is None):
            raise ValueError("field and op belong together")
        if self.op is not None:
            _check_operand(Op(self.op), self.value)
        return self


def _check_operand(op: Op, value: Any) -> None:
    if op is Op.EXISTS and not isinstance(value, bool):
        raise ValueError("exists needs true or false as value")
    if op is Op.IN and not (isinstance(value, list) and value):
        raise ValueError("in needs a list of values")
    if op is Op.MATCHES:
        if not isinstance(value, str):
            raise ValueError("matches needs a regular expression as value")
        _pattern(value)
    if op in (Op.GE, Op.GT, Op.LE, Op.LT) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"{op.value} needs a number as value")


class ParameterModel(Border):
    type: Literal["string", "integer", "number", "boolean", "service", "host"]
    from_: Pointer | None = Field(default=None, alias="from")
    required: bool = False
    default: Scalar | None = None
    enum: list[Scalar] | None = Field(default=None, min_length=1)
    pattern: Annotated[str, BeforeValidator(_pattern)] | None = None
    minimum: float | None = Field(default=None, strict=False)
    maximum: float | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.required and self.from_ is None and self.default is None:
            raise ValueError("a required parameter needs from (a JSON Pointer into the alert) or a default")
        is_number = ParameterType(self.type) in (ParameterType.INTEGER, ParameterType.NUMBER)
        if not is_number and (self.minimum is not None or self.maximum is not None):
            raise ValueError("minimum and maximum are for integer and number")
        return self


_SERVICE: Final = (frozenset({"service"}), frozenset[str]())
_ENDPOINT: Final = (frozenset({"endpoint"}), frozenset[str]())
_ARGUMENTS: Final[dict[CallType, tuple[frozenset[str], frozenset[str]]]] = {
    CallType.COMMAND: (frozenset({"argv"}), frozenset({"working_dir"})),
    CallType.COMMAND_OK: (frozenset({"argv"}), frozenset({"working_dir"})),
    CallType.HTTP_REQUEST: (frozenset({"url"}), frozenset({"method", "headers", "body", "expect"})),
    CallType.HTTP_OK: (frozenset({"url"}), frozenset({"expect"})),
    CallType.TCP_CONNECT: (frozenset({"port"}), frozenset({"host"})),
    CallType.BRIDGE_COMMAND: (frozenset({"endpoint", "command"}), frozenset({"parameters"})),
    CallType.BRIDGE_READY: _ENDPOINT,
    CallType.BRIDGE_DONE: _ENDPOINT,
}


def check_arguments(call_type: CallType, arguments: dict[str, Any]) -> None:
    """Whether a call has what its type needs and nothing else.

    Raises:
        ValueError: saying what is missing, unknown or of the wrong kind.
    """
    required, optional = _ARGUMENTS.get(call_type, _SERVICE)
    missing, unknown = sorted(required - arguments.keys()), sorted(arguments.keys() - required - optional)
    if missing:
        raise ValueError(f"{call_type.value} needs {', '.join(missing)}")
    if unknown:
        known = ", ".join(sorted(required | optional))
        raise ValueError(f"{call_type.value} does not know {', '.join(unknown)}; it takes {known}")
    for name, value in arguments.items():
        if not _FITS[name](value):
            raise ValueError(f"{call_type.value}: {name} cannot be {value!r:.80}")
        _no_stray_brace(value, name)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_port(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
    return is_number or (isinstance(value, str) and re.fullmatch(r"\{[a-z][a-z0-9_]*\}", value) is not None)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _are_statuses(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int) and 100 <= one < 600 for one in value)


_FITS: Final = {
    "service": _is_text,
    "working_dir": _is_text,
    "host": _is_text,
    "port": _is_port,
    "argv": lambda value: isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value),
    "url": lambda value: isinstance(value, str) and re.match(r"https?://[^/{}?#]+", value) is not None,
    "method": lambda value: value in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    "headers": lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
    "body": lambda _: True,
    "expect": _are_statuses,
    "endpoint": _is_text,
    "command": _is_text,
    "parameters": _is_map,
}


class CallModel(Border):
    type: Literal[
        "service_restart",
        "service_start",
        "service_stop",
        "service_restore",
        "command",
        "http_request",
        "bridge_command",
        "service_exists",
        "service_ready",
        "service_generation",
        "service_restored",
        "tcp_connect",
        "http_ok",
        "command_ok",
        "bridge_ready",
        "bridge_done",
    ]
    argv: Argv | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    timeout: Seconds | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        check_arguments(CallType(self.type), self.arguments)
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.with_, **({"argv": self.argv} if self.argv is not None else {})}


class CheckModel(Border):
    call: CallModel
    within: Seconds = 0.0
    every: Annotated[Seconds, Field(gt=0)] = 0.5
    hold_for: Seconds = 0.0


class RetryModel(Border):
    attempts: int = Field(default=1, ge=1, le=100)
    delay: Seconds = 1.0
    factor: float = Field(default=2.0, ge=1, le=100, strict=False)
    max_delay: Seconds = 60.0


class RollbackModel(Border):
    call: CallModel
    verify: CheckModel
    attempts: int = Field(default=1, ge=1, le=100)


class DedupModel(Border):
    fingerprint: list[Pointer] | None = Field(default=None, min_length=1)
    window: Seconds = 0.0


class LimitsModel(Border):
    cooldown: Seconds = 0.0


_MUTATING_RULE: Final[dict[str, Any]] = {
    "allOf": [
        {
            "if": {"properties": {"effect": {"const": "mutating"}}, "required": ["effect"]},
            "then": {
                "required": ["probe", "verify"],
                "anyOf": [{"required": ["rollback"]}, {"required": ["irreversible_reason"]}],
            },
        },
        {
            "if": {"properties": {"effect": {"const": "irreversible"}}, "required": ["effect"]},
            "then": {"required": ["probe", "verify", "irreversible_reason"]},
        },
    ]
}


class ActionModel(Border):
    model_config = ConfigDict(json_schema_extra=_MUTATING_RULE)

    id: Id
    name: Text
    action_type: Literal["service_restart", "command", "http_request", "api_call", "bridge_command", "wait_until"]
    effect: Literal["none", "idempotent", "mutating", "irreversible"]
    command: Argv | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    timeout: Seconds = 30.0
    retry: RetryModel = RetryModel()
    probe: CheckModel | None = None
    verify: CheckModel | None = None
    rollback: RollbackModel | None = None
    irreversible_reason: Annotated[str, StringConstraints(min_length=10)] | None = None

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.action_type == "wait_until":
            self._check_wait()
            return self
        check_arguments(self.call_type, self.arguments)
        effect = Effect(self.effect)
        if effect in (Effect.MUTATING, Effect.IRREVERSIBLE):
            missing = [name for name in ("probe", "verify") if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"a {effect.value} action needs {' and '.join(missing)}: nothing is ever done on a guess"
                )
            if self.rollback is None and self.irreversible_reason is None:
                raise ValueError(
                    f"a {effect.value} action needs a rollback, or an irreversible_reason why there is none"
                )
        if effect is Effect.IRREVERSIBLE and (self.rollback is not None or self.irreversible_reason is None):
            raise ValueError("an irreversible action needs an irreversible_reason and has no rollback")
        if self.call_type is CallType.SERVICE_RESTART and effect is not Effect.MUTATING:
            raise ValueError("service_restart has the effect mutating")
        return self

    def _check_wait(self) -> None:
        acting = (self.probe, self.verify, self.rollback, self.command, self.irreversible_reason)
        if self.effect != "none" or any(acting) or self.retry != RetryModel():
            raise ValueError("wait_until only looks: effect none, no command, probe, verify, rollback or retry")
        criterion = self.parameters.get("criterion")
        if criterion not in ("service_ready", "tcp_connect", "http_ok", "bridge_ready"):
            raise ValueError(
                "wait_until needs parameters.criterion: service_ready, tcp_connect, http_ok or bridge_ready"
            )
        check_arguments(CallType(criterion), self.arguments)
        for name in ("every", "hold_for"):
            seconds(self.parameters.get(name, 1))

    @property
    def call_type(self) -> CallType:
        return CallType("http_request" if self.action_type == "api_call" else self.action_type)

    @property
    def arguments(self) -> dict[str, Any]:
        own = {} if self.action_type != "wait_until" else {"criterion", "every", "hold_for"}
        given = {key: value for key, value in self.parameters.items() if key not in own}
        return {**given, **({"argv": self.command} if self.command is not None else {})}


class RunbookModel(Border):
    """A recovery runbook, version 2."""

    schema_: str | None = Field(default=None, alias="$schema")
    schema_version: Literal[2]
    id: Id
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    name: Text
    description: Text
    enabled: bool = True
    priority: int = Field(default=50, ge=0, le=100)
    match: PredicateModel
    parameters: dict[Id, ParameterModel] = Field(default_factory=dict)
    target: Text
    dedup: DedupModel = DedupModel()
    limits: LimitsModel = LimitsModel()
    preconditions: list[CheckModel] = Field(default_factory=list)
    actions: list[ActionModel] = Field(min_length=1)
    success_criteria: list[CheckModel] = Field(min_length=1)
    max_execution_time: Annotated[Seconds, Field(gt=0)] = 600.0
    rollback_on_failure: bool = True
