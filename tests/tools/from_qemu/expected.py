"""What each example of the documentation has to become, written by hand."""

from __future__ import annotations

from typing import Any

RING = {"backend": "ring"}


def _socket(host: str, port: int, **more: Any) -> dict[str, Any]:
    return {"backend": "socket", "host": host, "port": port, **more}


def _netdev(name: str) -> dict[str, Any]:
    guest = {"backend": "stream", "path": f"/run/colo/{name}-hn0.sock", "server": True}
    return {"hn0": {"network": {"backend": "tap", "ifname": "colo0"}, "guest": guest}}


def primary(host: str, vnet: dict[str, bool], *, wait: dict[str, bool]) -> dict[str, Any]:
    """The primary's side of the usage section."""
    return {
        "pipeline": {"name": "primary", "runtime_dir": "/run/colo"},
        "chardev": {
            "mirror0": _socket(host, 9003, server=True),
            "compare1": _socket(host, 9004, server=True, **wait),
            "compare0": RING,
            "compare_out": RING,
        },
        "netdev": _netdev("primary"),
        "filter": {
            "m0": {"type": "filter-mirror", "netdev": "hn0", "queue": "tx", "outdev": "mirror0", **vnet},
            "redire0": {"type": "filter-redirector", "netdev": "hn0", "queue": "rx", "indev": "compare_out", **vnet},
            "redire1": {"type": "filter-redirector", "netdev": "hn0", "queue": "rx", "outdev": "compare0", **vnet},
        },
        "compare": {
            "comp0": {
                "primary_in": "compare0",
                "secondary_in": "compare1",
                "outdev": "compare_out",
                "checkpoint": "local",
                **vnet,
            }
        },
    }


def secondary(host: str, vnet: dict[str, bool], *, rewriter: str, link: dict[str, int]) -> dict[str, Any]:
    """The secondary's side; ``rewriter`` is the id of the rewriter, where there is one."""
    filters: dict[str, Any] = {
        "f1": {"type": "filter-redirector", "netdev": "hn0", "queue": "tx", "indev": "red0", **vnet},
        "f2": {"type": "filter-redirector", "netdev": "hn0", "queue": "rx", "outdev": "red1", **vnet},
    }
    if rewriter:
        filters[rewriter] = {"type": "filter-rewriter", "netdev": "hn0", "queue": "all", **vnet}
    netdevs = _netdev("secondary")
    if rewriter:
        netdevs["hn0"]["before_failover"] = "pass"
    return {
        "pipeline": {"name": "secondary", "runtime_dir": "/run/colo"},
        "chardev": {"red0": _socket(host, 9003, **link), "red1": _socket(host, 9004, **link)},
        "netdev": netdevs,
        "filter": filters,
    }


_VNET = {"vnet_hdr_support": True}
_PAIR = (
    primary("0.0.0.0", {}, wait={"wait": True}),
    secondary("127.0.0.1", {}, rewriter="rew0", link={"reconnect": 1}),
)
# File, a line of the command line, exit status, tables.
EXAMPLES = [
    ("usage-2016.diff", 2, 1, primary("3.3.3.3", {}, wait={})),
    ("usage-2016.diff", 16, 0, secondary("3.3.3.3", {}, rewriter="", link={})),
    ("usage-now.txt", 2, 1, primary("3.3.3.3", {}, wait={})),
    ("usage-now.txt", 17, 0, secondary("3.3.3.3", {}, rewriter="f3", link={})),
    ("usage-now.txt", 26, 1, primary("3.3.3.3", _VNET, wait={})),
    ("usage-now.txt", 45, 0, secondary("3.3.3.3", _VNET, rewriter="f3", link={})),
    ("typed-2020.txt", 5, 1, _PAIR[0]),
    ("typed-2020.txt", 40, 0, _PAIR[1]),
    ("typed-now.txt", 5, 1, _PAIR[0]),
    ("typed-now.txt", 40, 0, _PAIR[1]),
]
IDS = [f"{file}:{line}" for file, line, _, _ in EXAMPLES]
