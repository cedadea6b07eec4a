"""Recorded alerts decided again: what differs is told, the same every time, without a wall clock."""

from __future__ import annotations

import io
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.deciding.words import INSIDE, OPERATOR, runbook_wanted
from actors.journal.schema import open_writer
from runbooks.matching import History, decide
from runbooks.model import Runbook
from runbooks.parse import Library
from runbooks.replay import Answer, Recorded, replayed
from supervisors.cli import replaying
from supervisors.cli.app import run
from supervisors.cli.exits import Quit
from supervisors.cli.replaying import Side, one_side
from supervisors.cli.spool import Spool, spooled
from tests.runbooks.files import GOOD, changed, runbook

ALERT = {"type": "service_failure", "service": "a", "severity": "high", "source": "t"}


def library(**more: Any) -> Library:
    return Library((runbook({**GOOD, **more}),))


def outcomes(given: list[Recorded], with_: Library, run_s: float = 30.0) -> list[str]:
    return [one.outcome for one in replayed(given, with_, run_s)]


def at(*times: float, **more: Any) -> list[Recorded]:
    return [Recorded(when, {**ALERT, **more}) for when in times]


def test_the_past_of_a_decision_is_the_replays_own() -> None:
    limits = {"cooldown": "60s"}
    assert outcomes(at(0, 10, 40, 100), library(limits=limits)) == ["run", "duplicate", "cooling", "run"]
    assert outcomes(at(0, 10, 40), library(), run_s=5) == ["run", "run", "run"]


def test_what_a_runbook_looks_back_to_is_remembered_however_long() -> None:
    day_s = 86400.0
    limits = {"cooldown": "3d"}
    others = at(*(day_s * number / 50 for number in range(1, 140)), type="other")
    given = sorted([*at(0, 2.5 * day_s, 3.5 * day_s), *others], key=lambda one: one.at or 0.0)
    answered = [one for one in outcomes(given, library(limits=limits)) if one != "no_match"]
    assert answered == ["run", "cooling", "run"]


def test_room_is_waited_for_in_the_alerts_own_time() -> None:
    many = [one for number in range(7) for one in at(float(number), service=f"s{number}")]
    assert outcomes(many, library()) == ["run"] * 5 + ["queued"] * 2
    later = at(70.0, service="s6")  # it was begun at 31 and is over by then
    assert outcomes([*many, *later], library())[-1] == "run"


def test_what_waits_is_answered_when_its_time_has_come() -> None:
    going_on = outcomes(at(0, 5, 10, 12), library(**{"for": "10s"}))
    assert going_on == ["pending>answered", "duplicate", "run", "duplicate"]
    assert outcomes(at(0, 100), library(**{"for": "10s"}))[0] == "pending>over"
    grouped = library(group={"by": ["/type"], "wait": "10s"})
    assert outcomes([*at(0), *at(1, service="b")], grouped)[0] == "pending>run"


def test_a_group_is_as_severe_as_its_worst() -> None:
    """So what is no worse is folded into its run, when it was full and when its time was over."""
    grouped = library(group={"by": ["/type"], "wait": "10s", "max": 3})
    full = [*at(0, severity="critical"), *at(1, service="b"), *at(2, service="c", severity="low")]
    again = at(3, service="c", severity="critical")
    assert outcomes([*full, *again], grouped) == ["pending>answered", "duplicate", "run", "duplicate"]
    early = [*at(0, severity="critical"), *at(9, service="b", severity="low")]
    assert outcomes([*early, *at(12, severity="critical")], grouped) == ["pending>run", "duplicate", "duplicate"]


def test_what_nobody_approves_is_not_run() -> None:
    asked = library(approval={"timeout": "1m"})
    assert outcomes(at(0, 30, 200), asked) == ["awaiting_approval", "duplicate", "awaiting_approval"]


def test_each_decision_is_that_of_decide() -> None:
    """With no past between them, the replay says what ``decide`` says, for any alert."""
    rng, made = random.Random(7), []
    for number in range(300):
        kind = rng.choice(["service_failure", "other", 5, None])
        made.append(Recorded(number * 1e6, {"type": kind, "service": rng.choice(["a", "", "x y", None, 3])}))
    for one, answer in zip(made, replayed(made, library()), strict=True):
        assert answer.outcome == decide(one.facts, library(), History(), 0.0).outcome.value


