"""An endpoint that is a program run again and again (PowerShell): while it can do its work, the endpoint lives.

The configured argument list is the probe, for example ``[pwsh, -NoProfile, -NonInteractive, -Command, "exit 0"]`` or a
script by ``-File``. Exit code 0 is a sign of life; anything else is an error of the endpoint, said when it changes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import IO, Final

from actors.bridge_fsm import Connected, Heard
from actors.endpoints.transport import ErrorHeard, Tell, ThreadedTransport

MAX_MESSAGE_BYTES: Final = 1000


class ExecutorTransport(ThreadedTransport):
    """Runs ``argv`` (no shell) three times in ``silence_s`` seconds; one run may take two thirds of that.

    Each run has a session of its own; its process group is killed when its time is over, and when the transport is
    closed.
    """

    def __init__(self, name: str, argv: tuple[str, ...], silence_s: float) -> None:
        super().__init__(name)
        self._argv = argv
        self._every_s = silence_s / 3
        self._limit_s = 2 * silence_s / 3
        self._said = ""

    def _run(self, tell: Tell) -> None:
        tell(Connected())
        while not self._closed.is_set():
            began = time.monotonic()
            with tempfile.TemporaryFile() as output:  # no pipe: a grandchild that holds it open would keep us waiting
                try:
                    code = self._outcome(output)
                except (OSError, ValueError) as error:
                    self._failed(tell, "ExecutorMissing", f"cannot run {self._argv[0]!r}: {error}", None)
                else:
                    self._ended(tell, code, output)
            self._closed.wait(max(0.05, self._every_s - (time.monotonic() - began)))

    def _outcome(self, output: IO[bytes]) -> int | None:
        """Run it once: its exit code; None when it took too long, or nobody wants to know any more."""
        child = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        end = os.pidfd_open(child.pid)
        try:
            poll = select.poll()
            poll.register(end, select.POLLIN)
            poll.register(self._wake.fileno(), select.POLLIN)
            has_ended = end in {fd for fd, _ in poll.poll(self._limit_s * 1000)}
        finally:
            os.close(end)
            with suppress(ProcessLookupError):  # not reaped yet, so the group is still its own
                os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
        return code if has_ended else None

    def _ended(self, tell: Tell, code: int | None, output: IO[bytes]) -> None:
        if self._closed.is_set():
            return
        if code == 0:
            self._said = ""
            tell(Heard(facts={"executor": self._argv[0]}))
        elif code is None:
            self._failed(tell, "ExecutorTimeout", f"{self._argv[0]} took longer than {self._limit_s:g} s", None)
        else:
            self._failed(tell, "PowerShellError", _tail(output) or f"exit {code}", code)

    def _failed(self, tell: Tell, error_type: str, text: str, code: int | None) -> None:
        if text == self._said:
            return
        self._said = text
        error = {"error_type": error_type, "error_message": text, "system": "powershell"}
        tell(ErrorHeard(error | ({} if code is None else {"exit_code": code}), is_life=False))


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - MAX_MESSAGE_BYTES))
    return output.read().decode(errors="replace").strip()
