"""The library as a graph: alert types, runbooks, their steps, what they escalate to. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from runbooks.connections import Why, connections, raised_by
from runbooks.matching import is_in_use
from runbooks.model import Action, OnFailure, Runbook
from runbooks.predicates import types_asked

ANY: Final = "any type"


@dataclass(frozen=True, slots=True)
class Edge:
    start: str
    end: str
    label: str = ""


def edges(runbooks: Sequence[Runbook]) -> tuple[Edge, ...]:
    """Nodes are named ``alert TYPE``, ``runbook ID``, ``step ID/STEP``, ``notice TEXT``."""
    found = [edge for one in runbooks for edge in _of_runbook(one)]
    found += [
        Edge(f"runbook {link.start}", f"runbook {link.end}", link.why.value)
        for link in connections(runbooks)
        if link.why is not Why.RAISES
    ]
    return tuple(dict.fromkeys(found))


def _of_runbook(runbook: Runbook) -> Iterator[Edge]:
    me = f"runbook {runbook.id}"
    word = "" if is_in_use(runbook) else "not in use"
    for kind in sorted(types_asked(runbook.match)) or [ANY]:
        yield Edge(f"alert {kind}", me, word)
    before = me
    for action in runbook.actions:
        here = f"step {runbook.id}/{action.id}"
        yield Edge(before, here, _condition(action))
        before = here
    for kind in raised_by(runbook):
        yield Edge(me, f"alert {kind}", Why.RAISES.value)
    for step in runbook.escalate:
        if step.notify is not None:
            yield Edge(me, f"notice {step.notify}", "tells")


def _condition(action: Action) -> str:
    words = ["when"] if action.when is not None else []
    words += [] if action.on_failure is OnFailure.ROLLBACK else [f"failing: {action.on_failure.value}"]
    return ", ".join(words)


def text(runbooks: Sequence[Runbook]) -> str:
    """For people: each alert type with what answers it, each runbook with what it does and leads to."""
    lines: list[str] = []
    kinds = sorted({kind for one in runbooks for kind in types_asked(one.match) or {ANY}})
    for kind in kinds:
        answering = [one.id for one in runbooks if kind in (types_asked(one.match) or {ANY})]
        lines.append(f"{kind} -> {', '.join(answering)}")
    for one in runbooks:
        steps = " -> ".join(action.id for action in one.actions)
        lines += ["", f"{one.id}{'' if is_in_use(one) else ' (not in use)'}: {steps}"]
        lines += [f"  {link.said} {link.end}" for link in connections(runbooks) if link.start == one.id]
        lines += [f"  tells {step.notify!r}" for step in one.escalate if step.notify is not None]
    return "\n".join(lines)


def dot(runbooks: Sequence[Runbook]) -> str:
    """For Graphviz."""
    drawn = [f"  {_quoted(one.start)} -> {_quoted(one.end)}{_dot_label(one.label)};" for one in edges(runbooks)]
    return "\n".join(["digraph runbooks {", "  rankdir=LR;", *drawn, "}"])


def mermaid(runbooks: Sequence[Runbook]) -> str:
    """For Mermaid."""
    everything = edges(runbooks)
    names = dict.fromkeys(node for one in everything for node in (one.start, one.end))
    numbers = {name: f"n{number}" for number, name in enumerate(names)}
    nodes = [f"  {number}[{_entity(name)}]" for name, number in numbers.items()]
    arrows = [
        f"  {numbers[one.start]} -->{f'|{_entity(one.label)}|' if one.label else ''} {numbers[one.end]}"
        for one in everything
    ]
    return "\n".join(["flowchart LR", *nodes, *arrows])


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _dot_label(label: str) -> str:
    return f" [label={_quoted(label)}]" if label else ""


def _entity(name: str) -> str:
    """A quoted text in which Mermaid finds nothing of its own."""
    return '"' + "".join(one if one.isalnum() or one in " _-/." else f"#{ord(one)};" for one in name) + '"'
