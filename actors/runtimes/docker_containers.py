"""Finding, making and removing the one container of a service, and never touching anybody else's.

Blocking calls on the I/O pool. A container is ours when it carries this instance's and this service's label; one to
attach to is named by its owner, and only started and stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from docker.errors import APIError, ImageNotFound, NotFound

from actors.runtimes.base import LaunchError, LaunchSpec, TruthUnknown
from actors.runtimes.docker_engine import BadArgument, DockerEngine
from actors.runtimes.docker_facts import is_restarting, is_running
from actors.runtimes.docker_spec import (
    COMPOSE_NUMBER,
    COMPOSE_ONEOFF,
    COMPOSE_PROJECT,
    COMPOSE_SERVICE,
    LABEL_SPEC_HASH,
    LABEL_VARIABLES,
    container_name,
    container_of,
    create_arguments,
    identity_from,
    is_attached,
    is_ours,
    owner_labels,
    spec_hash,
    unix_time,
    variables_hash,
)
from actors.runtimes.environment import read_variables

_CONFLICT: Final = 409
_SERVER_ERROR: Final = 500
_LOOK_S: Final = 0.02
_NAME_IS_FREE_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """A container of the engine: ``inspected`` is everything it says about it."""

    inspected: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.inspected["Id"])

    @property
    def is_running(self) -> bool:
        return is_running(self.inspected)

    @property
    def is_restarting(self) -> bool:
        return is_restarting(self.inspected)

    @property
    def is_going(self) -> bool:
        """Somebody removes it at this moment: it cannot be started, and its name is not free yet."""
        return self.inspected["State"]["Status"] in ("removing", "dead")

    @property
    def started_at(self) -> float:
        return unix_time(identity_from(self.inspected).started_at)

    @property
    def is_only_created(self) -> bool:
        return bool(self.inspected["State"]["Status"] == "created")

    @property
    def labels(self) -> Mapping[str, str]:
        return self.inspected["Config"].get("Labels") or {}

    def fits(self, spec: LaunchSpec) -> bool:
        """Whether it was made from an equal spec (always true of an attached one)."""
        return is_attached(spec) or self.labels.get(LABEL_SPEC_HASH) == spec_hash(spec)

    def is_up_to_date(self, spec: LaunchSpec) -> bool:
        """Whether it also holds what its environment files and secrets say now. Raises: LaunchError, as at a launch."""
        if not spec.sources:
            return True
        return self.labels.get(LABEL_VARIABLES) == variables_hash(spec, read_variables(spec).values)


class Containers:
    """``find``, ``make``, ``start``, ``remove``: all for one instance of the daemon."""

    def __init__(self, engine: DockerEngine, instance: str) -> None:
        self._engine = engine
        self._instance = instance

    def find(self, spec: LaunchSpec) -> Found | None:
        """The service's container, running or not. A missing one to attach to is None too.

        Raises:
            TruthUnknown: the engine did not answer.
            LaunchError: compose has several containers of that service.
        """
        container = container_of(spec)
        if container.attach_name is not None:
            return self._inspect(container.attach_name)
        if container.compose_service is not None:
            return self._find_compose(spec)
        return self._find_own(spec.service)

    def own(self, service: str) -> tuple[Found, ...]:
        """All containers that were made for this service, running ones first. Raises: TruthUnknown."""
        listed = self._engine.list_by_labels(owner_labels(self._instance, service))
        ordered = sorted(listed, key=lambda entry: entry.get("State") != "running")
        found = (self._inspect(str(entry["Id"])) for entry in ordered)
        return tuple(one for one in found if one is not None)

    def make(self, spec: LaunchSpec, run: int) -> str:
        """Create the container from its image, which must be there; returns the container's id.

        Raises:
            LaunchError: no such image, a file of variables that cannot be read, or the name belongs to somebody else's
            container.
        """
        arguments = create_arguments(spec, run, self._instance, read_variables(spec).values)
        deadline, pause = time.monotonic() + _NAME_IS_FREE_WITHIN_S, threading.Event()
        while True:
            try:
                return str(self._engine.ask(lambda client: client.containers.create(**arguments)).id)
            except ImageNotFound as error:
                image = arguments["image"]
                raise LaunchError(
                    f"service {spec.service!r}: image {image} is not on this engine: run `docker pull {image}`",
                    permanent=True,
                ) from error
            except BadArgument as bad:
                text = f"service {spec.service!r}: Docker cannot create its container: {bad}"
                raise LaunchError(text, permanent=True) from bad
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise launch_error(spec, "create", error) from error
                self._refuse_stranger(spec, error)
                if time.monotonic() >= deadline:
                    raise launch_error(spec, "create", error) from error
            pause.wait(_LOOK_S)

    def start(self, spec: LaunchSpec, container_id: str) -> None:
        """Start it; nothing happens when it runs already. One of ours that never ran is removed when it cannot start.

        Raises:
            LaunchError: the engine refused. ``docker.errors.NotFound`` when the container is gone, or just going.
        """
        try:
            self._engine.ask(lambda client: client.api.start(container_id))
        except NotFound as error:
            if self._inspect(container_id) is None:
                raise
            self._remove_if_only_created(spec, container_id)
            raise launch_error(spec, "start", error) from error  # a network is missing
        except APIError as error:
            found = self._inspect(container_id)
            if found is not None and found.is_going:
                raise NotFound(f"container {container_id[:12]} is being removed") from error
            self._remove_if_only_created(spec, container_id)
            raise launch_error(spec, "start", error) from error

    def await_removal(self, container_id: str, timeout_s: float) -> None:
        """Until somebody else's removal of it is over. Raises LaunchError when that takes longer, TruthUnknown."""
        deadline, pause = time.monotonic() + timeout_s, threading.Event()
        while (found := self._inspect(container_id)) is not None and found.is_going:
            if time.monotonic() >= deadline:
                raise LaunchError(f"container {container_id[:12]} is being removed, which does not end")
            pause.wait(_LOOK_S)

    def remove(self, spec: LaunchSpec, found: Found) -> None:
        """Remove one of ours; anybody else's is left alone."""
        if is_ours(found.labels, self._instance, spec.service) and not is_attached(spec):
            with contextlib.suppress(NotFound):
                self._engine.ask(lambda client: client.api.remove_container(found.id, force=True))

    def missing_text(self, spec: LaunchSpec) -> str:
        """What to tell people when there is nothing to attach to."""
        container = container_of(spec)
        if container.attach_name is not None:
            return (
                f"service {spec.service!r}: there is no container {container.attach_name!r} to attach to: "
                "create it, or correct `container`"
            )
        project, name = container.compose_project, container.compose_service
        return (
            f"service {spec.service!r}: compose project {project!r} has no container of service {name!r}: "
            f"run `docker compose -p {project} create {name}`, or correct `compose`"
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _inspect(self, container: str) -> Found | None:
        inspected = self._engine.inspect(container)
        return None if inspected is None else Found(inspected)

    def _find_own(self, service: str) -> Found | None:
        """By label, not by name: a renamed container is still ours. A running one goes first."""
        return next(iter(self.own(service)), None)

    def _find_compose(self, spec: LaunchSpec) -> Found | None:
        container = container_of(spec)
        wanted = {COMPOSE_SERVICE: container.compose_service or ""}
        if container.compose_project is not None:
            wanted[COMPOSE_PROJECT] = container.compose_project
        listed = [
            entry
            for entry in self._engine.list_by_labels(wanted)
            if (entry.get("Labels") or {}).get(COMPOSE_ONEOFF, "False") != "True"
        ]
        if len(listed) > 1:
            names = ", ".join(sorted(str((entry.get("Names") or [entry["Id"]])[0]).lstrip("/") for entry in listed))
            raise LaunchError(
                f"service {spec.service!r}: compose has several containers of it ({names}): "
                "name one with `container`, one service each",
                permanent=True,
            )
        ordered = sorted(listed, key=lambda entry: str((entry.get("Labels") or {}).get(COMPOSE_NUMBER, "")))
        return self._inspect(str(ordered[0]["Id"])) if ordered else None

    def _remove_if_only_created(self, spec: LaunchSpec, container_id: str) -> None:
        with contextlib.suppress(TruthUnknown, APIError):  # the start's own error is the one to tell
            found = self._inspect(container_id)
            if found is not None and found.is_only_created:
                self.remove(spec, found)

    def _refuse_stranger(self, spec: LaunchSpec, error: APIError) -> None:
        """Nobody has the name when a removal is just ending: the engine forgets the container first, its name last."""
        name = container_name(spec.service)
        stranger = self._inspect(name)
        if stranger is not None and not stranger.is_going:
            raise LaunchError(
                f"service {spec.service!r}: the container name {name} is taken by container {stranger.id[:12]}, which "
                "is not ours and stays untouched: rename or remove it",
                permanent=True,
            ) from error


def launch_error(spec: LaunchSpec, act: str, error: APIError) -> LaunchError:
    """The engine's own words, in one line, with the service and what was tried."""
    words = " ".join(str(error.explanation or error).split())
    permanent = error.status_code is not None and error.status_code < _SERVER_ERROR and error.status_code != _CONFLICT
    return LaunchError(f"service {spec.service!r}: Docker cannot {act} its container: {words}", permanent=permanent)
