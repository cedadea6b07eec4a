"""An endpoint's side of commands: each request id is run at most once, and what became of it can be asked for.

One thread answers from the table, one more runs each command: the link's own thread never waits, heartbeats go on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge_link.errors import StoreUnusable
from bridge_link.report import plain
from bridge_link.store import BridgeStore, KnownCommand

Handler = Callable[[Mapping[str, Any]], Any]
"""Does a command; gets its parameters. What it returns is the result, what it raises means: it was not done."""
Reply = Callable[[str, Mapping[str, Any]], object]

MOST_AT_ONCE: Final = 16
MOST_WAITING: Final = 1000


class CommandDesk:
    """``reply`` sends an answer (request id, body); from any thread."""

    def __init__(self, handlers: Mapping[str, Handler], store: BridgeStore, reply: Reply) -> None:
        self._handlers = dict(handlers)
        self._store = store
        self._reply = reply
        self._asked: queue.Queue[tuple[str, Mapping[str, Any]] | None] = queue.Queue(MOST_WAITING)
        self._places = threading.Semaphore(MOST_AT_ONCE)
        self._unkept: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._run, name="bridge-commands", daemon=True)
        self._thread.start()

    def take(self, request_id: str, body: Mapping[str, Any]) -> None:
        """A CMD came; returns at once. One too many is dropped: the daemon sends it again."""
        try:
            self._asked.put_nowait((request_id, body))
        except queue.Full:
            return

    def close(self, timeout_s: float = 2.0) -> None:
        """Nothing new is begun; what is running goes on, and its end is noted if the process lives so long."""
        self._asked.put(None)
        self._thread.join(timeout_s)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            request_id, body = asked
            try:
                answer = self._answer(request_id, body)
            except Exception as error:  # a table that cannot be read or written: nothing is begun without a note of it
                answer = {"state": "unknown" if body.get("ask") is True else "busy", "error": str(error)[:1000]}
            self._reply(request_id, answer)

    def _answer(self, request_id: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if request_id in self._unkept:
            return self._unkept[request_id]
        known = self._store.command(request_id)
        if known is not None:
            return _told(known)
        if body.get("asked_before") is True and not self._store.is_durable:
            return {"state": "unknown", "error": "this endpoint keeps no table on disk, and has been started since"}
        if body.get("ask") is True:
            return {"state": "never"}
        return self._begun(request_id, body)

    def _begun(self, request_id: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        name, parameters, earlier = body.get("command"), body.get("parameters", {}), body.get("instead_of", [])
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers)) or "none"
            return {"state": "refused", "error": f"no command {str(name)[:80]!r}; there is {known}"}
        if not isinstance(parameters, Mapping) or not isinstance(earlier, list):
            return {"state": "refused", "error": "parameters is a map and instead_of a list"}
        if not self._places.acquire(blocking=False):
            return {"state": "busy", "error": f"{MOST_AT_ONCE} commands are at work"}
        try:
            why_not = self._store.begin(request_id, [str(one) for one in earlier])
        except StoreUnusable:
            self._places.release()
            raise
        if why_not is not None:
            self._places.release()
            return {"state": "refused", "error": why_not}
        threading.Thread(
            target=self._do, args=(request_id, handler, parameters), name=f"bridge-command:{name}", daemon=True
        ).start()
        return {"state": "begun"}

    # -- the threads of commands --------------------------------------------------------------------------------------

    def _do(self, request_id: str, handler: Handler, parameters: Mapping[str, Any]) -> None:
        try:
            made = {"state": "done", **plain({"result": handler(parameters)})}
        except BaseException as error:  # a handler that asks for the end of the process has failed, too
            made = {"state": "failed", **plain({"error": f"{type(error).__name__}: {error}"})}
        finally:
            self._places.release()
        try:
            self._store.finish(request_id, str(made["state"]), made)
        except StoreUnusable:  # known as long as this process lives; after it, nobody can tell
            self._unkept[request_id] = made
        self._reply(request_id, made)


def _told(known: KnownCommand) -> Mapping[str, Any]:
    match known.state:
        case "begun" if known.is_of_this_process:
            return {"state": "begun"}
        case "begun":
            return {"state": "unknown", "error": "it was begun, and the process ended before it did"}
        case "closed":
            return {"state": "refused", "error": "a later attempt stands instead of it"}
        case _:
            return known.body
