"""Hostile strings in every field of an alert are data everywhere: no program, no argument, no file, no line more.

What happens at the borders of this process is heard by an audit hook (sys.addaudithook): processes, files that are
written, connections. What programs get is written down by a program.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
import yaml

from guardian_link.messages import Alert, BadAlert, facts_of
from runbooks import command_host
from runbooks.calls.amounts import amount_bytes, duration_s
from runbooks.deciding.words import Decision, History, Outcome
from runbooks.formats import BadChange, Changes, changed, holds
from runbooks.matching import decide
from runbooks.model import CallType
from runbooks.parse import Library
from runbooks.plan import Plan, bind, bound_action
from runbooks.ports import PortError
from runbooks.steps import make_call
from tests.actions.place import TOKEN, do, ports_of
from tests.actions.web import web
from tests.injection.audited import wrapped_host
from tests.injection.books import everywhere, made, recording, step
from tests.injection.hearing import bound, is_argument, listening


def test_there_are_enough_of_them_and_no_two_are_the_same(corpus: tuple[str, ...]) -> None:
    assert len(corpus) == len(set(corpus)) >= 500
    assert sum("made" in one for one in corpus) > 100


def test_the_hook_hears() -> None:
    with listening() as heard:
        os.posix_spawn("/bin/true", ["true"], {})
        Path(os.devnull).write_text("x")
    os.wait()
    assert [event for event, _ in heard.processes] == ["os.posix_spawn"]
    assert heard.written == [os.devnull]


# -- from an alert to an argument list --------------------------------------------------------------------------------


def argv_of(plan: Plan) -> tuple[str, ...]:
    call = bound_action(plan, 0, {}).call
    assert call is not None
    return tuple(call.arguments["argv"])


def test_every_field_of_an_alert_changes_no_argument_list(corpus: tuple[str, ...], tmp_path: Path) -> None:
    """From what comes over the wire to the bound step, for each string in each field."""
    items = ("{type}", "{service}", "{severity}", "{message}", "{source}", "{dedup_key}", "{value}", "{detail}")
    book = made("command", recording(tmp_path / "out", *items, "x{value}", "--flag={message}", "{value}{message}"))
    library, fixed = Library((book,)), len(items) + 3
    call = book.actions[0].call
    assert call is not None
    template = tuple(call.arguments["argv"])
    begun = refused = 0
    with listening() as heard:
        for value in corpus:
            for name, raw in everywhere(value).items():
                try:
                    facts = facts_of(raw) if name != "id" else Alert.from_mapping(raw).to_body()
                except BadAlert:
                    refused += 1
                    continue
                decision = decide(facts, library, History(), 0.0)
                if decision.outcome is not Outcome.RUN:
                    assert decision.outcome is Outcome.REJECTED, decision
                    refused += 1
                    continue
                begun += 1
                check_argv(decision, template, fixed)
    assert (heard.processes, heard.written, heard.connections) == ([], [], [])
    assert min(begun, refused) > len(corpus), (begun, refused)


def check_argv(decision: Decision, template: tuple[str, ...], fixed: int) -> None:
    """As many items, the program's own ones untouched, each value whole; and none of them an option."""
    assert decision.runbook is not None
    argv, values = argv_of(bind(decision.runbook, decision.parameters)), decision.parameters
    assert len(argv) == len(template)
    assert argv[:-fixed] == template[:-fixed]
    wanted = [values[one[1:-1]] for one in template[-fixed:-3]]
    wanted += [f"x{values['value']}", f"--flag={values['message']}", f"{values['value']}{values['message']}"]
    assert list(argv[-fixed:]) == wanted
    assert not any(one.startswith("-") for one in (*argv[-fixed:-2], argv[-1]))