def test_no_clock_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> float:
        raise AssertionError("a replay has no clock")

    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, forbidden)
    assert outcomes(at(0, 1), library()) == ["run", "duplicate"]


def test_the_kinds_of_answers() -> None:
    kinds = {
        word: Answer(word, None).kind for word in ("run", "queued", "pending>run", "cooling", "no_match", "rejected")
    }
    assert kinds == {
        "run": "run", "queued": "run", "pending>run": "run", "cooling": "suppress", "no_match": "none",
        "rejected": "none",
    }  # fmt: skip


# -- the command ------------------------------------------------------------------------------------------------------


def new_library(directory: Path, *raw: dict[str, Any]) -> Path:
    directory.mkdir()
    for number, one in enumerate(raw):
        (directory / f"{number}.json").write_text(json.dumps(one))
    return directory


def alerts_file(path: Path, count: int = 200) -> Path:
    rng = random.Random(3)
    lines = [
        {
            "type": rng.choice(["service_failure", "margin_call", "unheard_of"]),
            "service": f"s{rng.randrange(5)}",
            "received_at": 1_700_000_000 + number * 7,
        }
        for number in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def margin_call() -> dict[str, Any]:
    """A runbook that no shipped one is like."""
    return {**changed("/id", "margin", GOOD), "match": {"field": "/type", "op": "eq", "value": "margin_call"}}


def add_rows(store: sqlite3.Connection, *rows: tuple[float, str], client: str = "c") -> None:
    """When an alert came, and its body."""
    (known,) = store.execute("SELECT count(*) FROM alerts").fetchone()
    for number, (received_at, body) in enumerate(rows, known):
        store.execute(
            "INSERT INTO alerts(client, msg_id, sha256, body, received_at) VALUES (?,?,?,?,?)",
            (client, f"alert-{number}", "", body, received_at),
        )


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["runbook", *words]) == 0
    return capsys.readouterr().out


def test_the_command_prints_what_differs_and_the_same_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**changed("/id", "margin", GOOD), "match": {"field": "/type", "op": "eq", "value": "margin_call"}}
    new = new_library(tmp_path / "new", other, changed("/id", "service_failure", {**GOOD, "mode": "observe"}))
    alerts = alerts_file(tmp_path / "alerts.jsonl")
    first = said(capsys, "replay", str(alerts), "--runbooks", str(new))
    assert "none (no_match) -> run (run margin)" in first
    assert "run (run service_failure) -> suppress (observed service_failure)" in first
    assert first == said(capsys, "replay", str(alerts), "--runbooks", str(new))
    told = json.loads(said(capsys, "replay", str(alerts), "--runbooks", str(new), "--json", "--all"))
    assert told["alerts"] == 200
    assert sum(one["alerts"] for one in told["changes"]) == len(told["changed"])
    same = new_library(tmp_path / "same")
    assert said(capsys, "replay", str(alerts), "--runbooks", str(same)) == "200 alerts, 0 decided otherwise\n"


def test_a_journal_is_read_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = open_writer(tmp_path / "journal.db")
    for number in range(3):
        body = json.dumps({**ALERT, "type": "margin_call"})
        journal.execute(
            "INSERT INTO alerts(client, msg_id, sha256, body, received_at, outcome, reason) VALUES (?,?,?,?,?,?,?)",
            ("c", f"alert-{number}", "", body, 100.0 * number, "no_match", "nobody"),
        )
    journal.close()
    other = {**changed("/id", "margin", GOOD), "match": {"field": "/type", "op": "eq", "value": "margin_call"}}
    new = new_library(tmp_path / "new", other)
    out = said(capsys, "replay", str(tmp_path / "journal.db"), "--runbooks", str(new))
    assert out.endswith("3 alerts, 3 decided otherwise\n")
    out = said(capsys, "explain", "alert-1", "--state", str(tmp_path))
    assert "decided: no_match (nobody)" in out
    assert "service_failure: does not fit\n  /type is 'margin_call', wanted in" in out
    assert run(["runbook", "explain", "alert-9", "--state", str(tmp_path)]) == 1
    assert run(["runbook", "explain", "alert-1", "--state", str(tmp_path / "new")]) == 2


