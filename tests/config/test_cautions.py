"""What a good file names that is not there now is told, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import parse_config
from config.cautions import cautions


def told(words: str, folder: Path) -> list[str]:
    source = f"version: 1\nservices:\n  a: {{{words}}}\n"
    found = cautions(parse_config("f", source, {}, folder), {"PATH": str(folder)})
    return [line.removeprefix("services.a.") for line in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("own", "here"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("command: [own], working_dir: nope", "working_dir: {folder}/nope is no folder now"),
        ("command: [own], working_dir: here", "working_dir: {folder}/here is no folder now"),
        ("command: [/nope/prog]", "command: there is no program /nope/prog now"),
        ("command: [./own], working_dir: sub", "command: there is no program {folder}/sub/own now"),
        ("command: [nope]", "command: program 'nope' is not on the PATH now"),
        ("command: [own], environment: {PATH: /nope}", "command: program 'own' is not on the PATH now"),
        (
            "command: [own], environment_files: [here, -away, gone.env]",
            "environment_files[2]: {folder}/gone.env is no file now; put a '-' before it if it may be missing",
        ),
        ("command: [own], secrets: {A: {file: gone}}", "secrets.A.file: {folder}/gone is no file now"),
        (
            "command: [own], user: no-such-user",
            "user: there is no user 'no-such-user' on this system now",
        ),
        ("command: [own], group: no-such-group", "group: there is no group 'no-such-group' on this system now"),
        ("command: [own], groups: [0, none-of-it]", "groups[1]: there is no group 'none-of-it' on this system now"),
        ("runtime: docker, image: i, environment_files: [gone]", "environment_files[0]: {folder}/gone is no file now"),
    ],
)
def test_what_is_not_there_is_told(words: str, said: str, folder: Path) -> None:
    (line,) = told(words, folder)
    assert line.startswith(said.format(folder=folder))


@pytest.mark.parametrize(
    "words",
    [
        "command: [own], working_dir: sub, environment_files: [here, -away], user: root, groups: [root, 7]",
        "command: [./inner], working_dir: sub",
        "command: [nope], environment_files: [here]",  # which may say another PATH
        "command: ['./w-{{replica}}'], replicas: 2",
        "command: [own], user: 4711, group: 4711",
        "runtime: docker, image: i, user: no-such-user, command: [nope]",  # looked up in the image
    ],
)
def test_what_is_there_or_cannot_be_known_is_not(words: str, folder: Path) -> None:
    assert told(words.replace("{{", "{").replace("}}", "}"), folder) == []