def test_what_programs_get_is_what_was_said(
    corpus: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty strings a program, through its real host. Both boundaries are written down: ours and the host's."""
    witness, out = tmp_path / "host.log", tmp_path / "out"
    monkeypatch.setattr(command_host, "__file__", str(wrapped_host(tmp_path, witness)))
    ports = ports_of(tmp_path / "state")
    usable = [one for one in corpus if is_argument(one)]
    groups = [usable[at : at + 40] for at in range(0, len(usable), 40)]
    with listening() as heard:
        for group in groups:
            template = made("command", recording(out)).actions[0].call
            assert template is not None
            argv = (*template.arguments["argv"], *group)
            done = do(ports, CallType.COMMAND, argv=argv)
            assert done.ok, done
    got = [json.loads(line) for line in out.read_text().splitlines()]
    assert got == groups
    ours = [given[1] for _, given in heard.processes]
    assert len(ours) == len(groups)
    assert {tuple(one) for one in ours} == {(sys.executable, "-I", "-S", str(command_host.__file__))}
    theirs = [json.loads(line) for line in witness.read_text().splitlines()]
    assert [one[:4] for one in theirs] == [[sys.executable, "-I", "-S", "-c"]] * len(groups)
    assert [one[6:] for one in theirs] == groups


def test_what_no_program_can_be_given_is_refused_and_nothing_starts(corpus: tuple[str, ...], tmp_path: Path) -> None:
    ports = ports_of(tmp_path / "state")
    for value in ("a\0b", "\ud800"):
        done = do(ports, CallType.COMMAND, argv=("true", value))
        assert not done.ok
        assert done.error


# -- the other actions ------------------------------------------------------------------------------------------------


def test_a_server_gets_one_request_with_the_value_where_it_belongs(corpus: tuple[str, ...], tmp_path: Path) -> None:
    ports = ports_of(tmp_path / "state")
    sent: list[str] = []
    with web() as it:
        url = f"{it.base}/services/{{value}}/restart?why={{value}}"
        request = {"method": "POST", "url": url, "headers": {"X-Value": "{value}"}, "body": {"value": "{value}"}}
        with_header = made("http", step("http_request", request))
        plain = made("http", step("http_request", {**request, "headers": {}}))
        with listening() as heard:
            for value in corpus:
                for book in (with_header, plain):
                    action = bound(book, value)
                    if action is None or action.call is None:
                        continue
                    before = len(it.seen)
                    done = make_call(action.call, {}, ports, TOKEN)
                    assert len(it.seen) - before == (1 if done.ok else 0), (value, done)
                    sent += [value or "none"] if done.ok else []
        port = int(it.base.rsplit(":", 1)[1])
        assert {tuple(one[:2]) for one in heard.connections} == {("127.0.0.1", port)}
        assert heard.processes == []
        assert len(sent) > len(corpus) * 0.8
        for value, request_ in zip(sent, it.seen, strict=True):
            path, _, query = request_.path.partition("?")
            assert path.split("/")[1] == "services"
            assert (path.count("/"), unquote(path.split("/")[2]), path.split("/")[3]) == (3, value, "restart")
            assert (query.count("&"), unquote(query)) == (0, f"why={value}")
            assert json.loads(request_.body) == {"value": value}
            assert not {"x-injected", "x", "transfer-encoding"} & {name.lower() for name in request_.headers}


READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "json": json.loads,
    "yaml": lambda text: yaml.load(text, yaml.CSafeLoader),
    "toml": tomllib.loads,
}
"""Others than those that wrote the file."""


@pytest.mark.parametrize("form", ["json", "yaml", "toml", "ini", "systemd"])
def test_a_configuration_file_has_the_value_at_its_key_and_nothing_else_changed(
    corpus: tuple[str, ...], form: str
) -> None:
    text = {
        "json": '{"a": {"b": "old", "c": 1}, "d": [1, 2]}\n',
        "yaml": "# kept\na:\n  b: old\n  c: 1\nd: [1, 2]\n",
        "toml": '# kept\nd = [1, 2]\n[a]\nb = "old"\nc = 1\n',
        "ini": "[a]\nb = old\nc = 1\n[d]\ne = 2\n",
        "systemd": "[a]\nb=old\nc=1\n[d]\ne=2\n",
    }[form].encode()
    refused = 0
    with listening() as heard:
        for value in corpus:
            try:
                new = changed(text, form, Changes({"a.b": value}))
            except BadChange:
                refused += 1
                continue
            if form in READERS:
                assert READERS[form](new.decode()) == {"a": {"b": value, "c": 1}, "d": [1, 2]}
            else:
                assert holds(new, form, Changes({"a.b": value, "a.c": "1", "d.e": "2"})) == []
            assert new.count(b"\n[") == text.count(b"\n[")
            assert new.count(b"# kept") == text.count(b"# kept") + value.count("# kept")
    assert (heard.processes, heard.written) == ([], [])
    assert refused < len(corpus) * (0.01 if form in READERS else 0.4)


def test_what_is_no_amount_and_no_duration_is_refused(corpus: tuple[str, ...]) -> None:
    """``-9`` seconds ago everything was old enough to go."""
    fits = 0
    for value in (*corpus, *(f"{one}%" for one in corpus)):
        for read in (lambda text: amount_bytes(text, 1000), duration_s):
            try:
                assert 0 <= read(value) < math.inf, value
            except PortError:
                continue
            fits += 1
    assert 0 < fits < len(corpus) * 0.1


def test_no_path_leads_out_of_its_root(corpus: tuple[str, ...], tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.json"
    root.mkdir()
    outside.write_text("{}")
    ports = ports_of(tmp_path / "state", file_roots=(root,))
    before = snapshot(tmp_path)
    with listening() as heard:
        for value in corpus:
            for file in (value, f"{root}/{value}", f"{root}/{value}.json", f"{root}/../{value}"):
                do(ports, CallType.CONFIGURATION_CHANGE, file=file, set={"a": 1})
                do(ports, CallType.CONFIGURATION_RESTORE, file=file)
                assert ports.files is not None
                try:
                    ports.files.read(file)
                except (PortError, ValueError):
                    continue
    assert heard.processes == []
    assert {name: made_ for name, made_ in snapshot(tmp_path).items() if not name.startswith(str(root))} == before
    assert outside.read_text() == "{}"


def snapshot(folder: Path) -> dict[str, bytes | None]:
    found = (path for path in folder.rglob("*") if "root" not in path.parts)
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


@pytest.mark.parametrize("value", ["{" * 2000, "[" * 2000, "- " * 1000, "\ud800"])
@pytest.mark.parametrize("form", ["json", "yaml", "toml", "ini", "systemd"])
def test_a_text_that_breaks_a_parser_is_refused_or_kept_whole(form: str, value: str) -> None:
    try:
        new = changed(b"", form, Changes({"a.b": value}))
    except BadChange:
        return
    assert holds(new, form, Changes({"a.b": value})) == []
