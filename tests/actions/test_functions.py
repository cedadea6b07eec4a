"""custom_function: registered, allowed, and in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runbooks.engine_words import Answer
from runbooks.model import CallType
from runbooks.ports import Ports
from tests.actions.place import answer, do, look, ports_of
from tests.actions.test_commands import living

NAMES = ("double", "fails", "hangs", "answers", "no_json", "too_long", "dies")


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ports:
    """A package that is installed beside ours."""
    info = tmp_path / "site" / "others-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    entries = "".join(f"{name} = tests.actions.functions:{name}\n" for name in (*NAMES, "not_allowed"))
    (info / "entry_points.txt").write_text(f"[selfheal.functions]\n{entries}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return ports_of(tmp_path / "state", functions=(*NAMES, "not_registered"))


def call(ports: Ports, name: str, timeout_s: float = 30.0, **parameters: Any) -> Any:
    return do(ports, CallType.CUSTOM_FUNCTION, timeout_s, name=name, parameters=parameters)


def test_its_result_is_for_the_steps_that_follow(ports: Ports) -> None:
    done = call(ports, "double", number=21)
    assert done.ok, done
    assert done.result["doubled"] == 42
    assert done.result["pid"] != os.getpid(), "never in the daemon"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "ValueError: cannot do {}"),
        ("no_json", "TypeError"),
        ("too_long", "its result is longer than"),
        ("dies", "failed: exit -9"),
        ("not_allowed", "name it in runbooks.functions"),
        ("not_registered", "is not registered"),
    ],
)
def test_what_goes_wrong_is_said(ports: Ports, name: str, said: str) -> None:
    done = call(ports, name)
    assert not done.ok
    assert said in done.error


def test_out_of_time_ends_all_of_it(ports: Ports, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    done = call(ports, "hangs", 4.0, folder=str(pids))
    assert "was killed" in done.error
    assert list(pids.iterdir())
    assert living(pids) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (True, Answer.YES),
        (False, Answer.NO),
        (None, Answer.UNKNOWN),
        ({"ok": False, "detail": "too few"}, Answer.NO),
        ({"ok": "yes"}, Answer.UNKNOWN),
        ("yes", Answer.UNKNOWN),
        (1, Answer.UNKNOWN),
    ],
)
def test_its_answer_as_a_check(ports: Ports, said: Any, expected: Answer) -> None:
    asked = look(ports, CallType.CUSTOM_OK, name="answers", parameters={"answer": said})
    assert asked.answer is expected
    if isinstance(said, dict) and "detail" in said:
        assert asked.detail == "too few"


def test_a_check_that_raises_cannot_tell(ports: Ports) -> None:
    assert answer(ports, CallType.CUSTOM_OK, name="fails") is Answer.UNKNOWN
