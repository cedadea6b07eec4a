"""What ``selfheal silence add`` looks at before it asks the daemon."""

from __future__ import annotations

from collections.abc import Sequence

from runbooks.deciding.quiet import BadMatcher, field_of, matchers
from supervisors.cli.alerting import FIELDS
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.near import nearest
from supervisors.cli.terminal import complain


def check_matchers(texts: Sequence[str]) -> None:
    """Warn of fields that no alert has: everything an alert says beside its own fields is below ``labels``.

    Raises:
        Quit: a text is no matcher.
    """
    try:
        matchers(tuple(texts))
    except BadMatcher as bad:
        raise Quit(WRONG_USAGE, str(bad)) from None
    for text in texts:
        name = field_of(text)
        if name not in FIELDS:
            meant = nearest(name, FIELDS) or f"labels.{name}"
            complain(f"selfheal: no alert has a field {name!r}, so {text!r} fits none; did you mean {meant}?")
