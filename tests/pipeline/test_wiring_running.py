"""Two pipelines whose links are exchanged: both sides say so from the first bytes, in the log and in `status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.packets import udp_frame
from tests.pipeline.running import Running, frame, until

PRIMARY = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.mirror0]
backend = "socket"
path = "{folder}/mirror"
server = true
[chardev.compare1]
backend = "socket"
path = "{folder}/compare"
server = true
[chardev.compare0]
backend = "ring"
[chardev.compare_out]
backend = "ring"
[netdev.hn0]
network = {{ backend = "stream", path = "{folder}/net", server = true }}
guest = {{ backend = "stream", path = "{folder}/guest", server = true }}
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
[compare.comp0]
primary_in = "compare0"
secondary_in = "compare1"
outdev = "compare_out"
checkpoint = "local"
"""
SECONDARY = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.red0]
backend = "socket"
path = "{more}/mirror"
[chardev.red1]
backend = "socket"
path = "{more}/compare"
[netdev.hn0]
guest = {{ backend = "stream", path = "{folder}/guest", server = true }}
[filter.f1]
type = "filter-redirector"
netdev = "hn0"
queue = "tx"
indev = "red0"
[filter.f2]
type = "filter-redirector"
netdev = "hn0"
queue = "rx"
outdev = "red1"
[filter.rew0]
type = "filter-rewriter"
netdev = "hn0"
"""
UNREAD = "bytes arrive on a link that nothing here reads"
REASON = "its peer sends, and nothing here reads this link: two addresses are exchanged, perhaps (see the log)"


def pair(folder: Path, *exchanged: tuple[str, str]) -> tuple[Running, Running]:
    """Primary and secondary, with texts of the secondary's config exchanged for each other."""
    config = SECONDARY
    for one, other in exchanged:
        assert one in config
        assert other in config
        config = config.replace(one, "\0").replace(other, one).replace("\0", other)
    for name in ("p", "s"):
        (folder / name).mkdir()
    return Running(folder / "p", config=PRIMARY), Running(folder / "s", config=config, more=f"{folder}/p")


def warned(it: Running) -> list[dict[str, Any]]:
    """Its lines about bytes that nobody reads."""
    return [line for line in it.events() if line["event"] == UNREAD]


def test_exchanged_addresses_are_named_on_both_sides_by_the_first_bytes(tmp_path: Path):
    """Mirror's copies reach the secondary's outdev, the secondary's answers the mirror: one line and a reason each."""
    primary, secondary = pair(tmp_path, ("/mirror", "/compare"))
    with primary, secondary:
        primary.running()
        secondary.running()
        with primary.connect("net") as net, primary.connect("guest"), secondary.connect("guest") as guest:
            until(lambda: not secondary.stage("red1")["link"], "red1 is connected")
            net.sendall(frame(udp_frame("10.0.0.1", "10.0.0.2", 1000, 7, b"to the guest")))
            until(lambda: secondary.stage("red1")["notes"], "red1 has had bytes")
            assert f"red1: {REASON}" in secondary.status()["reasons"]
            (line,) = until(lambda: warned(secondary), "the secondary's line")
            assert (line["level"], line["link"]) == ("warning", "red1")
            assert line["hint"] == (
                "its peer sends frames, and nothing here reads them: this link is filter.f2.outdev; its address and"
                " that of red0 (filter.f1.indev) may be exchanged, here or on the peer's host"
            )
            guest.sendall(frame(udp_frame("10.0.0.2", "10.0.0.1", 7, 1000, b"from the guest")))
            until(lambda: primary.stage("mirror0")["notes"], "mirror0 has had bytes")
            assert f"mirror0: {REASON}" in primary.status()["reasons"]
            (line,) = until(lambda: warned(primary), "the primary's line")
            assert "this link is filter.m0.outdev; its address and that of compare1" in line["hint"]
            assert primary.status()["counters"]["mirror0"]["unread_bytes"] > 0


def test_as_it_should_be_nothing_is_said(tmp_path: Path):
    """The same frames with the addresses right: no line, no reason, and the secondary is in step."""
    primary, secondary = pair(tmp_path)
    with primary, secondary:
        primary.running()
        secondary.running()
        with primary.connect("net") as net, primary.connect("guest"), secondary.connect("guest") as guest:
            until(lambda: not any(secondary.stage(link)["link"] for link in ("red0", "red1")), "both are connected")
            net.sendall(frame(udp_frame("10.0.0.1", "10.0.0.2", 1000, 7, b"to the guest")))
            guest.sendall(frame(udp_frame("10.0.0.2", "10.0.0.1", 7, 1000, b"from the guest")))
            until(lambda: primary.stage("comp0")["arming"] == "in step", "in step")
            until(lambda: secondary.status()["counters"]["red0"]["receive_frames"], "the copy is there")
        assert not warned(primary) + warned(secondary)
