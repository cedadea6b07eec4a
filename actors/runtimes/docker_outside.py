"""What others do to our containers, and who is told: one observer a run, and one listener for the whole daemon.

Called on the watcher's and the pool's threads; one lock, held while a message is put into an inbox.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from actors.runtimes.base import LaunchSpec
from actors.runtimes.docker_exits import ContainerEvent
from actors.runtimes.docker_spec import COMPOSE_PROJECT, COMPOSE_SERVICE, container_of, is_ours
from actors.runtimes.observing import NOTHING_SEEN, Observed, OnObserved


class OutsideListener(Protocol):
    """Who decides what to do about it. Called on a watcher thread: it must only hand on."""

    def runs_again(self, service: str, started_at: float) -> None:
        """A container runs although no run of the service is known: somebody else started it then (Unix seconds), or a
        stop never reached it.
        """

    def was_no_wish(self, service: str) -> None:
        """What looked like a wish to stop was only the end of the engine."""

    def happened(self, service: str, event: str, text: str) -> None:
        """For the record (``selfheal why``)."""


class Unheard:
    """Nobody listens."""

    def runs_again(self, service: str, started_at: float) -> None:
        del service, started_at

    def was_no_wish(self, service: str) -> None:
        del service

    def happened(self, service: str, event: str, text: str) -> None:
        del service, event, text


@dataclass(slots=True)
class _Eye:
    run: int
    seen: Observed
    tell: OnObserved | None = None


class Outside:
    """``wants`` remembers each service's spec; ``begin``, ``see`` and ``end`` follow its run."""

    def __init__(self, instance: str) -> None:
        self.listener: OutsideListener = Unheard()
        self.is_paused_by_us: Callable[[str], bool] = lambda _service: False
        """Whether a pause of this service is our own doing: then nobody outside did it."""
        self._instance = instance
        self._lock = threading.Lock()
        self._wanted: dict[str, LaunchSpec] = {}
        self._eyes: dict[str, _Eye] = {}
        self._drifts: dict[str, str | None] = {}
        self._told: dict[str, float] = {}

    def wants(self, spec: LaunchSpec) -> None:
        with self._lock:
            self._wanted[spec.service] = spec

    def wanted(self) -> tuple[LaunchSpec, ...]:
        with self._lock:
            return tuple(self._wanted.values())

    def meant_by(self, event: ContainerEvent) -> LaunchSpec | None:
        """The service whose container this is, by its labels or its name: it may be a new one with a new id."""
        with self._lock:
            return next((spec for spec in self._wanted.values() if _is_of(spec, event, self._instance)), None)

    # -- one run ------------------------------------------------------------------------------------------------------

    def begin(self, service: str, run: int, seen: Observed) -> None:
        seen = self._without_our_pause(service, seen)
        with self._lock:
            self._eyes[service] = _Eye(run, seen)
        self._record(service, NOTHING_SEEN, seen)

    def observe(self, service: str, run: int, tell: OnObserved) -> None:
        with self._lock:
            eye = self._eyes.get(service)
            if eye is not None and eye.run == run:
                eye.tell = tell
                tell(eye.seen)

    def see(self, service: str, run: int, seen: Observed) -> None:
        seen = self._without_our_pause(service, seen)
        with self._lock:
            eye = self._eyes.get(service)
            if eye is None or eye.run != run:
                return
            seen = replace(seen, origin=seen.origin or eye.seen.origin)
            if eye.seen == seen:
                return
            before, eye.seen = eye.seen, seen
            if eye.tell is not None:
                eye.tell(seen)
        self._record(service, before, seen)

    def restarted(self, service: str, run: int, text: str) -> None:
        """The run is one that somebody else began."""
        with self._lock:
            eye = self._eyes.get(service)
            seen = eye.seen if eye is not None and eye.run == run else None
        if seen is not None:
            self.see(service, run, replace(seen, origin=text))

    def lose_sight(self, trouble: str | None) -> None:
        """The engine is away (or back, with None): of all runs."""
        with self._lock:
            eyes = [(service, eye.run, eye.seen) for service, eye in self._eyes.items()]
        for service, run, seen in eyes:
            self.see(service, run, replace(seen, unknown=trouble))

    def end(self, service: str, run: int) -> None:
        with self._lock:
            eye = self._eyes.get(service)
            if eye is not None and eye.run == run:
                del self._eyes[service]

    def tell_runs_again(self, service: str, started_at: float) -> None:
        """Once for each start."""
        with self._lock:
            is_news = self._told.get(service) != started_at
            self._told[service] = started_at
        if is_news:
            self.listener.runs_again(service, started_at)

    def _without_our_pause(self, service: str, seen: Observed) -> Observed:
        return replace(seen, paused=None) if seen.paused is not None and self.is_paused_by_us(service) else seen

    def _record(self, service: str, before: Observed, now: Observed) -> None:
        """A pause and a flip of the health are told each time, drift once."""
        if now.paused != before.paused:
            self.listener.happened(
                service, "paused" if now.paused else "unpaused", now.paused or "unpaused from outside (docker unpause)"
            )
        if now.health is not before.health and now.health is not None and before.health is not None:
            self.listener.happened(service, "health", now.health_detail or f"docker health check: {now.health.value}")
        with self._lock:
            is_news = now.drift != self._drifts.get(service)
            self._drifts[service] = now.drift
        if is_news:
            self.listener.happened(service, "drift", now.drift or "drift: ended")


def _is_of(spec: LaunchSpec, event: ContainerEvent, instance: str) -> bool:
    container, attributes = container_of(spec), event.attributes
    if container.attach_name is not None:
        return attributes.get("name") == container.attach_name
    if container.compose_service is not None:
        return attributes.get(COMPOSE_SERVICE) == container.compose_service and (
            container.compose_project is None or attributes.get(COMPOSE_PROJECT) == container.compose_project
        )
    return is_ours(attributes, instance, spec.service)
