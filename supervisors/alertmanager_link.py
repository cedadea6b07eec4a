"""What the configuration says of Alertmanager, for the parts that take its notifications. Any thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.alertmanager import AlertmanagerPlan
from config.models import AlertmanagerConfig
from guardian_link.alertmanager import extended

MAX_TOKEN_BYTES: Final = 4096


def alertmanager_plan(config: AlertmanagerConfig) -> AlertmanagerPlan:
    words = extended(config.types, config.services, config.severities, config.service_labels)
    return AlertmanagerPlan(words, config.repeat_after)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The token whoever sends notifications must have; read each time, so that it can be changed. None: no token."""

    path: Path | None

    def read(self) -> str | None:
        """Raises ValueError: it cannot be used; the text says why, and never holds the token."""
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(MAX_TOKEN_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError(f"{self.path}: others may read it; chmod 600 it")
        token = raw.decode("latin-1").strip()
        if not token or len(raw) > MAX_TOKEN_BYTES or not (token.isascii() and token.isprintable()):
            raise ValueError(f"{self.path}: holds no token: one line of printable ASCII")
        return token

    def trouble(self) -> str | None:
        try:
            self.read()
        except ValueError as error:
            return f"alertmanager is not heard: {error}"
        return None


def tokens_of(files: Callable[[], Mapping[str, Path]]) -> Callable[[], dict[str, str]]:
    """The operators' tokens by name, by the files there are at each read. It raises ValueError: one cannot be used."""

    def read() -> dict[str, str]:
        found = {name: TokenFile(path).read() for name, path in files().items()}
        return {name: token for name, token in found.items() if token is not None}

    return read


def first_of(*looks: Callable[[], str | None]) -> Callable[[], str | None]:
    """One look made of several: what the first one that finds something found."""

    def look() -> str | None:
        found = [one() for one in looks]
        return next((text for text in found if text is not None), None)

    return look
