"""The figure of colo-proxy.txt, both sides in one pipeline fed by captures, as a config."""

from __future__ import annotations

import atexit
import shutil
import struct
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from pipeline.config import load
from pipeline.graph import Graph, plan

HEAD = '[pipeline]\nname = "t"\nruntime_dir = "/run/colo"\nring_size = "1MiB"\n'
FIGURE = """
[chardev.mirror0]
backend = "ring"
[chardev.compare0]
backend = "ring"
[chardev.compare1]
backend = "ring"
[chardev.compare_out]
backend = "ring"
[chardev.notify0]
backend = "socket"
path = "/run/n.sock"
server = true
[netdev.hn0]
network = { backend = "pcap", read = "client.pcap" }
[netdev.hn1]
guest = { backend = "pcap", read = "guest.pcap" }
[filter.m0]
type = "filter-mirror"
netdev = "hn0"
queue = "tx"
outdev = "mirror0"
[filter.redire0]
type = "filter-redirector"
netdev = "hn0"
queue = "rx"
indev = "compare_out"
[filter.redire1]
type = "filter-redirector"
netdev = "hn0"
queue = "rx"
outdev = "compare0"
[filter.f1]
type = "filter-redirector"
netdev = "hn1"
queue = "tx"
indev = "mirror0"
[filter.f2]
type = "filter-redirector"
netdev = "hn1"
queue = "rx"
outdev = "compare1"
[filter.rew0]
type = "filter-rewriter"
netdev = "hn1"
[compare.comp0]
primary_in = "compare0"
secondary_in = "compare1"
outdev = "compare_out"
notify_dev = "notify0"
"""


def capture(ns: int) -> bytes:
    """A pcap file (draft-ietf-opsawg-pcap) with one frame of 60 bytes, ``ns`` after 1970."""
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    return head + struct.pack("<IIII", *divmod(ns, 10**9), 60, 60) + bytes(60)


@cache
def _folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="colo-figure-"))
    atexit.register(shutil.rmtree, made)
    for name, ns in (("client.pcap", 3_000_000_001), ("guest.pcap", 2_000_000_005), ("other.pcap", 4_000_000_000)):
        (made / name).write_bytes(capture(ns))
    return made


def figure(replaced: Mapping[str, str] = MappingProxyType({})) -> Graph:
    """The figure's graph, with texts of the config replaced."""
    text = HEAD + FIGURE
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    file = _folder() / "config.toml"
    file.write_text(text)
    return plan(load(file))
