"""An old file's command line is taken apart as a real sh does it, or refused: never read as something else."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runbooks.shellwords import ShellSyntax, argv_of

PIECES = st.sampled_from(
    [
        *" \t\n\r\v\f\\\"'`$#!~*?[]{}=;|&<>()-%:^@+/",
        *"abn07é\u00a0\u2028",
        "\\\n",
        '\\"',
        "\\$",
        "\\\\",
        '"',
        "'",
        " ",
    ]
)
LINES = st.lists(PIECES, max_size=14).map("".join)
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=4)
SH = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def of_sh(line: str, where: Path) -> list[str]:
    """The words that a real sh gives to the program of the line ``program LINE``."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' x {line}"],
        cwd=where,
        capture_output=True,
        check=True,
        env={"PATH": "/nowhere", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[1:-1]


@SH
@given(LINES)
@example(r'"costs \$5" "\`a\`" "a\\b" "a\"b" "\a\n"')
@example('"one \\\nword"')
@example("one \\\nword")
@example("a\\\nb")
@example("a \\\n# b")
@example("a \\\n'# b'")
@example("a\\#b a#b '#' \"#\"")
@example("a #b")
@example("a\rb a\vb a\u00a0b")
@example("'' \"\" ''\"\"")
@example("\\  a\\ b")
@example("a\\")
@example("'a\\' \"a\\'b\"")
@example("a=b !x {} ^ %1")
def test_what_is_taken_is_what_a_real_sh_makes_of_it(tmp_path: Path, line: str) -> None:
    with contextlib.suppress(ShellSyntax):
        assert argv_of(f"program {line}", is_check=False) == ["program", *of_sh(line, tmp_path)]


@SH
@given(WORDS)
def test_whatever_is_quoted_is_taken(words: list[str]) -> None:
    assert argv_of(f"program {shlex.join(words)}", is_check=False) == ["program", *words]


@SH
@given(WORDS)
def test_whatever_is_escaped_in_double_quotes_is_taken(words: list[str]) -> None:
    quoted = ['"' + re.sub(r'[$`"\\]', r"\\\g<0>", word) + '"' for word in words]
    assert argv_of(" ".join(["program", *quoted]), is_check=False) == ["program", *words]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r'say "costs \$5"', ["say", "costs $5"]),
        (r'say "\`id\`" "a\\b" "\a"', ["say", "`id`", r"a\b", r"\a"]),
        ('say "one \\\nline"', ["say", "one line"]),
        ("say one \\\n  two th\\\nree", ["say", "one", "two", "three"]),
        ("say a#b '#c' \\#d", ["say", "a#b", "#c", "#d"]),
        ("say a\u00a0b a\rb", ["say", "a\u00a0b", "a\rb"]),
        ("/usr/bin/cd /srv", ["/usr/bin/cd", "/srv"]),
        ("env A=-S /opt/x -S", ["env", "A=-S", "/opt/x", "-S"]),
        ("env -u S /opt/x", ["env", "-u", "S", "/opt/x"]),
        ("echo hello", ["echo", "hello"]),
    ],
)
def test_what_is_simple_is_read_as_sh_does(line: str, words: list[str]) -> None:
    assert argv_of(line, is_check=False) == words


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("say hello # to all", "comment"),
        ("# nothing", "comment"),
        ("say a \\\n#b", "comment"),
        ("say a\\", "nothing follows its last backslash"),
        ("! pgrep x", "'!' is a word of the shell"),
        ("cd /srv", "working_dir"),
        ("export A", "environment"),
        ("source /etc/default/x", "environment"),
        (". /etc/default/x", "environment"),
        ("set -e", "environment"),
        ("unset A", "environment"),
        ("ulimit -n 5", "prlimit"),
        (": nothing", "use true"),
        ("eval /opt/x", "name the program itself"),
        ("exec /opt/x", "name the program itself"),
        ("command ls", "name the program itself"),
        ("alias ll", "write what it stands for"),
        *[(f"{word} x", "put it into a script of its own") for word in (
            "if", "then", "while", "until", "for", "case", "{", "trap", "umask", "function", "select", "wait", "read",
            "exit", "return", "type", "times",
        )],
        (r"echo 'a\nb'", "use printf"),
        ("env -S 'ls -l'", "without -S"),
        ("env -S'ls -l'", "without -S"),
        ("env -ivS 'ls -l'", "without -S"),
        ("env -u A B=1 -S 'ls -l'", "without -S"),
        ("env --split-string='ls -l'", "without -S"),
        ("env --split 'ls -l'", "without -S"),
        ("timeout 5 /usr/bin/env -S 'ls -l'", "without -S"),
        ("'' a", "empty"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_check", [True, False])
def test_what_only_a_shell_understands_is_refused_with_what_does_it_instead(
    line: str, text: str, *, is_check: bool
) -> None:
    with pytest.raises(ShellSyntax, match=text):
        argv_of(line, is_check=is_check)
