"""What a bridge endpoint imports: heartbeats, errors as alerts, commands from runbooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Self

from bridge_link.channel import Beat, DealerChannel
from bridge_link.errors import BadAddress, LinkTimeout
from bridge_link.keys import find_key
from bridge_link.places import state_directory
from bridge_link.wire import Kind, Message, new_id

OnCommand = Callable[[Mapping[str, Any]], Mapping[str, Any]]


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


class BridgeClient:
    """One endpoint's link to the daemon. ``name`` is the endpoint's name in the configuration.

    Args:
        on_command: called with a command's body, on the link's thread; its answer goes back.
        key_file: a client key file; else `$SELFHEAL_KEY`, else the local key in the state directory.

    Raises:
        BadAddress: nobody knows where the daemon is.
        KeyMissing, KeyRefused: there is no key to speak with.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        name: str,
        state_dir: str | Path | None = None,
        beat_every_s: float = 1.0,
        on_command: OnCommand | None = None,
        key_file: str | Path | None = None,
    ) -> None:
        self.name = name
        self._on_command = on_command
        self._channel = DealerChannel(
            find_address("bridge", address, state_dir),
            key=find_key(key_file, state_dir),
            on_push=self._pushed,
            beat=Beat(beat_every_s, self._beat_body),
        )

    def send_error(self, error: Mapping[str, Any], timeout_s: float = 5.0) -> str | None:
        """Hand over a bridge error (`system`, `error_type`, `error_message`, ...) as an alert; the execution id, or
        None when nothing recovers it.

        Raises:
            LinkTimeout: the daemon did not take it in time.
            Refused: it is no error the daemon can read.
        """
        message = Message(Kind.ALERT, new_id(), dict(error) | {"source": f"bridge:{self.name}"})
        exchange = self._channel.begin(message, (Kind.STORED, Kind.DECIDED))
        try:
            decision = exchange.answers[Kind.DECIDED].result(timeout_s)
        except FutureTimeout:
            exchange.forget()
            raise LinkTimeout(f"{self._channel.address}: no decision within {timeout_s:g} s") from None
        execution_id = decision.get("execution_id")
        return str(execution_id) if execution_id else None

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _beat_body(self) -> Mapping[str, Any]:
        return {"name": self.name, "pid": os.getpid()}

    def _pushed(self, message: Message) -> None:
        if message.kind is Kind.COMMAND and self._on_command is not None:
            self._channel.say(Message(Kind.REPLY, message.id, self._on_command(message.body)))


class CommunicationBridge:
    """A mixin for the platform's bridge: ``handle_bridge_error`` starts recovery instead of only logging."""

    bridge_address: str | None = None
    bridge_name: str = "python"
    bridge_key_file: str | None = None
    _bridge_client: BridgeClient | None = None

    def handle_bridge_error(self, error_type: str, error_data: Mapping[str, Any]) -> str | None:
        """The execution id of the recovery, or None when nothing recovers it. Raises as ``BridgeClient.send_error``."""
        if self._bridge_client is None:
            self._bridge_client = BridgeClient(
                self.bridge_address, name=self.bridge_name, key_file=self.bridge_key_file
            )
        return self._bridge_client.send_error({"error_type": error_type, **error_data})
