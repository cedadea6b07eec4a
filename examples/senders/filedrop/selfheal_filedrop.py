"""Send what other programs drop as files: no library is needed on their side.

    python selfheal_filedrop.py FOLDER

A program writes an alert (a JSON object, see docs/wire.md) as ``NAME.tmp`` into FOLDER and renames it to
``NAME.json``. Each file is taken into ``FOLDER/sending`` as ``TIME.MARK-NAME.json`` (``MARK`` is drawn for each: no
file ever takes another's place), sent until the daemon has it on disk, and then moved to ``FOLDER/done``; what is
refused for good goes to ``FOLDER/refused``, with the reason in a ``.reason`` file beside it. The file is the outbox:
whoever dies meanwhile, it is sent again under the same id, so that it has exactly one outcome.

Needs the packages ``guardian_link`` and ``bridge_link`` of Selfheal (pyzmq, msgpack). Ends at Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge_link.errors import LinkError
from guardian_link import Alert, AlertRefused, DaemonUnreachable, GuardianClient
from guardian_link.messages import BadAlert

MAX_FILE_BYTES = 256 * 1024
"""UTF-16 and indentation make a file larger than the body that is sent, which has at most 64 KiB."""
HALF_WRITTEN_S = 2.0
"""A file that cannot be read and is younger may be one that somebody writes without renaming it."""
MAX_NAME_BYTES = 180
"""Of a longer name the end is kept: with what is put before and behind it, it must be a name still."""
TRIES = 5
"""A file with which something unforeseen happened so often is set aside."""
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


class Unreadable(ValueError):
    """A file that holds no alert; the text says why."""


def read_alert(file: Path) -> Alert:
    """The alert in a file that was taken. Its id is made of that name and the bytes: the same after every restart.

    Raises:
        Unreadable: it holds no alert.
        OSError: it cannot be read now.
    """
    with file.open("rb") as opened:
        raw = opened.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise Unreadable(f"it has more than {MAX_FILE_BYTES} bytes")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        body = json.loads(raw.decode(encoding))
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(f"it is no JSON: {error}") from None
    facts = os.fsencode(file.name) + b"\0" + raw  # a name need not be text
    return _alert(body, f"drop-{hashlib.sha256(facts).hexdigest()[:40]}")


def _alert(body: Any, message_id: str) -> Alert:
    try:
        return Alert.from_mapping(body, id=message_id)
    except BadAlert as bad:
        raise Unreadable(str(bad)) from None


def marked(name: str, before: str = "") -> str:
    """A file's name that no other file has. It ends as ``name`` does."""
    return f"{before}.{secrets.token_hex(8)}-{os.fsdecode(os.fsencode(name)[-MAX_NAME_BYTES:])}"


@dataclass
class Sidecar:
    """``turn`` looks through the folder once. A file that makes trouble never keeps the others."""

    folder: Path
    guardian: GuardianClient
    timeout_s: float
    _said: dict[str, str] = field(default_factory=dict)
    _failed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for name in ("sending", "done", "refused"):
            (self.folder / name).mkdir(exist_ok=True)

    def turn(self) -> None:
        """Oldest first. Raises DaemonUnreachable, AlertRefused (the key is): nobody takes anything now."""
        for file in self.folder.glob("*.json"):
            self._trying(file, self._take)
        for file in sorted((self.folder / "sending").glob("*.json")):
            self._trying(file, self._send)

    def _trying(self, file: Path, act: Callable[[Path], None]) -> None:
        try:
            act(file)
        except (DaemonUnreachable, AlertRefused, LinkError):
            raise
        except OSError as error:  # still open elsewhere, or taken away: next time
            self._say(file, str(error))
        except Exception as error:  # whatever it is, it keeps no other
            self._failed[file.name] += 1
            self._say(file, f"{type(error).__name__}: {error}")
            if self._failed[file.name] >= TRIES:
                self._trying(file, lambda bad: self._refuse(bad, f"unforeseen: {self._said.get(bad.name)}"))

    def _say(self, file: Path, why: str) -> None:
        if self._said.get(file.name) != why:
            self._said[file.name] = why
            print(f"waits {file.name}: {why}", file=sys.stderr, flush=True)

    def _take(self, file: Path) -> None:
        """Out of the way of a program that uses the same name again, maybe within one tick of the file system's clock
        (2 s on FAT).
        """
        if file.is_file() and not file.is_symlink():
            file.replace(self.folder / "sending" / marked(file.name, str(file.stat().st_mtime_ns)))

    def _send(self, file: Path) -> None:
        try:
            alert = read_alert(file)
            ack = self.guardian.send(alert, timeout_s=self.timeout_s)
        except Unreadable as bad:
            if time.time() - file.stat().st_mtime > HALF_WRITTEN_S:
                self._refuse(file, f"malformed: {bad}")
            return
        except AlertRefused as refused:
            if not refused.is_final:
                raise  # not with this key: the file waits for another
            self._refuse(file, str(refused))
            return
        self._move(file, self._place(file, "done"))
        outcome = ack.decision.outcome if ack.decision is not None else ""
        print(f"stored {file.name} {ack.id} {outcome}".rstrip(), flush=True)

    def _refuse(self, file: Path, why: str) -> None:
        place = self._place(file, "refused")
        reason = place.with_name(f"{place.name}.reason")
        reason.write_text(f"{why}\n", encoding="utf-8", errors="backslashreplace")
        self._move(file, place)
        print(f"refused {file.name}: {why}", flush=True)

    def _place(self, file: Path, where: str) -> Path:
        """A place that nothing is at: a file of an earlier version has no mark, and may have a namesake."""
        place = self.folder / where / file.name
        return place.with_name(marked(file.name, "again")) if place.exists() else place

    def _move(self, file: Path, place: Path) -> None:
        file.replace(place)
        self._said.pop(file.name, None)
        self._failed.pop(file.name, None)


def watch(args: argparse.Namespace, ends: threading.Event) -> None:
    """Turn after turn until the end; a daemon that is away is waited for."""
    said = ""
    while not ends.is_set():
        try:
            with GuardianClient(args.address, state_dir=args.state, key_file=args.key_file) as guardian:
                sidecar = Sidecar(args.folder, guardian, args.timeout_s)
                while not ends.wait(args.every_s):
                    sidecar.turn()
                    said = ""
        except (
            DaemonUnreachable,
            AlertRefused,
            LinkError,
            OSError,
        ) as error:  # it may come back elsewhere, or with another key; the folder may be mounted again
            if said != str(error):
                said = str(error)
                print(f"waits: {said}", file=sys.stderr, flush=True)
            ends.wait(args.every_s)


def main() -> int:
    parser = argparse.ArgumentParser(description="Send the alerts that other programs drop into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every-s", type=float, default=0.5, help="how often the folder is looked at")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="how long one alert is waited for")
    parser.add_argument("--address", help="else $SELFHEAL_GUARDIAN, else from the state directory")
    parser.add_argument("--key-file", help="else $SELFHEAL_KEY, else the local key in the state directory")
    parser.add_argument("--state", help="the daemon's state directory; else $SELFHEAL_STATE, else the default")
    args = parser.parse_args()
    if not args.folder.is_dir():
        parser.error(f"{args.folder} is no folder")
    for stream in (sys.stdout, sys.stderr):  # a name need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    ends = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ends.set())
    watch(args, ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