SEVEN = '{"type": "margin_call", "service": "g", "received_at": 7}\n'


def test_what_is_written_meanwhile_is_no_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both libraries decide the same alerts, however quickly the record grows."""
    new = new_library(tmp_path / "new", margin_call())
    lines = tmp_path / "alerts.jsonl"
    lines.write_text(SEVEN * 3)
    store = open_writer(tmp_path / "journal.db")
    add_rows(store, *[(float(number), json.dumps(ALERT)) for number in range(3)])

    def grow() -> None:
        add_rows(store, (1.5, json.dumps({**ALERT, "type": "margin_call"})))
        with lines.open("a") as file:
            file.write(SEVEN)

    def with_a_writer(
        alerts: Spool, present: tuple[Path, ...], new: tuple[Path, ...], run_s: float
    ) -> tuple[Side, Side]:
        before = one_side(alerts, present, run_s)
        grow()
        after = one_side(alerts, new, run_s)
        grow()
        return before, after

    monkeypatch.setattr(replaying, "both_sides", with_a_writer)
    out = said(capsys, "replay", str(lines), "--runbooks", str(new))
    assert out.endswith("  3  margin_call g high\n3 alerts, 3 decided otherwise\n")
    out = said(capsys, "replay", str(tmp_path / "journal.db"), "--runbooks", str(new))
    assert out.endswith("  4  margin_call a high\n5 alerts, 2 decided otherwise\n")  # two were written for the lines
    store.close()


def test_rows_that_are_no_alerts_are_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal.db"
    store = open_writer(journal)
    told = {**ALERT, "type": "margin_call"}
    add_rows(store, (1.0, ""), (2.0, "no json"), (3.0, "[1]"), (4.0, "[" * 100_000), (float("inf"), json.dumps(told)))
    add_rows(store, (5.0, ""), (6.0, json.dumps(told)))
    store.execute("UPDATE alerts SET body = CAST(x'7b22ff227d' AS TEXT) WHERE received_at = 5.0")
    store.close()
    new = new_library(tmp_path / "new", margin_call())
    out = said(capsys, "replay", str(journal), "--runbooks", str(new))
    assert out.endswith(
        "  1  margin_call a high\n1 alerts, 1 decided otherwise; 6 skipped (1 forgotten, 5 unreadable)\n"
    )
    read = json.loads(said(capsys, "replay", str(journal), "--runbooks", str(new), "--json"))
    assert (read["alerts"], read["skipped"]) == (1, {"forgotten": 1, "unreadable": 5})
    assert run(["runbook", "lint", "--alerts", str(journal)]) == 0
    assert f"{journal}: 6 skipped (1 forgotten, 5 unreadable)" in capsys.readouterr().err


def test_an_alert_is_read_from_a_journal_as_it_was_written(tmp_path: Path) -> None:
    facts = {**ALERT, "message": "a\nb\r\n\tc\u2028d\x85\ud800", "labels": {"x": 1.5}}
    bodies = [json.dumps(facts), json.dumps(facts, indent="\t").replace("\n", "\r\n"), json.dumps(ALERT, indent=1)]
    store = open_writer(tmp_path / "journal.db")
    add_rows(store, *[(0.1 * number, body) for number, body in enumerate(bodies)])
    for client, number in ((OPERATOR, 1), (INSIDE, 2)):
        labels = {"runbook": "mine", "rung": "0", "escalated_to": "a\tb\n"}
        body = json.dumps({**ALERT, "labels": labels}, indent=0)
        add_rows(store, (float(number), body), client=client)
    store.close()
    with spooled(tmp_path / "journal.db") as spool:
        assert list(spool.alerts({0, 1, 2})) == [
            Recorded(0.0, facts), Recorded(0.1, facts), Recorded(0.2, ALERT),
        ]  # fmt: skip
        assert [one.wanted for one in spool.alerts({2, 3, 4})] == [None, "mine", "a\tb\n"]


@pytest.mark.parametrize(
    ("client", "labels", "wanted"),
    [
        (OPERATOR, {"runbook": "a"}, "a"),
        (OPERATOR, {}, ""),
        (OPERATOR, {"rung": "0", "escalated_to": "b"}, ""),
        (INSIDE, {"rung": "0", "escalated_to": "b"}, "b"),
        (INSIDE, {"rung": "0"}, None),  # a notice
        (INSIDE, {"escalated_to": "b"}, None),
        (INSIDE, {"runbook": "a"}, None),
        (INSIDE, 5, None),
        ("anybody", {"runbook": "a", "rung": "0", "escalated_to": "b"}, None),
    ],
)
def test_who_may_name_a_runbook(client: str, labels: Any, wanted: str | None) -> None:
    assert runbook_wanted(client, {"labels": labels}) == wanted
    assert runbook_wanted(client, {}) == ("" if client == OPERATOR else None)


def test_an_alert_for_one_runbook_is_decided_by_that_one() -> None:
    off = runbook({**changed("/id", "off"), "enabled": False})
    slow = runbook({**changed("/id", "slow"), "for": "10s"})
    books = Library((*library().runbooks, off, slow))
    asked = {"type": "runbook_run", "service": "a"}
    given = [Recorded(number * 100.0, asked, wanted) for number, wanted in enumerate((GOOD["id"], "off", "gone", None))]
    found = replayed([*given, Recorded(400.0, asked, "slow"), Recorded(405.0, asked, "slow")], books)
    assert found[0] == Answer("run", GOOD["id"])
    assert [one.outcome for one in found[1:]] == ["no_match"] * 3 + ["pending>over", "duplicate"]
    grouped = Library(
        (*library().runbooks, runbook({**changed("/id", "grouped"), "group": {"by": ["/type"], "wait": "5s"}}))
    )
    assert replayed([Recorded(0.0, asked, "grouped")], grouped) == [Answer("pending>run", "grouped")]


NO_ALERTS = (
    "{", "[]", '{"type": 5}', '{"received_at": "soon", "type": "a"}', '{"received_at": NaN, "type": "a"}',
    '{"received_at": 1e400, "type": "a"}', '{"received_at": -1, "type": "a"}', "[" * 100_000,
    '{"received_at": 1790000000000, "type": "a"}', '{"received_at": 1' + "0" * 400 + ', "type": "a"}',
    '{"received_at": "1960-01-01T00:00:00Z", "type": "a"}', '{"received_at": "0001-01-01T00:00:00", "type": "a"}',
)  # fmt: skip


@pytest.mark.parametrize("content", NO_ALERTS, ids=range(len(NO_ALERTS)))
def test_what_is_no_alert_is_said_with_its_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = tmp_path / "a.jsonl"
    alerts.write_text(f"{json.dumps(ALERT)}\n{content}\n")
    assert run(["runbook", "lint", "--alerts", str(alerts)]) == 2
    assert "a.jsonl:2: is no alert" in capsys.readouterr().err
    with pytest.raises(Quit, match=r"a\.jsonl:2: is no alert"), spooled(alerts) as spool:
        list(spool.alerts())


def test_it_is_said_from_where_a_bad_line_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, wrong in ((b"{}\n{\n", ":1: is no alert"), (b"\xff\n", ": 'utf-8' codec can't decode")):
        with piped(content) as alerts:
            assert run(["runbook", "replay", alerts, "--runbooks", str(tmp_path)]) == 2
            assert capsys.readouterr().err.startswith(f"selfheal: {alerts}{wrong}")
    assert run(["runbook", "replay", str(tmp_path / "gone"), "--runbooks", str(tmp_path)]) == 2
    assert run(["runbook", "replay", str(tmp_path), "--runbooks", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err


@contextmanager
def piped(content: bytes) -> Iterator[str]:
    """What a shell makes of ``<(...)``; for as much as a pipe holds."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as file:
            file.write(content)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


