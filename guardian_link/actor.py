"""The link as a pykka actor, for programs made of actors: tell it alerts and questions, be told the answers.

The only module here that needs pykka. Its thread never waits: not for the daemon, not for a disk.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Unpack

try:
    import pykka
except ModuleNotFoundError as missing:  # pragma: no cover  the light install
    raise ModuleNotFoundError("GuardianLinkActor needs pykka: pip install pykka", name=missing.name) from missing

from guardian_link.client import GuardianClient
from guardian_link.errors import LinkBusy
from guardian_link.link_messages import BadRequest, Reply, read_request
from guardian_link.link_work import LinkWork, answer, tell
from guardian_link.messages import BadAlert
from guardian_link.settings import ClientSettings

LOG: Final = logging.getLogger("guardian_link")


class GuardianLinkActor(pykka.ThreadingActor):
    """``link = GuardianLinkActor.start(outbox=...)``, then ``link.tell(request)`` (``guardian_link.link_messages``).

    ``settings``: of ``GuardianClient``. The daemon need not be there yet. A message that is no request is logged, and
    answered if it says to whom; the actor goes on. Asked instead of told, an alert is answered with its id at once.
    Stopped, it keeps what it was told before and answers what is open.
    """

    def __init__(self, address: str | None = None, **settings: Unpack[ClientSettings]) -> None:
        super().__init__()
        self._work = LinkWork(lambda: GuardianClient(address, **settings))

    def on_receive(self, message: Any) -> str | None:
        try:
            request = read_request(message)
        except Exception as bad:  # whatever was told
            self._refuse(message, bad)
            return None
        try:
            return self._work.take(request)
        except (BadAlert, BadRequest, LinkBusy) as error:
            answer(request, error=error)
        except Exception as error:
            LOG.exception("a request could not be taken")
            answer(request, error=error)
        return None

    def on_stop(self) -> None:
        self._work.close()

    def on_failure(self, *_: object) -> None:
        self._work.close()

    @staticmethod
    def _refuse(message: object, bad: Exception) -> None:
        LOG.error("the guardian link was told what is no request: %s", bad)
        if isinstance(message, dict) and callable(getattr(message.get("reply_to"), "tell", None)):
            tell(message["reply_to"], Reply(message, message.get("tag"), error=bad))
