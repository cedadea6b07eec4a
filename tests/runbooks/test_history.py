"""The indexes of what deciding remembers say what a look at everything says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runbooks.deciding.words import History, PastRun
from runbooks.model import Status

STATUSES = (Status.QUEUED, Status.RUNNING, Status.SUCCEEDED, Status.REJECTED, Status.CANCELLED)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 6), st.sampled_from("abc"), st.sampled_from(STATUSES), st.none() | st.booleans(), st.booleans()
    ),
    max_size=30,
)


@given(STEPS, st.integers(0, 30), st.integers(0, 30))
def test_what_began_and_what_is_open_on_a_target(
    steps: list[tuple[int, str, Status, bool | None, bool]], since: int, loaded: int
) -> None:
    runs: list[PastRun | str] = []
    for at, (number, target, status, is_started, is_dropped) in enumerate(steps):
        started = float(at) if is_started else None
        made = PastRun(
            f"x{number}", "r", f"{target}{number}", f"f{number}", status, float(number), None, "high", started
        )
        runs.append(made.execution_id if is_dropped else made)
    first = {one.execution_id: one for one in runs[:loaded] if isinstance(one, PastRun)}
    history = History(tuple(first.values()))
    known = dict(first)
    for one in runs[loaded:]:
        if isinstance(one, str):
            history.drop(one)
            known.pop(one, None)
        elif one.execution_id not in known or known[one.execution_id].target == one.target:
            history.put(one)
            known[one.execution_id] = one
    for target in {one.target for one in known.values()}:
        assert {one.execution_id for one in history.open_on(target)} == {
            one.execution_id for one in known.values() if one.target == target and not one.status.is_terminal
        }
    begun = [one for one in known.values() if one.began_at is not None]
    if all(one.began_at is not None and one.began_at >= since for one in begun):
        assert {one.execution_id for one in history.begun_since(since)} == {one.execution_id for one in begun}
    assert all(one.began_at is not None and one.began_at >= since for one in history.begun_since(since))


def test_the_last_begun_comes_first() -> None:
    queued = PastRun("x1", "r", "a", "f", Status.QUEUED, 0.0)
    history = History((PastRun("x3", "r", "c", "f", Status.RUNNING, 1.0, started_at=9.0),
                       PastRun("x2", "r", "b", "f", Status.RUNNING, 2.0, started_at=3.0)))  # fmt: skip
    history.put(queued)
    assert [one.execution_id for one in history.begun_since(0)] == ["x3", "x2"]
    history.put(PastRun("x1", "r", "a", "f", Status.RUNNING, 0.0, started_at=10.0))
    assert [one.execution_id for one in history.begun_since(4)] == ["x1", "x3"]
    history.put(queued)
    assert [one.execution_id for one in history.begun_since(0)] == ["x3", "x2"]
