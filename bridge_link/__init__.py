"""The ground: what any language speaks to the daemon. Needs pyzmq and msgpack only; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge_link.client import BridgeClient
    from bridge_link.communication import CommunicationBridge
    from bridge_link.errors import LinkError, LinkTimeout, Refused, StoreUnusable, WireError
    from bridge_link.wire import Kind, Message

_HOMES = {
    "BridgeClient": "bridge_link.client",
    "CommunicationBridge": "bridge_link.communication",
    "LinkError": "bridge_link.errors",
    "LinkTimeout": "bridge_link.errors",
    "Refused": "bridge_link.errors",
    "StoreUnusable": "bridge_link.errors",
    "WireError": "bridge_link.errors",
    "Kind": "bridge_link.wire",
    "Message": "bridge_link.wire",
}

__all__ = [
    "BridgeClient",
    "CommunicationBridge",
    "Kind",
    "LinkError",
    "LinkTimeout",
    "Message",
    "Refused",
    "StoreUnusable",
    "WireError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bridge_link' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