def test_alerts_come_through_a_pipe_and_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = new_library(tmp_path / "new", margin_call())
    for count in (1, 40):
        with piped(SEVEN.encode() * count) as alerts:
            out = said(capsys, "replay", alerts, "--runbooks", str(new))
            assert out.endswith(f"{count} alerts, {count} decided otherwise\n")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SEVEN.encode() * count)))
        assert said(capsys, "replay", "-", "--runbooks", str(new)) == out
    with piped(SEVEN.encode() + b"{\n") as alerts:
        assert run(["runbook", "lint", "--alerts", alerts]) == 2
        assert f"{alerts}:2: is no alert" in capsys.readouterr().err
    open_writer(tmp_path / "journal.db").close()
    with piped((tmp_path / "journal.db").read_bytes()[:4096]) as alerts:
        assert run(["runbook", "replay", alerts, "--runbooks", str(new)]) == 2
        assert "a journal is read from its own file, not through a pipe" in capsys.readouterr().err


def ranked(priority: int, name: str, **more: Any) -> Runbook:
    return runbook({**changed("/id", name, GOOD), "priority": priority, **more})


def test_explain_says_every_comparison_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    match = {
        "all": [
            {"field": "/type", "op": "eq", "value": "disk"},
            {"any": [{"field": "/labels/free", "op": "lt", "value": 5}, {"field": "/labels/full", "op": "exists"}]},
            {"not": {"field": "/severity", "op": "eq", "value": "low"}},
        ]
    }
    config = tmp_path / "selfheal.yaml"
    new_library(tmp_path / "mine", {**changed("/id", "disk", GOOD), "match": match})
    config.write_text("version: 1\nservices: {}\nrunbooks: {directories: [mine]}\n")
    (tmp_path / "alert.json").write_text(json.dumps({**ALERT, "severity": "low", "labels": {"free": 9}}))
    out = said(capsys, "explain", str(tmp_path / "alert.json"), "--config", str(config))
    assert "service_failure: fits" in out
    assert "disk: does not fit\n  /type is 'service_failure', wanted eq 'disk'" in out
    assert "  none of: /labels/free is 9, wanted lt 5; or /labels/full is missing, wanted exists True" in out
    assert "  excluded: /severity eq 'low'" in out
    told = json.loads(said(capsys, "explain", str(tmp_path / "alert.json"), "--config", str(config), "--json"))
    assert {one["runbook"]: len(one["reasons"]) for one in told["runbooks"]}["disk"] == 3
    (tmp_path / "bare.json").write_text(json.dumps({"type": "service_failure"}))
    out = said(capsys, "explain", str(tmp_path / "bare.json"))
    assert "the alert has nothing at /service" in out


