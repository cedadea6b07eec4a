"""The shape of a runbook file, as pydantic models: the border where text comes in. Nothing beyond it sees these.

Every field here is carried out by the engine; one that is not is refused, so that none only looks like protection.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from runbooks.catalogue import check_arguments
from runbooks.model import OF_AN_ACTION, READING, CallType, Effect, Mode, Op, ParameterType
from runbooks.patterns import check_pattern
from runbooks.templating import has_stray_brace, placeholders

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
    op: Literal["eq", "ne", "in", "ge", "gt", "le", "lt", "matches", "regex", "contains", "exists", "absent"] | None = (
        None
    )
    value: Any = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        forms = [name for name in ("all", "any", "not_", "field") if getattr(self, name) is not None]
        if len(forms) != 1:
            raise ValueError("needs exactly one of all, any, not, field")
        if (self.field is None) != (self.op is None):
            raise ValueError("field and op belong together")
        if self.op is not None:
            _check_operand(*self.comparison)
        return self

    @property
    def comparison(self) -> tuple[Op, Any]:
        """The operator and its value: ``regex`` is another word for matches, ``absent`` for exists with false."""
        match self.op:
            case "regex":
                return Op.MATCHES, self.value
            case "absent" if self.value is None:
                return Op.EXISTS, False
            case "absent":
                raise ValueError("absent takes no value")
            case "exists" if self.value is None:
                return Op.EXISTS, True
            case _:
                return Op(self.op), self.value


def _check_operand(op: Op, value: Any) -> None:
    if op is Op.EXISTS and not isinstance(value, bool):
        raise ValueError("exists needs true or false as value")
    if op is Op.IN and not (isinstance(value, list) and value):
        raise ValueError("in needs a list of values")
    if op is Op.MATCHES:
        if not isinstance(value, str):
            raise ValueError("matches needs a regular expression as value")
        check_pattern(value)
    if op in (Op.GE, Op.GT, Op.LE, Op.LT) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"{op.value} needs a number as value")


class ParameterModel(Border):
    type: Literal["string", "integer", "number", "boolean", "service", "host", "path", "duration"]
    from_: Pointer | None = Field(default=None, alias="from")
    required: bool = False
    default: Scalar | None = None
    enum: list[Scalar] | None = Field(default=None, min_length=1)
    pattern: Annotated[str, AfterValidator(check_pattern)] | None = None
    minimum: float | None = Field(default=None, strict=False)
    maximum: float | None = Field(default=None, strict=False)
    redact: bool = False

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.required and self.from_ is None and self.default is None:
            raise ValueError("a required parameter needs from (a JSON Pointer into the alert) or a default")
        is_number = ParameterType(self.type) in (ParameterType.INTEGER, ParameterType.NUMBER)
        if not is_number and (self.minimum is not None or self.maximum is not None):
            raise ValueError("minimum and maximum are for integer and number")
        return self


def _check_call(call_type: CallType, arguments: dict[str, Any]) -> None:
    check_arguments(call_type, arguments)
    for name, value in arguments.items():
        _no_stray_brace(value, name)
        _no_chosen_secret(value, name)


def _no_chosen_secret(template: Any, where: str) -> None:
    """Which secret is used is the file's to say, never an alert's."""
    match template:
        case {"secret": str(name)} if any(placeholders(name)):
            raise ValueError(f"{where}: a secret's name holds no placeholder")
        case dict():
            for key, value in template.items():
                _no_chosen_secret(value, f"{where}/{key}")
        case list():
            for number, value in enumerate(template):
                _no_chosen_secret(value, f"{where}/{number}")


class CallModel(Border):
    type: Literal[
        "service_restart",
        "service_start",
        "service_stop",
        "service_scale",
        "service_restore",
        "command",
        "http_request",
        "bridge_command",
        "bridge_health",
        "configuration_change",
        "configuration_restore",
        "resource_cleanup",
        "cleanup_restore",
        "database_operation",
        "notify",
        "custom_function",
        "service_exists",
        "service_wanted",
        "service_ready",
        "service_generation",
        "service_restored",
        "service_scaled",
        "service_usage_below",
        "tcp_connect",
        "http_ok",
        "dns_resolves",
        "ping",
        "command_ok",
        "bridge_exists",
        "bridge_ready",
        "bridge_healthy",
        "bridge_offers",
        "bridge_done",
        "configuration_is",
        "configuration_restored",
        "cleanup_done",
        "cleanup_restored",
        "disk_free",
        "database_ok",
        "database_sessions_below",
        "database_unblocked",
        "database_restored",
        "notified",
        "custom_ok",
        "alert_cleared",
    ]
    argv: Argv | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    timeout: Seconds | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        _check_call(CallType(self.type), self.arguments)
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.with_, **({"argv": self.argv} if self.argv is not None else {})}


class CheckModel(Border):
    call: CallModel
    within: Seconds = 0.0
    every: Annotated[Seconds, Field(gt=0)] = 0.5
    hold_for: Seconds = 0.0


class PreconditionModel(CheckModel):
    """``expect`` other than yes: what must still be broken. ``not_yes``: also when nobody can tell."""

    expect: Literal["yes", "no", "not_yes"] = "yes"


class RetryModel(Border):
    attempts: int = Field(default=1, ge=1, le=100)
    delay: Seconds = 1.0
    factor: float = Field(default=2.0, ge=1, le=100, strict=False)
    max_delay: Seconds = 60.0
    jitter: bool = False
    on: list[Id] = Field(default_factory=list)


class RollbackModel(Border):
    call: CallModel
    verify: CheckModel
    attempts: int = Field(default=1, ge=1, le=100)


class DedupModel(Border):
    fingerprint: list[Pointer] | None = Field(default=None, min_length=1)
    window: Seconds = 0.0
    on_repeat: Literal["coalesce", "queue_one", "ignore"] = "coalesce"


class MaxRunsModel(Border):
    count: int = Field(ge=1)
    per: Annotated[Seconds, Field(gt=0)]
    scope: Literal["target", "runbook", "global"]


class BreakerModel(Border):
    failures: int = Field(ge=1)
    per: Annotated[Seconds, Field(gt=0)]
    open_for: Annotated[Seconds, Field(gt=0)]


class LimitsModel(Border):
    cooldown: Seconds = 0.0
    max_runs: list[MaxRunsModel] = Field(default_factory=list)
    concurrency: int | None = Field(default=None, ge=1)
    min_healthy: Annotated[str, StringConstraints(pattern=r"^(\d+|\d{1,2}%|100%)$")] | None = None
    breaker: BreakerModel | None = None


class ApprovalModel(Border):
    timeout: Annotated[Seconds, Field(gt=0)]
    required_when: Literal["always", "risk>=medium", "risk>=high"] = "always"
    approvers: list[Text] = Field(default_factory=list)
    quorum: int = Field(default=1, ge=1)
    four_eyes: bool = False
    on_timeout: Literal["reject_and_alert", "safe_action"] = "reject_and_alert"
    safe_action: Id | None = None
    bind: Literal["plan_hash"] = "plan_hash"
    recheck: bool = True

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.on_timeout == "safe_action") != (self.safe_action is not None):
            raise ValueError("on_timeout safe_action and safe_action (the id of a runbook) belong together")
        if self.approvers and self.quorum > len(set(self.approvers)):
            raise ValueError("quorum is larger than the number of approvers")
        return self


class InhibitionModel(Border):
    runbook: Id
    equal: list[Pointer] = Field(default_factory=list)


class GroupModel(Border):
    by: list[Pointer] = Field(min_length=1)
    wait: Annotated[Seconds, Field(gt=0)]
    max: int = Field(default=100, ge=1)


class EscalationModel(Border):
    runbook: Id | None = None
    notify: Text | None = None
    after: Seconds = 0.0

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.runbook is None) == (self.notify is None):
            raise ValueError("needs exactly one of runbook and notify")
        return self


class TestModel(Border):
    name: Text
    alert: dict[str, Any]
    fakes: dict[str, Any] = Field(default_factory=dict)
    expect: dict[str, Any]


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


_WAITED: Final = READING - OF_AN_ACTION
NETWORK: Final = frozenset({CallType.TCP_CONNECT, CallType.HTTP_OK, CallType.DNS_RESOLVES, CallType.PING})
_SAME_AS: Final = {"api_call": "http_request", "bridge_call": "bridge_command"}
"""Other words for an action type, from the platform's earlier files and the designed schema."""


