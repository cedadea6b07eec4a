"""What no single part of a runbook file can say of itself: whether its parts fit together. Pure.

Everything here makes a file unusable; what is merely doubtful is ``lint``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from runbooks.border import ActionModel, CheckModel, PredicateModel, RunbookModel, seconds
from runbooks.building import parameters
from runbooks.model import OF_AN_ACTION, READING, CallType, Effect, OnFailure, Op, RequiredWhen, Risk
from runbooks.parameters import BadParameter, checked
from runbooks.program_texts import unsafe
from runbooks.templating import has_stray_brace, placeholders

Found = Iterator[tuple[str, str]]
"""JSON Pointer and text."""

TELLING: Final = frozenset({CallType.NOTIFY})
"""Cannot be taken back and changes nothing but what people know: needs nobody's agreement."""
_RISKS: Final = tuple(Risk)
_ASKED_FROM: Final = {
    RequiredWhen.ALWAYS: Risk.LOW,
    RequiredWhen.MEDIUM: Risk.MEDIUM,
    RequiredWhen.HIGH: Risk.HIGH,
}


def cross_checks(model: RunbookModel) -> Found:
    """Every contradiction within one file."""
    yield from _check_actions(model)
    yield from _check_dependencies(model)
    yield from _check_agreement(model)
    yield from _check_readings(model)
    yield from _check_criteria(model)
    yield from _check_program_texts(model)
    yield from _check_defaults(model)
    yield from _check_values(model)


def checks(model: RunbookModel) -> Iterator[tuple[str, CheckModel]]:
    """Every check of the file, with the pointer to its call."""
    for number, before in enumerate(model.preconditions):
        yield f"/preconditions/{number}/call", before
    for number, after in enumerate(model.success_criteria):
        yield f"/success_criteria/{number}/call", after
    for number, action in enumerate(model.actions):
        for pointer, check in _checks_of(action):
            yield f"/actions/{number}/{pointer}", check


def _checks_of(action: ActionModel) -> Iterator[tuple[str, CheckModel]]:
    for name, found in (("probe", action.probe), ("verify", action.verify)):
        if found is not None:
            yield f"{name}/call", found
    if action.rollback is not None:
        yield "rollback/verify/call", action.rollback.verify


# -- actions ----------------------------------------------------------------------------------------------------------


def _check_actions(model: RunbookModel) -> Found:
    seen: set[str] = set()
    for number, action in enumerate(model.actions):
        here = f"/actions/{number}"
        if action.id in seen:
            yield f"{here}/id", f"{action.id!r} stands there twice"
        seen.add(action.id)
        if action.timeout > model.max_execution_time and "timeout" in action.model_fields_set:
            yield f"{here}/timeout", "is longer than max_execution_time"
        if action.action_type == "wait" and seconds(action.parameters["for"]) >= model.max_execution_time:
            yield f"{here}/parameters/for", "is not shorter than max_execution_time"
        yield from ((here + pointer, text) for pointer, text in _check_rollback(action))
    if has_stray_brace(model.target):
        yield "/target", f"a lone brace in {model.target!r}"


_SUBJECTS: Final = ("service", "file", "root")
"""The argument that says what a call is about, where an undoing goes back to a snapshot."""


def _check_rollback(action: ActionModel) -> Found:
    """An undoing acts, and on what its own action touched: only of that there is a snapshot that means something."""
    if action.rollback is None:
        return
    undoing = action.rollback.call
    if CallType(undoing.type) in READING:
        yield "/rollback/call", f"{undoing.type} only looks; it undoes nothing"
    for pointer, arguments in (
        ("/rollback/call", undoing.arguments),
        ("/rollback/verify/call", action.rollback.verify.call.arguments),
    ):
        for subject in _SUBJECTS:
            own, other = action.arguments.get(subject), arguments.get(subject)
            if own is not None and other is not None and own != other:
                yield pointer, f"is about the {subject} {other!r}; this action is about {own!r}"


def _check_dependencies(model: RunbookModel) -> Found:
    places = {action.id: number for number, action in reversed(list(enumerate(model.actions)))}
    cycle = _cycle({action.id: action.dependencies for action in model.actions})
    for number, action in enumerate(model.actions):
        for at, wanted in enumerate(action.dependencies):
            here = f"/actions/{number}/dependencies/{at}"
            if wanted not in places:
                yield here, f"there is no step {wanted!r}"
            elif action.id in cycle and wanted in cycle:
                yield here, f"depends on itself: {' -> '.join([*cycle, cycle[0]])}"
            elif places[wanted] > number:
                yield here, f"step {wanted!r} stands further down; steps run in the order they stand: move it up"


