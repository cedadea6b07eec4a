"""``selfheal audit verify`` on a state directory, without a daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisors.cli import main
from tests.audit.chained import a_chain, tampered

Ran = tuple[int, str, str]
Verify = Callable[..., Ran]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Verify:
    """No setting of the machine's own reaches it."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "STATE"):
        monkeypatch.delenv(f"SELFHEAL_{name}", raising=False)

    def run(*words: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(("audit", "verify", *words))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_it_says_that_all_is_whole_and_which_row_is_not(tmp_path: Path, verify: Verify) -> None:
    a_chain(tmp_path / "state", 5)
    place = ("--state", str(tmp_path / "state"))
    code, out, _ = verify(*place)
    assert (code, out.startswith("whole: 5 rows, the last is 5")) == (0, True), out
    tampered(tmp_path / "state", "UPDATE audit SET body = '{}' WHERE seq = 3")
    code, _, err = verify(*place)
    assert (code, "row 3: was changed" in err) == (3, True), err
    code, out, err = verify(*place, "--json")
    told = json.loads(out)
    assert (code, told["whole"], told["rows"], told["findings"][0]["row"], err) == (3, False, 5, 3, "")


def test_the_second_place_is_that_of_the_daemon_that_is_meant(tmp_path: Path, verify: Verify) -> None:
    """The configuration here may be of another daemon: its tip says nothing of this one."""

    def tips(*words: str) -> tuple[int, list[str]]:
        code, out, _ = verify("--json", *words)
        return code, json.loads(out)["tips"]

    for name in ("own", "other"):
        a_chain(tmp_path / name, 3)
    second = tmp_path / "second.tip"
    second.write_text((tmp_path / "own" / "audit.tip").read_text())
    (tmp_path / "selfheal.yaml").write_text(f"version: 1\nservices: {{}}\nstate_dir: own\naudit: {{tip: {second}}}\n")
    assert tips() == (0, [str(tmp_path / "own" / "audit.tip"), str(second)])
    assert tips("--state", str(tmp_path / "other")) == (0, [str(tmp_path / "other" / "audit.tip")])
    second.write_text((tmp_path / "other" / "audit.tip").read_text())
    assert tips()[0] == 3