OBSERVED: Final = {"observed": True}
"""The validation context of a file that is never carried out: its steps need not say how they are probed and undone."""


class ActionModel(Border):
    model_config = ConfigDict(json_schema_extra=_MUTATING_RULE)

    id: Id
    name: Text
    action_type: Literal[
        "service_restart",
        "service_start",
        "service_stop",
        "service_scale",
        "command",
        "http_request",
        "api_call",
        "bridge_command",
        "bridge_call",
        "bridge_health",
        "configuration_change",
        "resource_cleanup",
        "database_operation",
        "notify",
        "custom_function",
        "wait_until",
        "network_operation",
        "wait",
    ]
    effect: Literal["none", "idempotent", "mutating", "irreversible"]
    command: Argv | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    timeout: Seconds = 30.0
    retry: RetryModel = RetryModel()
    probe: CheckModel | None = None
    verify: CheckModel | None = None
    rollback: RollbackModel | None = None
    irreversible_reason: Annotated[str, StringConstraints(min_length=10)] | None = None
    risk_level: Literal["low", "medium", "high", "critical"] = "low"
    when: PredicateModel | None = None
    on_failure: Literal["rollback", "continue", "escalate", "halt"] = "rollback"
    dependencies: list[Id] = Field(default_factory=list)
    outputs: dict[Id, Pointer] = Field(default_factory=dict)
    requires_confirmation: bool = False

    @model_validator(mode="after")
    def _is_safe(self, info: ValidationInfo) -> Self:
        if self.only_looks:
            self._check_wait()
            return self
        _check_call(self.call_type, self.arguments)
        if info.context is not OBSERVED:
            self._check_effect()
        return self

    def _check_effect(self) -> None:
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

    def _check_wait(self) -> None:
        acting = (self.probe, self.verify, self.rollback, self.command, self.irreversible_reason)
        if self.effect != "none" or any(acting) or self.retry != RetryModel() or self.outputs:
            raise ValueError(
                f"{self.action_type} only looks: effect none, no command, probe, verify, rollback, retry or outputs"
            )
        if self.action_type == "wait":
            if set(self.parameters) != {"for"} or seconds(self.parameters["for"]) <= 0:
                raise ValueError('wait needs parameters.for, how long, and nothing else: {"for": "5s"}')
            return
        known = sorted(kind.value for kind in (NETWORK if self.action_type == "network_operation" else _WAITED))
        if self.parameters.get(self._criterion_key) not in known:
            raise ValueError(f"{self.action_type} needs parameters.{self._criterion_key}: {', '.join(known)}")
        _check_call(self.call_type, self.arguments)
        for name in ("every", "hold_for"):
            seconds(self.parameters.get(name, 1))

    @property
    def only_looks(self) -> bool:
        return self.action_type in ("wait_until", "network_operation", "wait")

    @property
    def _criterion_key(self) -> str:
        return "operation" if self.action_type == "network_operation" else "criterion"

    @property
    def call_type(self) -> CallType:
        """What is asked of the world; of a step that only looks, what is looked at."""
        match self.action_type:
            case "wait":
                return CallType.TIME_PASSED
            case "wait_until" | "network_operation":
                return CallType(self.parameters[self._criterion_key])
            case _:
                return CallType(_SAME_AS.get(self.action_type, self.action_type))

    @property
    def arguments(self) -> dict[str, Any]:
        own = {self._criterion_key, "every", "hold_for", "for"} if self.only_looks else set()
        given = {key: value for key, value in self.parameters.items() if key not in own}
        return {**given, **({"argv": self.command} if self.command is not None else {})}


