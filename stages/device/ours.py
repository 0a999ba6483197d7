"""Whose a TAP device is: one that a pipeline has made bears its mark, and is the pipeline's to remove.

The mark is the interface's alias, which ``ip link`` shows.  Needs no Numba.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from stages.device import links
from stages.device.netns import DeviceError, in_netns, ip_in

_MARK: Final = "colo-proxy "


def mark(pipeline: str) -> str:
    """What a device bears that this pipeline has made."""
    return f"{_MARK}{pipeline}"


def maker(ifname: str) -> str:
    """The pipeline that has made a device of the present namespace, empty: none, or there is no such device."""
    try:
        link = links.find(ifname)
    except OSError:
        return ""
    return link.alias.removeprefix(_MARK) if link is not None and link.alias.startswith(_MARK) else ""


def held(ifname: str) -> str:
    """What to say of a device that somebody else holds."""
    made_by = maker(ifname)
    who = f"another process holds it{f' (pipeline {made_by} has made it)' if made_by else ''}"
    return f"{who}: stop that one, or choose another ifname"


def remove(params: Mapping[str, Any]) -> Iterator[str]:
    """At a pipeline's end: remove the device of a stage, if the pipeline made it and it is not to stay.

    Yields a line where it cannot be removed.
    """
    ifname, netns = str(params["ifname"]), params["netns"]
    if params["persist"] or not params["pipeline"]:
        return
    try:
        with in_netns(netns):
            link = links.find(ifname)
            if link is not None and link.kind == "tun" and link.alias == mark(params["pipeline"]):
                links.delete(link.number)
    except DeviceError:
        return  # the namespace is gone, and so is the device
    except OSError as error:
        yield f"TAP device {ifname} stays: {os.strerror(error.errno or 0)}; {ip_in(netns)} link delete {ifname}"
