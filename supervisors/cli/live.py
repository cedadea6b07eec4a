"""Drawing over the same place of a terminal: ``tree --watch``, and the live tree while ``run`` has the terminal."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from supervisors.cli.terminal import Terminal, say, terminal_of
from supervisors.manager import Manager, ManagerError, Tree
from supervisors.render import render_tree
from supervisors.tree_json import walk

REDRAW_S: Final = 1.0
Hints = Callable[[Tree], Sequence[str]]
"""What to try next, one line each."""


class Screen:
    """Shows one text after the other in the same place; on what is no terminal, one below the other."""

    def __init__(self, terminal: Terminal) -> None:
        self._live: Live | None = None
        if terminal.is_tty:
            console = Console(file=sys.stdout, no_color=not terminal.colour, highlight=False)
            # Standard output stays itself: a stand-in would hide the terminal's encoding.
            self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop", redirect_stdout=False)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, text: str) -> None:
        if self._live is None:
            say(text, "")
            return
        height = shutil.get_terminal_size().lines - 1
        self._live.update(Text.from_ansi(cropped(text, height), no_wrap=True), refresh=True)


def cropped(text: str, height: int) -> str:
    """At most ``height`` lines; the last one tells how many are missing."""
    lines = text.split("\n")
    if len(lines) <= height:
        return text
    kept = lines[: max(0, height - 1)]
    return "\n".join([*kept, f"... {len(lines) - len(kept)} more lines: the terminal is too low"])


class LiveTree:
    """The tree of a running daemon, redrawn every second by a thread of its own, with hints below it.

    Fulfils the daemon's ``View``: ``start`` and ``stop``, each once, from any thread.
    """

    def __init__(self, manager: Manager, hints: Hints) -> None:
        self._manager = manager
        self._hints = hints
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="live-tree", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The last look stays on the terminal."""
        self._ended.set()
        self._thread.join(5.0)

    def _draw(self) -> None:
        with Screen(terminal_of(sys.stdout)) as screen:
            while not self._ended.is_set():
                screen.show(self._frame())
                self._ended.wait(REDRAW_S)
            screen.show(self._frame())

    def _frame(self) -> str:
        try:
            tree = self._manager.tree()
        except ManagerError as error:
            return str(error)
        hints = "" if self._ended.is_set() else footer(self._hints(tree))
        height = shutil.get_terminal_size().lines - 1 - (hints.count("\n") + 2 if hints else 0)
        terminal = terminal_of(sys.stdout)
        drawn = render_tree(
            tree, now=time.time(), width=terminal.width, colour=terminal.colour, ascii_only=terminal.ascii_only
        )
        return f"{cropped(drawn, height)}\n\n{hints}" if hints else drawn


def footer(hints: Sequence[str]) -> str:
    return "\n".join(["In another terminal:", *(f"  {hint}" for hint in hints), "Ctrl-C stops everything."])


def what_to_try(option: str = "") -> Hints:
    """The usual hints. ``option`` is what the commands need to find this daemon (``--state DIR``), if anything."""
    selfheal = f"selfheal {option}".strip()

    def hints(tree: Tree) -> list[str]:
        ready = [one for one in walk(tree["root"]) if one["kind"] == "service" and one["state"] == "ready"]
        victim = next((one for one in ready if one["name"] == "risk-manager"), ready[0] if ready else None)
        lines = [f"{selfheal} tree"]
        if victim is not None and "pid" in victim:
            lines.append(f"kill -9 {victim['pid']}    ({victim['name']}; watch it come back)")
        if victim is not None:
            lines.append(f"{selfheal} alert send --type service_failure --service {victim['name']} --wait")
        return [*lines, f"{selfheal} --help"]

    return hints
