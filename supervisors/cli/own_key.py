"""The key the command line itself speaks with: that it is refused can be said before ten seconds of silence."""

from __future__ import annotations

from bridge_link.errors import KeyTrouble
from bridge_link.keys import LOCAL, find_key, keys_directory
from supervisors.cli.exits import FAILED, Quit
from supervisors.cli.outside import Outside


def check_own_key(outside: Outside) -> None:
    """Raises Quit when the table beside the key says that it was revoked or has expired.

    What cannot be read, and a key of another daemon, is for the link to judge.
    """
    from actors.access.keyring import Keyring, utc_now  # noqa: PLC0415  slow to import
    from actors.access.rules import lapsed  # noqa: PLC0415  slow to import
    from actors.access.table import BadTable  # noqa: PLC0415  slow to import

    state_dir = outside.state_dir()
    try:
        key = find_key(None, state_dir, outside.environ)
        lines = Keyring(state_dir).table().lines
    except (KeyTrouble, BadTable, OSError):
        return
    line = next((one for one in lines if key is not None and one.public == key.public), None)
    denied = None if line is None else lapsed(line.client(), utc_now().timestamp())
    if denied is None:
        return
    file = outside.environ.get("SELFHEAL_KEY") or keys_directory(state_dir) / f"{LOCAL}.key"
    raise Quit(FAILED, f"{denied.text}: the daemon refuses {file}; see 'selfheal keys list'")
