"""Every kind of stage by name.  The supervisor reaches it through `pipeline.registry`; nothing here imports Numba."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from stages.layout.kind import Kind

MODULES: Final = {
    "filter-mirror": "stages.layout.mirror",
    "filter-redirector": "stages.layout.redirector",
    "filter-rewriter": "stages.layout.rewriter",
    "colo-compare": "stages.layout.compare",
    "chardev-socket": "stages.layout.socket",
    "netdev-stream": "stages.layout.socket",
    "netdev-tap": "stages.layout.device",
    "netdev-packet": "stages.layout.device",
    "netdev-pcap": "stages.layout.pcap",
    "netdev-null": "stages.layout.null",
}


def kind(name: str) -> Kind:
    """The kind called ``name`` (a key of MODULES)."""
    module = import_module(MODULES[name])
    found: Kind = module.KINDS[name] if hasattr(module, "KINDS") else module.KIND
    return found