def test_the_graph_shows_what_leads_to_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = {**GOOD, "escalate": [{"runbook": "second"}, {"notify": 'the "desk"'}]}
    new = new_library(tmp_path / "new", first, changed("/id", "second", GOOD))
    out = said(capsys, "graph", str(new))
    assert "service_failure -> restart_it, second" in out
    assert "restart_it: restart\n  escalates to second\n  tells 'the \"desk\"'" in out
    drawn = said(capsys, "graph", str(new), "--dot")
    assert '"runbook restart_it" -> "runbook second" [label="escalates to"];' in drawn
    assert '"runbook restart_it" -> "notice the \\"desk\\"" [label="tells"];' in drawn
    chart = said(capsys, "graph", str(new), "--mermaid")
    assert chart.startswith("flowchart LR\n")
    assert "notice the #34;desk#34;" in chart
    edges = json.loads(said(capsys, "graph", str(new), "--json"))["edges"]
    assert {"from": "runbook restart_it", "to": "step restart_it/restart", "label": ""} in edges
    assert run(["runbook", "graph", "--dot", "--mermaid"]) == 2
    assert "service_failure: restart" in said(capsys, "graph", "service_failure")
    assert run(["runbook", "graph", str(tmp_path / "nowhere.json")]) == 2
    assert run(["runbook", "graph", "nobody"]) == 1
    assert run(["runbook", "lint", "service_failure"]) == 0