def _cycle(wants: Mapping[str, Iterable[str]]) -> list[str]:
    """The steps of one circle, or none. Without recursion: files come from outside."""
    left = {name: {one for one in wanted if one in wants} for name, wanted in wants.items()}
    while free := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in free:
            del left[name]
    if not left:
        return []
    way = [next(iter(left))]
    while (following := min(left[way[-1]] & left.keys())) not in way:
        way.append(following)
    return way[way.index(following) :]


# -- who must agree ---------------------------------------------------------------------------------------------------


def _check_agreement(model: RunbookModel) -> Found:
    for number, action in enumerate(model.actions):
        is_final = Effect(action.effect) is Effect.IRREVERSIBLE and action.call_type not in TELLING
        if not is_final and not action.requires_confirmation:
            continue
        why = f"step {action.id!r} {'cannot be taken back' if is_final else 'requires confirmation'}"
        if model.approval is None:
            yield f"/actions/{number}", f'{why}: the runbook needs an approval, for example {{"timeout": "15m"}}'
        elif _RISKS.index(Risk(action.risk_level)) < _RISKS.index(_asked_from(model)):
            asked = model.approval.required_when
            yield f"/actions/{number}/risk_level", f"{why}, and approval is only asked for at {asked}"


def _asked_from(model: RunbookModel) -> Risk:
    """From which risk on people are asked."""
    return _ASKED_FROM[RequiredWhen(model.approval.required_when)] if model.approval else Risk.LOW


# -- readings and values ----------------------------------------------------------------------------------------------


def _check_criteria(model: RunbookModel) -> Found:
    """What is done must show; only of having told people there is nothing more to see."""
    only_tells = all(action.action_type == CallType.NOTIFY.value for action in model.actions)
    if not model.success_criteria and not only_tells:
        yield "/success_criteria", "is empty: say by which looks it is known that the trouble is over"


def _check_readings(model: RunbookModel) -> Found:
    for pointer, check in checks(model):
        if CallType(check.call.type) not in READING:
            yield pointer, f"{check.call.type} acts; a check only looks"
        if pointer.startswith(("/preconditions", "/success_criteria")) and CallType(check.call.type) in OF_AN_ACTION:
            yield pointer, f"{check.call.type} is about an action; there is none here"


def _check_program_texts(model: RunbookModel) -> Found:
    """Which program runs, and as whom, stands in the runbook. A value inside a text that some interpreter reads as a
    program is an injection, shell or not.
    """
    for pointer, arguments in _all_arguments(model):
        argv: list[str] = arguments.get("argv") or ["true"]
        for name in placeholders(argv[0]):
            yield pointer, f"{{{name}}} would choose the program: the first item of an argument list is fixed"
        for name in placeholders(arguments.get("run_as", "")):
            yield pointer, f"{{{name}}} would choose the user: run_as is fixed"
        for name, why in unsafe(argv):
            yield pointer, f"{{{name}}} {why}"


def _all_arguments(model: RunbookModel) -> Iterator[tuple[str, dict[str, Any]]]:
    for pointer, check in checks(model):
        yield pointer, check.call.arguments
    for number, action in enumerate(model.actions):
        yield f"/actions/{number}", action.arguments
        if action.rollback is not None:
            yield f"/actions/{number}/rollback/call", action.rollback.call.arguments


def _check_defaults(model: RunbookModel) -> Found:
    for parameter in parameters(model):
        for value, place in ((parameter.default, "default"), *((one, "enum") for one in parameter.choices)):
            if value is not None:
                try:
                    checked(parameter, value)
                except BadParameter as bad:
                    yield f"/parameters/{parameter.name}/{place}", str(bad)


