"""The platform's own bridge class: its errors start recovery instead of only being logged."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge_link.client import BridgeClient
from bridge_link.errors import LinkTimeout
from bridge_link.report import of_exception

_OPENING = threading.Lock()


class CommunicationBridge:
    """A mixin: ``handle_bridge_error`` hands an error to the daemon. Thread-safe; needs no ``__init__`` of its own.

    Set as class or instance attributes, before the first error: ``bridge_name`` (the endpoint's, ``python``),
    ``bridge_folder`` (where errors are kept while the daemon is away; without it they end with the process),
    ``bridge_timeout_s`` (how long a decision is waited for), ``bridge_address``, ``bridge_state_dir`` and
    ``bridge_key_file`` (as ``BridgeClient``).
    """

    bridge_address: str | None = None
    bridge_state_dir: str | Path | None = None
    bridge_key_file: str | Path | None = None
    bridge_name: str = "python"
    bridge_folder: str | Path | None = None
    bridge_timeout_s: float = 5.0
    _bridge_client: BridgeClient | None = None

    def handle_bridge_error(
        self, error_type: str | BaseException, error_data: Mapping[str, Any] | BaseException | None = None
    ) -> str | None:
        """Start the recovery of an error: ``("MQL4Error", {...})``, ``("SyncError", exception)`` or ``(exception)``.

        Errors of one ``error_type`` are one trouble to the daemon (``error_id`` is ``bridge_<error_type>``).

        Returns:
            The execution id; None when nothing recovers it, or when there is no decision within ``bridge_timeout_s``:
            then the error is kept, and sent until the daemon has it.

        Raises:
            Refused: the daemon will never take it (``forbidden``: the key may not send this type); or not with this key
                (``key_refused``: unknown, revoked, expired): then it is kept.
            StoreUnusable: it could be kept neither on disk nor in memory.
        """
        error = _described(error_type, error_data)
        try:
            return self._bridge().send_error(error, self.bridge_timeout_s)
        except LinkTimeout:
            return None

    def close_bridge(self) -> None:
        """End heartbeats and threads. What is not delivered stays in ``bridge_folder``."""
        with _OPENING:
            client, self._bridge_client = self._bridge_client, None
        if client is not None:
            client.close()

    def _bridge(self) -> BridgeClient:
        with _OPENING:
            if self._bridge_client is None:
                self._bridge_client = BridgeClient(
                    self.bridge_address,
                    name=self.bridge_name,
                    state_dir=self.bridge_state_dir,
                    key_file=self.bridge_key_file,
                    folder=self.bridge_folder,
                )
            return self._bridge_client


def _described(error_type: str | BaseException, error_data: Mapping[str, Any] | BaseException | None) -> dict[str, Any]:
    """The data's own words count; an exception tells what it is."""
    described: dict[str, Any] = {}
    for one in (error_type, error_data):
        if isinstance(one, BaseException):
            described |= of_exception(one)
    name = error_type if isinstance(error_type, str) else type(error_type).__name__
    described |= {"error_type": name}
    described |= error_data if isinstance(error_data, Mapping) else {}
    if "dedup_key" not in described:
        described.setdefault("error_id", f"bridge_{name}")
    return described
