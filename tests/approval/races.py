"""Approve, reject, expire, edit and duplicates of them, all at once, on a real journal: one outcome each time."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from actors.approvals import NotTaken
from runbooks.approval import Say
from tests.approval.desks import APPROVED, Desk, desk
from tests.runbooks.files import runbook
from tests.support.eventually import eventually


class WrongOutcome(AssertionError):
    """More than one thing came of a request, or what must not."""


def race(folder: Path, rounds: int, seed: int = 1) -> Counter[str]:
    """How often each outcome came. Raises WrongOutcome."""
    outcomes: Counter[str] = Counter()
    chance = random.Random(seed)
    with desk(folder) as one:
        for _ in range(rounds):
            outcomes[_round(one, chance)] += 1
    return outcomes


def _round(one: Desk, chance: random.Random) -> str:
    one.files["reduce"] = runbook(APPROVED)
    one.granted.clear()
    one.finished.clear()
    name, plan = one.asked()
    expires_at = one.clock.wall() + 60.0
    one.clock.pass_s(59.0)

    def vote(who: str, says: Say) -> Callable[[], object]:
        return lambda: one.approvals.vote(name, who, says, plan)

    def expire() -> None:
        one.clock.pass_s(2.0)
        one.approvals.look()

    def edit() -> None:
        one.files["reduce"] = runbook({**APPROVED, "description": "edited"})

    acts = [vote("user:bob", Say.APPROVE), vote("user:bob", Say.APPROVE), vote("key:cleo", Say.APPROVE)]
    acts += [one for one in (vote("user:cleo", Say.REJECT), expire, edit) if chance.random() < 0.6]
    chance.shuffle(acts)
    _all_at_once(acts)

    def is_over() -> bool:
        one.approvals.look()
        return one.status(name) != "awaiting_approval"

    eventually(is_over, within_s=30, what=f"an outcome of {name}")
    return _judged(one, name, expires_at)


def _all_at_once(acts: list[Callable[[], object]]) -> None:
    gate = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> None:
        gate.wait(30)
        with suppress(NotTaken):
            act()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def _judged(one: Desk, name: str, expires_at: float) -> str:
    status = one.status(name)

    def is_told() -> bool:
        return len(one.granted) + len(one.finished) >= 1

    eventually(is_told, within_s=30, what=f"{name} is told of")
    granted = [each.execution_id for each in one.granted]
    ended = [(each.execution_id, each.status.value) for each in one.finished]
    expected = ([name], []) if status == "queued" else ([], [(name, status)])
    if (granted, ended) != expected:
        raise WrongOutcome(f"{name} is {status}, granted {granted}, ended {ended}")
    said = one.journal.read(
        lambda db: db.execute(
            "SELECT kind, at FROM audit WHERE kind IN ('granted', 'ended') AND body LIKE ?", (f'%"{name}"%',)
        ).fetchall()
    )
    if len(said) != 1:
        raise WrongOutcome(f"{name}: {len(said)} outcomes are on record")
    if said[0]["kind"] == "granted" and said[0]["at"] >= expires_at:
        raise WrongOutcome(f"{name} was granted after its time")
    return status
