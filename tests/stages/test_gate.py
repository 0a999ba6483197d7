"""Nothing of a secondary's guest reaches the network before a failover was announced, whatever happens."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import parse
from pipeline.graph import plan
from ring import layout
from stages import catalog
from tests.pipeline.running import Running, frame, read_frames, until
from tests.rig import Rig

HEAD = '[pipeline]\nname = "t"\nruntime_dir = "/run/colo"\n'
FILTERS = ["filter-mirror", "filter-redirector", "filter-rewriter", "filter-dump"]
SIDES = [
    '{{ backend = "tap", ifname = "{n}" }}',
    '{{ backend = "packet", ifname = "{n}" }}',
    '{{ backend = "stream", path = "/{n}", server = true }}',
    '{{ backend = "pcap", write = "/tmp/{n}.pcap" }}',
    '{{ backend = "null" }}',
]
OUTSIDE = {"netdev-tap", "netdev-packet", "netdev-stream"}


@st.composite
def configs(draw: st.DrawFn) -> tuple[str, dict[str, tuple[bool, str]]]:
    """A config with some netdevs; of each whether a rewriter stands in its chain, and what before_failover says."""
    text, told, count = HEAD, {}, 0
    for n in range(draw(st.integers(1, 3))):
        wish = draw(st.sampled_from(["", "drop", "pass"]))
        text += f"[netdev.n{n}]\n"
        text += "".join(f"{s} = {draw(st.sampled_from(SIDES)).format(n=f'{s[0]}{n}')}\n" for s in ("network", "guest"))
        text += f'before_failover = "{wish}"\n' if wish else ""
        kinds = draw(st.lists(st.sampled_from(FILTERS), max_size=5))
        for kind in kinds:
            count += 1
            text += f'[filter.f{count}]\ntype = "{kind}"\nnetdev = "n{n}"\n'
            text += f'status = "{draw(st.sampled_from(["on", "off"]))}"\n'
            text += f'position = "{draw(st.sampled_from(["head", "tail"]))}"\n'
            if kind == "filter-dump":
                text += f'file = "/tmp/f{count}.pcapng"\n'
            elif kind != "filter-rewriter":
                text += f'outdev = "c{count}"\nqueue = "{draw(st.sampled_from(["tx", "rx", "all"]))}"\n'
                text += f'[chardev.c{count}]\nbackend = "socket"\npath = "/c{count}"\n'
        told[f"n{n}"] = ("filter-rewriter" in kinds, wish or "drop")
    return text, told


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs())
def test_every_way_from_a_secondarys_guest_ends_at_a_closed_gate(
    drawn: tuple[str, dict[str, tuple[bool, str]]],
) -> None:
    """Whatever stands in the chain: what comes out of it comes to the network's side, and that is closed."""
    text, told = drawn
    graph = plan(parse(text))
    after = {ring.producer: ring.consumer for ring in graph.rings}
    for netdev, (secondary, wish) in told.items():
        network = graph.by_id[f"{netdev}.network"]
        ways = {str(to) for start, to in after.items() if start.port in ("rx_out", "receive") and to.port == "send"}
        assert {way.partition(".")[0] for way in ways} >= {netdev}
        if network.kind.name in OUTSIDE:
            assert network.params["gated"] == (secondary and wish == "drop")
            assert "failover" in network.kind.hears
        assert not graph.by_id[f"{netdev}.guest"].params.get("gated")
    assert {kind.name for kind in catalog.kinds() if "failover" in kind.hears and kind.endpoint} == OUTSIDE


