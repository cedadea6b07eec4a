"""The only handle on an actor: a typed reference. One of the few files that name pykka."""

from __future__ import annotations

from typing import Any, Protocol

import pykka


class ActorGone(Exception):
    """The actor asked is not alive any more (OTP ``noproc``)."""


class AskTimeout(Exception):
    """The actor did not answer in time."""


class Ref(Protocol):
    """What one may do to an actor from outside."""

    def tell(self, message: object) -> bool:
        """Put a message into the inbox. False when the actor is known to be gone; True promises nothing."""

    def ask(self, message: object, timeout_s: float) -> Any:
        """Wait for an answer. Never from an actor's thread.

        Raises:
            ActorGone: it is not alive.
            AskTimeout: no answer within ``timeout_s`` seconds.
        """


class ActorRef:
    """A ``Ref`` on a pykka actor."""

    __slots__ = ("_ref",)

    def __init__(self, ref: pykka.ActorRef[Any]) -> None:
        self._ref = ref

    def tell(self, message: object) -> bool:
        try:
            self._ref.tell(message)
        except pykka.ActorDeadError:
            return False
        return True

    def ask(self, message: object, timeout_s: float) -> Any:
        try:
            return self._ref.ask(message, timeout=timeout_s)
        except pykka.ActorDeadError as gone:
            raise ActorGone(str(self)) from gone
        except pykka.Timeout as late:
            raise AskTimeout(f"{self} did not answer within {timeout_s:g} s") from late

    @property
    def is_alive(self) -> bool:
        return self._ref.is_alive()

    def __repr__(self) -> str:
        return f"<ActorRef {self._ref.actor_class.__name__}>"
