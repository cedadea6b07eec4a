"""From the border's models to a ``Runbook``. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from runbooks.border import (
    ActionModel,
    ApprovalModel,
    CallModel,
    CheckModel,
    LimitsModel,
    PreconditionModel,
    PredicateModel,
    RunbookModel,
    seconds,
)
from runbooks.model import (
    DEFAULT_FINGERPRINT,
    Action,
    AllOf,
    AnyOf,
    Approval,
    Breaker,
    Call,
    CallType,
    Check,
    Dedup,
    Effect,
    Escalation,
    Expect,
    FieldTest,
    Grouping,
    Inhibition,
    Limits,
    MaxRuns,
    Not,
    OnFailure,
    OnRepeat,
    OnTimeout,
    Parameter,
    ParameterType,
    Predicate,
    RequiredWhen,
    Retry,
    Risk,
    Rollback,
    Runbook,
    RunbookTest,
    Scope,
)

LOOK_S = 5.0
"""A look that takes long tells nothing: so long has one, unless the file says otherwise."""
CALL_S = 30.0


def built(model: RunbookModel, source: bytes) -> Runbook:
    fingerprint = model.dedup.fingerprint
    return Runbook(
        id=model.id,
        version=model.version,
        name=model.name,
        description=model.description,
        match=_predicate(model.match),
        target=model.target,
        actions=tuple(map(_action, model.actions)),
        success_criteria=tuple(map(_check, model.success_criteria)),
        parameters=tuple(parameters(model)),
        preconditions=tuple(map(_check, model.preconditions)),
        dedup=Dedup(
            tuple(fingerprint) if fingerprint else DEFAULT_FINGERPRINT,
            model.dedup.window,
            OnRepeat(model.dedup.on_repeat),
        ),
        limits=_limits(model.limits),
        priority=model.priority,
        enabled=model.enabled,
        max_execution_s=model.max_execution_time,
        rollback_on_failure=model.rollback_on_failure,
        sha256=hashlib.sha256(source).hexdigest(),
        source=source,
        owner=model.owner,
        labels=model.labels,
        mode=model.effective_mode,
        for_s=model.for_,
        group=Grouping(tuple(model.group.by), model.group.wait, model.group.max) if model.group else None,
        inhibited_by=tuple(Inhibition(one.runbook, tuple(one.equal)) for one in model.inhibited_by),
        approval=_approval(model.approval) if model.approval else None,
        escalate=tuple(Escalation(one.runbook, one.notify, one.after) for one in model.escalate),
        tests=tuple(RunbookTest(one.name, one.alert, one.fakes, one.expect) for one in model.tests),
    )


def _limits(model: LimitsModel) -> Limits:
    breaker = model.breaker
    return Limits(
        cooldown_s=model.cooldown,
        max_runs=tuple(MaxRuns(one.count, one.per, Scope(one.scope)) for one in model.max_runs),
        concurrency=model.concurrency,
        min_healthy=model.min_healthy,
        breaker=Breaker(breaker.failures, breaker.per, breaker.open_for) if breaker else None,
    )


def _approval(model: ApprovalModel) -> Approval:
    return Approval(
        timeout_s=model.timeout,
        required_when=RequiredWhen(model.required_when),
        approvers=tuple(model.approvers),
        quorum=model.quorum,
        four_eyes=model.four_eyes,
        on_timeout=OnTimeout(model.on_timeout),
        safe_action=model.safe_action,
        recheck=model.recheck,
    )


def _predicate(model: PredicateModel) -> Predicate:
    if model.all is not None:
        return AllOf(tuple(map(_predicate, model.all)))
    if model.any is not None:
        return AnyOf(tuple(map(_predicate, model.any)))
    if model.not_ is not None:
        return Not(_predicate(model.not_))
    op, value = model.comparison
    return FieldTest(model.field or "", op, value)


def parameters(model: RunbookModel) -> Iterator[Parameter]:
    for name, given in model.parameters.items():
        yield Parameter(
            name=name,
            type=ParameterType(given.type),
            pointer=given.from_,
            required=given.required,
            default=given.default,
            choices=tuple(given.enum or ()),
            pattern=given.pattern,
            minimum=given.minimum,
            maximum=given.maximum,
            redact=given.redact,
        )


def _call(model: CallModel) -> Call:
    return Call(CallType(model.type), model.arguments, model.timeout if model.timeout is not None else CALL_S)


def _check(model: CheckModel) -> Check:
    expect = Expect(model.expect) if isinstance(model, PreconditionModel) else Expect.YES
    return Check(_looking(model.call), model.within, model.every, model.hold_for, expect)


def _looking(model: CallModel) -> Call:
    return Call(CallType(model.type), model.arguments, model.timeout if model.timeout is not None else LOOK_S)


def _action(model: ActionModel) -> Action:
    if model.only_looks:
        return Action(
            model.id,
            model.name,
            Effect.NONE,
            verify=_waited(model),
            risk=Risk(model.risk_level),
            when=_predicate(model.when) if model.when else None,
            on_failure=OnFailure(model.on_failure),
            dependencies=tuple(model.dependencies),
            requires_confirmation=model.requires_confirmation,
        )
    rollback = model.rollback
    return Action(
        id=model.id,
        name=model.name,
        effect=Effect(model.effect),
        call=Call(model.call_type, model.arguments, model.timeout),
        probe=_check(model.probe) if model.probe else None,
        verify=_check(model.verify) if model.verify else None,
        rollback=Rollback(_call(rollback.call), _check(rollback.verify), rollback.attempts) if rollback else None,
        retry=_retry(model),
        irreversible_reason=model.irreversible_reason,
        risk=Risk(model.risk_level),
        when=_predicate(model.when) if model.when else None,
        on_failure=OnFailure(model.on_failure),
        dependencies=tuple(model.dependencies),
        outputs=model.outputs,
        requires_confirmation=model.requires_confirmation,
    )


def _waited(model: ActionModel) -> Check:
    call = Call(model.call_type, model.arguments, LOOK_S)
    if model.action_type == "wait":
        for_s = seconds(model.parameters["for"])
        return Check(call, within_s=0.0, every_s=min(1.0, for_s), hold_for_s=for_s)
    every_s = seconds(model.parameters.get("every", 0.5)) or 0.5
    return Check(call, model.timeout, every_s, seconds(model.parameters.get("hold_for", 0)))


def _retry(model: ActionModel) -> Retry:
    given = model.retry
    return Retry(given.attempts, given.delay, given.factor, given.max_delay, given.jitter, tuple(given.on))