def test_a_stream_is_closed_until_the_failover(tmp_path: Path) -> None:
    """With a peer there, without one, over a restart: dropped and counted; afterwards everything goes out."""
    path = str(tmp_path / "s")
    with (
        Rig("netdev-stream", {"path": path, "server": True, "gated": True}) as g,
        closing(socket.socket(socket.AF_UNIX)) as peer,
    ):
        g.feed("send", b"nobody is there")
        until(lambda: (g.run(), g.counters()["dropped_before_failover"] == 1)[1], "dropped without a peer")
        peer.connect(path)
        peer.setblocking(False)
        until(lambda: (_turn(g), int(g.rings["send"].w[layout.C_LINK]) & 1)[1], "connected")
        g.feed("send", b"one", b"two")
        until(lambda: (_turn(g), g.counters()["dropped_before_failover"] == 3)[1], "dropped with a peer")
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        g.command(layout.CMD_FAILOVER, 1)
        g.feed("send", b"three")
        until(lambda: (_turn(g), g.counters()["sent_bytes"] == 4 + 5)[1], "sent")
        assert peer.recv(100) == b"\0\0\0\x05three"
        assert g.counters()["send_frames"] == 4


def _turn(g: Rig) -> None:
    """A duty cycle, and what its descriptors have to say."""
    import select

    for fd, (events, callback) in list(g.watched.items()):
        poll = select.poll()
        poll.register(fd, events & ~(1 << 31))
        for _, seen in poll.poll(0):
            callback(seen)
    g.run(cycles=2)


def test_a_redirector_of_a_secondary_stands_aside_after_the_failover() -> None:
    """Its peer may be a host that died without a word: what the guest says goes to the network from then on."""
    with Rig("filter-redirector", {"secondary": True}) as g:
        g.feed("rx_in", b"before")
        g.feed("indev", b"copy")
        g.run()
        assert (g.take("outdev"), g.take("rx_out"), g.take("tx_out")) == ([b"before"], [b"copy"], [b"copy"])
        g.command(layout.CMD_FAILOVER, 1)
        g.feed("rx_in", b"after")
        g.feed("indev", b"late copy")
        g.run()
        assert (g.take("outdev"), g.take("rx_out"), g.take("tx_out")) == ([], [b"after"], [])
        counters = g.counters()
        assert (counters["passed_on"], counters["passed_no_peer"], counters["dropped_after_failover"]) == (1, 0, 1)
        for law in g.kind.balances:
            assert sum(counters[name] for name in law.left) == sum(counters[name] for name in law.right), law.label


def test_a_redirector_of_a_primary_goes_on_after_a_failover() -> None:
    """There the failover says that the secondary is gone; the way to the compare stays."""
    with Rig("filter-redirector") as g:
        g.command(layout.CMD_FAILOVER, 1)
        g.feed("rx_in", b"x")
        g.run()
        assert g.take("outdev") == [b"x"]


SECONDARY = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.red0]
backend = "socket"
path = "{folder}/red0"
[chardev.red1]
backend = "socket"
path = "{folder}/red1"
[netdev.hn0]
network = {{ backend = "stream", path = "{folder}/net", server = true }}
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
announce_rounds = 0
{more}
"""


def test_a_secondary_without_its_primary_is_silent_until_it_is_told(tmp_path: Path) -> None:
    """The links never came up, filters are switched off: not a frame on the network; after `failover` they go out."""
    with Running(tmp_path, config=SECONDARY) as it:
        it.running()
        with it.connect("net") as net, it.connect("guest") as guest:
            until(lambda: all(r["connected"] for r in it.status()["rings"] if "hn0" in r["id"]), "connected")

            def dropped() -> int:
                return int(it.status()["counters"]["hn0.network"]["dropped_before_failover"])

            guest.sendall(frame(b"is anybody there?"))
            until(lambda: dropped() == 1, "dropped")
            for status in ("off", "on"):
                for name in ("f1", "f2", "rew0"):
                    it.ask("set", id=name, status=status)
            guest.sendall(frame(b"still?"))
            until(lambda: dropped() == 2, "dropped again")
            pid = it.pids()["hn0.network"]
            assert "hn0.network" in it.ask("failover")["text"]
            guest.sendall(frame(b"now it is mine"))
            assert read_frames(net, 1) == [b"now it is mine"]
            assert pid == it.pids()["hn0.network"]
