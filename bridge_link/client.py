"""What a bridge endpoint imports: heartbeats, errors as alerts, commands from runbooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bridge_link.channel import Beat, DealerChannel
from bridge_link.commands import CommandDesk, Handler
from bridge_link.courier import Courier, Whereabouts
from bridge_link.errors import BadAddress, KeyMissing, LinkTimeout
from bridge_link.keys import find_key
from bridge_link.places import state_directory
from bridge_link.report import as_report, plain
from bridge_link.sockets import check_address
from bridge_link.store import BridgeStore, RefusedError
from bridge_link.wire import Kind, Message, encode, new_id


def find_address(
    link: str,
    argument: str | None = None,
    state_dir: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """The address of a link (``guardian``, ``bridge``): the argument, `$SELFHEAL_GUARDIAN` / `$SELFHEAL_BRIDGE`, or
    the file the daemon writes into its state directory.

    Raises:
        BadAddress: there is none; the text says where was looked.
    """
    variable = f"SELFHEAL_{link.upper()}"
    if argument:
        return argument
    if environ.get(variable) and state_dir is None:
        return environ[variable]
    file = state_directory(state_dir, environ) / f"{link}.address"
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        raise BadAddress(
            f"no {link} address: none given, ${variable} is not set, and there is no {file}; is the daemon running?"
        ) from None


@dataclass(frozen=True, slots=True)
class Reported:
    """What the daemon decided about an error: ``outcome`` as in docs/wire.md (DECIDED)."""

    alert_id: str
    outcome: str
    execution_id: str | None = None
    runbook: str | None = None
    reason: str = ""


def _check_key(key_file: str | Path | None, state_dir: str | Path | None) -> None:
    """Raises KeyMissing for one that was named, KeyRefused for any; the local key may come with the daemon."""
    try:
        find_key(key_file, state_dir)
    except KeyMissing:
        if key_file is not None or os.environ.get("SELFHEAL_KEY"):
            raise


class BridgeClient:
    """One endpoint's link to the daemon: heartbeats, errors as alerts, commands from runbooks. Thread-safe.

    The daemon may come later, go, and come back at another address.

    Args:
        name: the endpoint's, as in the configuration.
        folder: the endpoint's own, where it keeps errors the daemon does not have yet and the table of commands it has
            run. Without it both end with the process, and after a restart a command that may have been run before is
            answered ``unknown``.
        kind, version: what the endpoint says of itself; ``facts`` is asked for more at each heartbeat, on the link's
            thread: it must be quick.
        key_file: a client key file; else `$SELFHEAL_KEY`, else the local key in the state directory.
        commands: by name, what a runbook may ask for. Each runs on a thread of its own.

    Raises:
        BadAddress: ``address`` is given and is none.
        WireError: what the endpoint says of itself (name, kind, version, names of commands) cannot be sent.
        KeyMissing, KeyRefused: the key that was named is not there, or one cannot be used. The local key may
            come later, with the daemon.
        StoreUnusable: the folder cannot be used.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        name: str,
        state_dir: str | Path | None = None,
        folder: str | Path | None = None,
        beat_every_s: float = 1.0,
        key_file: str | Path | None = None,
        kind: str = "zeromq",
        version: str = "",
        facts: Callable[[], Mapping[str, Any]] | None = None,
        commands: Mapping[str, Handler] | None = None,
    ) -> None:
        self.name = name
        self._find: Callable[[], Whereabouts] = lambda: (
            find_address("bridge", address, state_dir),
            find_key(key_file, state_dir),
        )
        if address is not None:
            check_address(address, is_guarded=True)
        _check_key(key_file, state_dir)
        self._beat_every_s = beat_every_s
        self._facts = facts
        self._troubles: dict[str, str] = {}
        self._about = {
            "name": name,
            "session": new_id(),
            "kind": kind,
            "version": version,
            "pid": os.getpid(),
        }
        self._hello = {**self._about, "commands": sorted(commands or {})}
        encode(Message(Kind.HELLO, new_id(), self._hello))
        self._store = BridgeStore(folder, name)
        self._desk = CommandDesk(commands or {}, self._store, self._reply)
        self._courier = Courier(self._store, self._open, self._find, self._hello, self._troubles)

    def send_error(self, error: Mapping[str, Any] | BaseException, timeout_s: float = 5.0) -> str | None:
        """Hand over an error (`system`, `error_type`, `error_message`, ...; or an exception) as an alert.

        It is kept first and sent until the daemon has it, also after this returned or raised.

        Returns:
            The execution id of its recovery, or None when nothing recovers it.

        Raises: as ``report_error``.
        """
        return self.report_error(error, timeout_s).execution_id

    def report_error(self, error: Mapping[str, Any] | BaseException, timeout_s: float = 5.0) -> Reported:
        """As ``send_error``; the whole decision.

        Raises:
            LinkTimeout: no decision within ``timeout_s`` seconds; the error is kept and goes on being sent.
            Refused: the daemon will never take it (``refused`` lists those); or (``key_refused``) not with this key:
                then it is kept and goes on being sent.
            StoreUnusable: it could not be kept anywhere.
            LinkClosed: the client is closed, or was meanwhile.
        """
        letter = self._courier.put(as_report(error) | {"source": f"bridge:{self.name}"})
        try:
            decision = letter.decision.result(timeout_s)
        except FutureTimeout:
            why = self.trouble or "no decision"
            text = f"{why} within {timeout_s:g} s; the error is kept and goes on being sent"
            raise LinkTimeout(text, letter.id) from None
        finally:
            self._courier.wait_no_more(letter)
        return Reported(
            letter.id,
            str(decision.get("outcome", "")),
            str(decision["execution_id"]) if decision.get("execution_id") else None,
            str(decision["runbook"]) if decision.get("runbook") else None,
            str(decision.get("reason") or ""),
        )

    def post_error(self, error: Mapping[str, Any] | BaseException) -> str:
        """As ``send_error`` without waiting; the alert's id. Raises StoreUnusable, LinkClosed."""
        letter = self._courier.put(as_report(error) | {"source": f"bridge:{self.name}"})
        self._courier.wait_no_more(letter)
        return letter.id

    @property
    def waiting(self) -> int:
        """How many errors the daemon does not have yet. Raises StoreUnusable."""
        return self._courier.waiting

    @property
    def refused(self) -> list[RefusedError]:
        """Errors the daemon will never take. Raises StoreUnusable."""
        return self._store.refused()

    def bring_back(self, error_id: str) -> bool:
        """Send a refused one again (the daemon was mended). False: there is none. Raises StoreUnusable."""
        return self._store.bring_back(error_id)

    def forget_refused(self, error_id: str) -> None:
        """Somebody has seen to it. Raises StoreUnusable."""
        self._store.forget_refused(error_id)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the link now, in one line; None when all is well."""
        return "; ".join(list(self._troubles.values())) or None

    def close(self) -> None:
        """What is not delivered stays in the folder."""
        self._desk.close()
        self._courier.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- on the link's thread, and on those of commands -------------------------------------------------------------

    def _open(self, where: Whereabouts) -> DealerChannel:
        address, key = where
        beat = Beat(self._beat_every_s, self._beat_body)
        return DealerChannel(address, key=key, on_push=self._pushed, beat=beat)

    def _beat_body(self) -> Mapping[str, Any]:
        if self._facts is None:
            return self._about
        try:
            said = plain(dict(self._facts()))
            self._troubles.pop("facts", None)
        except Exception as error:  # the user's own code must not end the link
            self._troubles["facts"] = f"facts failed: {type(error).__name__}: {error}"
            return self._about
        return {**self._about, "facts": said}

    def _pushed(self, message: Message) -> None:
        if message.kind is Kind.COMMAND:
            self._desk.take(message.id, message.body)

    def _reply(self, request_id: str, body: Mapping[str, Any]) -> None:
        self._courier.say(Message(Kind.REPLY, request_id, body))
