"""Keys: one *client key file* is all a program needs to speak to a daemon, in lines that any language can read.

No thread. Needs pyzmq and the standard library only: it runs inside other people's programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq

from bridge_link.errors import KeyMissing, KeyRefused
from bridge_link.places import state_directory
from bridge_link.private_files import read_private, write_private

LOCAL: Final = "local"
"""The name of the daemon's own user's programs."""
CURVE_OFF: Final = "curve off\n"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_Z85: Final = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_WORDS: Final = ("name", "public", "secret", "server")


@dataclass(frozen=True, slots=True)
class ClientKey:
    """Who a client is (``name``, and a pair of keys in Z85) and the public key of the daemon it will speak to."""

    name: str
    public: str
    secret: str = field(repr=False)
    server: str


@dataclass(frozen=True, slots=True)
class ServerKey:
    """The daemon's own pair, in Z85."""

    public: str
    secret: str = field(repr=False)


def is_client_name(text: str) -> bool:
    """Whether a client may be named so: up to 63 of a-z 0-9 . _ -, the first a letter or digit."""
    return _NAME.fullmatch(text) is not None


def is_public_key(text: str) -> bool:
    """Whether it is a key of 32 bytes in Z85."""
    return _Z85.fullmatch(text) is not None


def keys_directory(state_dir: Path) -> Path:
    return state_dir / "keys"


def new_pair() -> ServerKey:
    public, secret = zmq.curve_keypair()
    return ServerKey(public.decode("ascii"), secret.decode("ascii"))


def new_client_key(name: str, server: str) -> ClientKey:
    pair = new_pair()
    return ClientKey(name, pair.public, pair.secret, server)


# -- files ------------------------------------------------------------------------------------------------------------


def find_key(
    key_file: str | Path | None = None,
    state_dir: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> ClientKey | None:
    """The key to speak with: the argument's file, `$SELFHEAL_KEY`, or the local key in the state directory.

    Returns:
        None: the daemon's links have CURVE switched off.

    Raises:
        KeyMissing: there is none; the text says where was looked.
        KeyRefused: there is one that cannot be used; the text says why.
    """
    if key_file is not None:
        return _found(Path(key_file), "the key file that was given")
    if environ.get("SELFHEAL_KEY"):
        return _found(Path(environ["SELFHEAL_KEY"]), "the file $SELFHEAL_KEY names")
    local = keys_directory(state_directory(state_dir, environ)) / f"{LOCAL}.key"
    try:
        return read_key_file(local)
    except KeyMissing:
        raise KeyMissing(
            f"no key: none given, $SELFHEAL_KEY is not set, and there is no {local}; does the daemon run, by this user?"
        ) from None


def read_key_file(path: str | Path) -> ClientKey | None:
    """Read a client key file; None when it says ``curve off``.

    Raises:
        KeyMissing: it is not there.
        KeyRefused: others may read it, or it is no key file.
    """
    file = Path(path)
    text = read_private(file)
    if text.split() == CURVE_OFF.split():
        return None
    words = _words(file, text, _WORDS)
    _check_pair(file, words)
    if not is_client_name(words["name"]):
        raise KeyRefused(f"{file}: {words['name']!r} is no client name")
    if not is_public_key(words["server"]):
        raise KeyRefused(f"{file}: 'server' is no key: 40 characters of Z85")
    return ClientKey(*(words[word] for word in _WORDS))


def write_key_file(path: Path, key: ClientKey, *, replace: bool = False) -> None:
    """Raises FileExistsError (without ``replace``), OSError."""
    lines = [f"{word} {getattr(key, word)}" for word in _WORDS]
    write_private(path, "\n".join(("# selfheal client key: secret", *lines)) + "\n", replace=replace)


def read_server_key(path: Path) -> ServerKey:
    """Raises as ``read_key_file``."""
    words = _words(path, read_private(path), ("public", "secret"))
    _check_pair(path, words)
    return ServerKey(words["public"], words["secret"])


def write_server_key(path: Path, key: ServerKey) -> None:
    """Raises FileExistsError, OSError."""
    write_private(path, f"# selfheal server key: secret\npublic {key.public}\nsecret {key.secret}\n")


def _found(path: Path, what: str) -> ClientKey | None:
    try:
        return read_key_file(path)
    except KeyMissing:
        raise KeyMissing(f"no key: there is no {path}, {what}") from None


def _words(path: Path, text: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """Lines ``WORD VALUE``; unknown words are another version's."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        word, _, value = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if word in found:
            raise KeyRefused(f"{path}: {word!r} stands twice")
        found[word] = value.strip()
    missing = [word for word in wanted if not found.get(word)]
    if missing:
        raise KeyRefused(f"{path} is no key file: it has no {' and no '.join(missing)}")
    return {word: found[word] for word in wanted}


def _check_pair(path: Path, words: Mapping[str, str]) -> None:
    for word in ("public", "secret"):
        if not is_public_key(words[word]):
            raise KeyRefused(f"{path}: {word!r} is no key: 40 characters of Z85")
    try:
        public = zmq.curve_public(words["secret"].encode("ascii")).decode("ascii")
    except (zmq.ZMQError, ValueError) as error:
        raise KeyRefused(f"{path}: 'secret' is no key: {error}") from None
    if public != words["public"]:
        raise KeyRefused(f"{path}: 'public' does not belong to 'secret'")