def _check_values(model: RunbookModel) -> Found:
    """Placeholders are parameters that are always there, or outputs: of a step that must have been done by then, or
    that the step's own ``when`` asks for.
    """
    always = {p.name for p in parameters(model) if p.required or p.default is not None}
    absent = "may be absent: make the parameter required or give it a default"
    known = {name: "" if name in always else absent for name in model.parameters}
    makers = {name: action.id for action in reversed(model.actions) for name in action.outputs}
    for pointer, template in _templates_before(model):
        yield from _check_names(pointer, template, known, makers)
    surely: set[str] = set()
    for number, action in enumerate(model.actions):
        here = f"/actions/{number}"
        reached = _needed(model, action)
        earlier = [(one, name) for one in model.actions[:number] for name in one.outputs]
        asked = set(_asked_for(action.when)) if action.when is not None else set()
        made = {
            name: ""
            for one, name in earlier
            if one.id in surely or (one.id in reached and one.when is None) or f"/outputs/{name}" in asked
        }
        for pointer, template in _templates_of(action):
            yield from _check_names(here + pointer, template, {**known, **made}, makers)
        if action.when is not None:
            yield from _check_when(f"{here}/when", action.when, model, number)
        for name in action.outputs:
            if name in model.parameters:
                yield f"{here}/outputs/{name}", f"{name!r} is a parameter's name already"
            elif makers[name] != action.id:
                yield f"{here}/outputs/{name}", f"{name!r} is made by step {makers[name]!r} already"
        if action.when is None and OnFailure(action.on_failure) is not OnFailure.CONTINUE and reached <= surely:
            surely.add(action.id)
    made = {name: "" for one in model.actions if one.id in surely for name in one.outputs}
    for number, check in enumerate(model.success_criteria):
        pointer = f"/success_criteria/{number}/call"
        yield from _check_names(pointer, check.call.arguments, {**known, **made}, makers)


def _needed(model: RunbookModel, action: ActionModel) -> set[str]:
    """The steps that must have gone well for this one to be begun."""
    wants = {one.id: one.dependencies for one in model.actions}
    found: set[str] = set()
    open_ = list(action.dependencies)
    while open_:
        one = open_.pop()
        if one not in found and one in wants:
            found.add(one)
            open_ += wants[one]
    return found


def _asked_for(predicate: PredicateModel) -> Iterator[str]:
    """The fields without which it cannot hold."""
    if predicate.field is not None and predicate.comparison != (Op.EXISTS, False):
        yield predicate.field
    for part in predicate.all or ():
        yield from _asked_for(part)


def _check_names(pointer: str, template: Any, known: Mapping[str, str], makers: Mapping[str, str]) -> Found:
    for name in dict.fromkeys(placeholders(template)):
        trouble = known.get(name)
        if name in known and trouble:
            yield pointer, f"{{{name}}} {trouble}"
        elif name not in known and name in makers:
            yield pointer, f"{{{name}}} comes from step {makers[name]!r}, which need not have been done by then"
        elif name not in known:
            yield pointer, f"{{{name}}} is no parameter of this runbook and no output of a step"


def _templates_before(model: RunbookModel) -> Iterator[tuple[str, Any]]:
    yield "/target", model.target
    for number, check in enumerate(model.preconditions):
        yield f"/preconditions/{number}/call", check.call.arguments


def _templates_of(action: ActionModel) -> Iterator[tuple[str, Any]]:
    yield "", action.arguments
    for pointer, check in _checks_of(action):
        yield f"/{pointer}", check.call.arguments
    if action.rollback is not None:
        yield "/rollback/call", action.rollback.call.arguments


def _check_when(pointer: str, predicate: PredicateModel, model: RunbookModel, number: int) -> Found:
    """A condition speaks of the alert, the parameters and what earlier steps gave back."""
    made = {name for action in model.actions[:number] for name in action.outputs}
    names = {"alert": None, "parameters": set(model.parameters), "outputs": made}
    for field in _fields(predicate):
        _, root, *rest = field.split("/")
        if root not in names:
            yield pointer, f"{field}: when looks at /alert/..., /parameters/NAME or /outputs/NAME"
        elif (allowed := names[root]) is not None and (not rest or rest[0] not in allowed):
            told = "is no parameter" if root == "parameters" else "is no output of an earlier step"
            yield pointer, f"{field} {told}"


def _fields(predicate: PredicateModel) -> Iterator[str]:
    if predicate.field is not None:
        yield predicate.field
    for part in (*(predicate.all or ()), *(predicate.any or ()), *((predicate.not_,) if predicate.not_ else ())):
        yield from _fields(part)
