"""The floor: a bare event loop on the Docker SDK. Usage: bare_container_loop.py LABEL

Starts every container with that label again as soon as its end is told, by id, through the low-level API.
"""

from __future__ import annotations

import sys

import docker


def main() -> None:
    client = docker.from_env()
    filters = {"type": "container", "event": "die", "label": sys.argv[1]}
    events = client.events(decode=True, filters=filters)
    print("ready", flush=True)
    for event in events:
        client.api.start(event["id"])


if __name__ == "__main__":
    main()
