"""Every kind of stage by name.  The supervisor reaches it through `pipeline.registry`; nothing here imports Numba."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from stages.kind import Kind

MODULES: Final = {
    "filter-mirror": "stages.mirror.kind",
    "filter-redirector": "stages.redirector.kind",
    "filter-rewriter": "stages.rewriter.kind",
    "colo-compare": "stages.compare.kind",
    "chardev-socket": "stages.socket.kind",
    "netdev-stream": "stages.socket.kind",
    "netdev-tap": "stages.device.kind",
    "netdev-packet": "stages.device.kind",
    "netdev-pcap": "stages.capture.kind",
    "netdev-null": "stages.null.kind",
}


def kind(name: str) -> Kind:
    """The kind called ``name`` (a key of MODULES)."""
    module = import_module(MODULES[name])
    found: Kind = module.KINDS[name] if hasattr(module, "KINDS") else module.KIND
    return found
