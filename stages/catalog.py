"""Every kind of stage by name.  The supervisor reaches it through `pipeline.registry`; nothing here imports Numba."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from stages.kind import Kind

MODULES: Final = {
    "filter-mirror": "stages.mirror.layout",
    "filter-redirector": "stages.redirector.layout",
    "filter-rewriter": "stages.rewriter.layout",
    "colo-compare": "stages.compare.layout.words",
    "chardev-socket": "stages.socket.layout",
    "netdev-stream": "stages.socket.layout",
    "netdev-tap": "stages.device.layout",
    "netdev-packet": "stages.device.layout",
    "netdev-pcap": "stages.capture.layout.replay",
    "netdev-null": "stages.null.layout",
}


def kind(name: str) -> Kind:
    """The kind called ``name`` (a key of MODULES)."""
    module = import_module(MODULES[name])
    found: Kind = module.KINDS[name] if hasattr(module, "KINDS") else module.KIND
    return found