def _some_action(**wanted: Any) -> dict[str, Any]:
    return {"properties": {"actions": {"contains": {"properties": wanted, "required": list(wanted)}}}}


_AGREEMENT_RULE: Final[dict[str, Any]] = {
    "allOf": [
        {
            "if": _some_action(effect={"const": "irreversible"}, action_type={"not": {"const": "notify"}}),
            "then": {"required": ["approval"]},
        },
        {"if": _some_action(requires_confirmation={"const": True}), "then": {"required": ["approval"]}},
        {
            "if": {"properties": {"requires_approval": {"const": True}}, "required": ["requires_approval"]},
            "then": {"required": ["approval"]},
        },
        {
            "if": _some_action(action_type={"not": {"const": "notify"}}),
            "then": {"required": ["success_criteria"], "properties": {"success_criteria": {"minItems": 1}}},
        },
    ]
}
"""What editors can be told of ``crosschecks``."""


class RunbookModel(Border):
    """A recovery runbook, version 2."""

    model_config = ConfigDict(json_schema_extra=_AGREEMENT_RULE)

    schema_: str | None = Field(default=None, alias="$schema")
    schema_version: Literal[2]
    id: Id
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    name: Text
    description: Text
    enabled: bool = True
    priority: int = Field(default=50, ge=0, le=100)
    owner: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    mode: Literal["off", "observe", "dry_run", "auto"] = "auto"
    for_: Seconds = Field(default=0.0, alias="for")
    group: GroupModel | None = None
    inhibited_by: list[InhibitionModel] = Field(default_factory=list)
    approval: ApprovalModel | None = None
    escalate: list[EscalationModel] = Field(default_factory=list)
    tests: list[TestModel] = Field(default_factory=list)
    match: PredicateModel
    parameters: dict[Id, ParameterModel] = Field(default_factory=dict)
    target: Text
    dedup: DedupModel = DedupModel()
    limits: LimitsModel = LimitsModel()
    preconditions: list[PreconditionModel] = Field(default_factory=list)
    actions: list[ActionModel] = Field(min_length=1)
    success_criteria: list[CheckModel] = Field(default_factory=list)
    max_execution_time: Annotated[Seconds, Field(gt=0)] = 600.0
    rollback_on_failure: bool = True
    auto_execute: bool = True
    requires_approval: bool = False

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if not self.auto_execute and "mode" in self.model_fields_set and self.mode in ("auto", "dry_run"):
            raise ValueError(f"auto_execute false means mode observe, and mode is {self.mode!r}")
        if self.requires_approval and self.approval is None:
            raise ValueError('requires_approval needs approval, for example {"timeout": "15m"}')
        if "requires_approval" in self.model_fields_set and not self.requires_approval and self.approval is not None:
            raise ValueError("requires_approval is false, and there is an approval")
        return self

    @property
    def effective_mode(self) -> Mode:
        return Mode(self.mode) if self.auto_execute or self.mode == "off" else Mode.OBSERVE
