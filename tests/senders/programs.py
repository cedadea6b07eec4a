"""The senders of ``examples/senders/`` as commands: built once a test run, skipped where their tools are missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.system.running import SELFHEAL, Running

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples" / "senders"
LANGUAGES: Final = ("python", "node", "c", "csharp")
MSGPACK_TOO: Final = ("python", "node", "c")
"""The one in C# speaks JSON only, like PowerShell."""
SPEAKING: Final = [*((name, "--json") for name in LANGUAGES), *((name, "--msgpack") for name in MSGPACK_TOO)]
EXACT_NUMBERS: Final = ("python", "c", "csharp")
"""JavaScript's numbers are exact up to 2**53."""


class Missing(Exception):
    """A tool that is not installed."""


@dataclass(frozen=True)
class Sent:
    code: int
    lines: list[str]
    errors: str


@dataclass(frozen=True)
class Sender:
    """One language's program."""

    command: tuple[str, ...]

    def begin(
        self, *words: str, environ: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith("SELFHEAL_")}
        return subprocess.Popen(
            [*self.command, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=known | {"LC_ALL": "C.UTF-8"} | dict(environ or {}),
        )

    def run(
        self, *words: str, environ: Mapping[str, str] | None = None, within_s: float = 40, given: str | None = None
    ) -> Sent:
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        return ended(self.begin(*words, environ=environ, stdin=stdin), within_s, given)


def ended(process: subprocess.Popen[str], within_s: float = 40, given: str | None = None) -> Sent:
    try:
        output, errors = process.communicate(given, timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Sent(process.returncode, output.splitlines(), errors.strip())


def build(language: str, into: Path) -> Sender:
    """Raises Missing."""
    return _BUILDERS[language](into)


def _python(_into: Path) -> Sender:
    return Sender((sys.executable, str(FOLDER / "python" / "selfheal_send.py")))


def _node(_into: Path) -> Sender:
    _need("node", "nodejs")
    if not (FOLDER / "node" / "node_modules" / "zeromq").exists():
        raise Missing("its packages are not installed: npm ci --prefix examples/senders/node")
    return Sender(("node", str(FOLDER / "node" / "selfheal-send.js")))


def _c(into: Path) -> Sender:
    for tool in ("gcc", "make"):
        _need(tool, tool)
    for header, package in (("zmq.h", "libzmq3-dev"), ("msgpack.h", "libmsgpack-dev"), ("jansson.h", "libjansson-dev")):
        if not Path("/usr/include", header).exists():
            raise Missing(f"no {header}: apt-get install {package}")
    copy = into / "c"
    shutil.copytree(FOLDER / "c", copy, ignore=shutil.ignore_patterns("selfheal_send"))
    _succeed("make", "-s", "-C", str(copy), "CFLAGS=-O1 -Wall -Wextra -Werror")
    return Sender((str(copy / "selfheal_send"),))


def _csharp(into: Path) -> Sender:
    _need("mcs", "mono-mcs")
    _need("mono", "mono-runtime")
    program = into / "SelfhealSend.exe"
    # C# 5 is what Windows PowerShell's Add-Type compiles
    words = ("-langversion:5", "-warn:4", "-warnaserror", f"-out:{program}")
    _succeed("mcs", *words, str(FOLDER / "csharp" / "SelfhealSend.cs"))
    return Sender(("mono", str(program)))


def _mql4(into: Path) -> Sender:
    """``Selfheal.mqh`` as C++, with stand-ins for what MetaTrader and mql-zmq have: only arrays and pointers are
    spelled in another way.
    """
    _need("g++", "g++")
    if not Path("/usr/include/zmq.h").exists():
        raise Missing("no zmq.h: apt-get install libzmq3-dev")
    text = (FOLDER / "mql4" / "Selfheal.mqh").read_text(encoding="ascii")
    text = re.sub(r"(?m)^#(property|include) .*$", "", text).replace("m_socket.", "m_socket->")
    text = re.sub(
        r"\b(string|uchar)(\s+)((?:\w+\[\],?)+);", lambda at: f"Array<{at[1]}>{at[2]}{at[3].replace('[]', '')};", text
    )
    (into / "Selfheal.hpp").write_text(text, encoding="ascii")
    here, program = Path(__file__).parent / "mql4", into / "expert"
    words = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(here), "-I", str(into))
    _succeed("g++", *words, "-o", str(program), str(here / "expert.cpp"), "-lzmq")
    return Sender((str(program),))


_BUILDERS: Final[Mapping[str, Callable[[Path], Sender]]] = {
    "python": _python,
    "node": _node,
    "c": _c,
    "csharp": _csharp,
    "mql4": _mql4,
}


def _need(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        raise Missing(f"no {tool}: apt-get install {package}")


def _succeed(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# -- what the daemon has ----------------------------------------------------------------------------------------------


def new_key(state: Path, name: str, folder: Path) -> Path:
    """The file of a new client of the daemon of a state directory. A running one knows it within about a second."""
    file = folder / f"{name}.key"
    words = ("keys", "new", name, "--role", "guardian", "--out", str(file), "--create", "--state", str(state))
    _succeed(*SELFHEAL, *words)
    return file


def stored(daemon: Running, message_id: str) -> list[dict[str, Any]]:
    """Every alert in the journal under this id."""
    with _journal(daemon) as database:
        rows = database.execute("SELECT * FROM alerts WHERE msg_id=?", (message_id,)).fetchall()
        return [dict(row) | {"body": json.loads(row["body"])} for row in rows]


def all_ids(daemon: Running) -> set[str]:
    """Of every alert in the journal."""
    with _journal(daemon) as database:
        return {str(message_id) for (message_id,) in database.execute("SELECT msg_id FROM alerts")}


@contextmanager
def _journal(daemon: Running) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(f"file:{daemon.state / 'journal.db'}?mode=ro", uri=True, timeout=10)
    database.row_factory = sqlite3.Row
    try:
        yield database
    finally:
        database.close()
