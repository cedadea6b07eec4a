"""An endpoint that waits for its next try is tried at once when the service behind it has become ready, and patiently.

Without it a parked endpoint would see only within a minute that what it waits for is back; and one that is ready
before it can be spoken to (it has no health check) would use up all tries meanwhile. ``look`` is called on any thread,
under the board's lock; the calls to the supervisor are made on the I/O pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from actors.board import NodeKind, NodeState, NodeStatus
from actors.bridge_endpoint import EndpointPast
from supervisors.decisions.model import Ask, Refused
from supervisors.supervisor import Result


@dataclass
class EndpointReturn:
    """``behind``: the services behind the endpoints, by the endpoint's name; ``pasts``: what is remembered of each;
    ``ask`` makes a run-time call to the endpoints' supervisor (blocking); ``run`` runs on the I/O pool.
    """

    behind: Mapping[str, str]
    pasts: Mapping[str, EndpointPast]
    ask: Callable[[Ask, str], Result]
    run: Callable[[Callable[[], object]], object]
    _ready: set[str] = field(default_factory=set)

    def look(self, status: NodeStatus) -> None:
        """What a node says of itself now."""
        name = status.path.rsplit("/", 1)[-1]
        if status.kind is not NodeKind.SERVICE or name not in self.behind.values():
            return
        was_ready = name in self._ready
        if status.state is not NodeState.READY:
            self._ready.discard(name)
        elif not was_ready:
            self._ready.add(name)
            for endpoint in (one for one, service in self.behind.items() if service == name):
                self.pasts[endpoint].is_awaited = True
                self._try(endpoint)

    def _try(self, endpoint: str) -> None:
        try:
            self.run(lambda: self._tried(endpoint))
        except RuntimeError:  # the daemon ends
            return

    def _tried(self, endpoint: str) -> None:
        try:
            found = self.ask(Ask.RESTART, endpoint)
            if isinstance(found, Refused) and found.kind == "restarting":
                self.ask(Ask.TERMINATE, endpoint)
                self.ask(Ask.RESTART, endpoint)
        except Exception as error:  # it is tried again by itself, later
            structlog.get_logger().warning("endpoint could not be tried", endpoint=endpoint, error=str(error))
