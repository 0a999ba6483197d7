"""Pipelines as processes, whose guests' packets are inside of something, or do not say their length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packets import ACK, PSH, SYN, in_pppoe, long_frame, tcp_frame
from tests.pipeline.running import Running, frame, read_frames, until
from tests.pipeline.test_rules_running import CLIENT, SERVER, Set
from tests.tunnels import read_inside, vxlan

Wrap = Callable[[bytes], bytes]
IN: dict[str, Wrap] = {
    "three tags": lambda f: f[:12] + b"\x88\xa8\0\1\x88\xa8\0\2\x81\0\0\3" + f[12:],
    "pppoe": lambda f: in_pppoe(f, 7),
    "length 0": lambda f: long_frame(f) if len(f) > 60 else f,
    "vxlan": lambda f: vxlan(f, vni=1),
}


def said(seq: int, data: bytes = b"", flags: int = PSH | ACK) -> bytes:
    """What the server sends."""
    return tcp_frame(SERVER, CLIENT, 80, 4000, seq=seq, ack=1, flags=flags, payload=data)


@pytest.mark.parametrize("name", IN)
def test_what_is_equal_leaves_and_what_differs_does_not(tmp_path: Path, name: str) -> None:
    """As of any other packet; each replica's SYN has a number of its own."""
    wrap, made = IN[name], Set(tmp_path)
    with made.it:
        made.connect()
        mine = [wrap(f) for f in (said(1000, flags=SYN | ACK), said(1001, b"A" * 100), said(1101, b"B" * 2000))]
        made.p.sendall(b"".join(map(frame, mine)))
        made.s.sendall(b"".join(map(frame, [wrap(said(3000, flags=SYN | ACK)), *mine[1:]])))
        assert read_frames(made.o, 3) == mine
        made.p.sendall(frame(wrap(said(3101, b"primary!"))))
        made.s.sendall(frame(wrap(said(3101, b"second!!"))))
        until(lambda: made.counter("divergences") == 1, "the difference is seen")
        assert (made.counter("released"), made.counter("diverged_payload"), made.counter("held_primary")) == (3, 1, 1)
        made.close()


REWRITING = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[netdev.hn0]
before_failover = "pass"
network = {{ backend = "stream", path = "{folder}/net", server = true }}
guest = {{ backend = "stream", path = "{folder}/guest", server = true }}
[filter.rew0]
type = "filter-rewriter"
netdev = "hn0"
{more}
"""


@pytest.mark.parametrize("name", IN)
def test_numbers_are_rewritten_inside_of_it(tmp_path: Path, name: str) -> None:
    """A secondary's rewriter between two sockets."""
    wrap, it = IN[name], Running(tmp_path, config=REWRITING)
    with it:
        it.running()
        net, guest = it.connect("net"), it.connect("guest")
        for to, other, f in (
            (net, guest, tcp_frame(CLIENT, SERVER, 4000, 80, seq=7, flags=SYN)),
            (guest, net, tcp_frame(SERVER, CLIENT, 80, 4000, seq=3000, ack=8, flags=SYN | ACK)),
        ):
            to.sendall(frame(wrap(f)))
            assert read_frames(other, 1) == [wrap(f)]
        net.sendall(frame(wrap(tcp_frame(CLIENT, SERVER, 4000, 80, seq=8, ack=1001, flags=ACK))))
        assert read_inside(read_frames(guest, 1)[0]).ack == 3001
        guest.sendall(frame(wrap(tcp_frame(SERVER, CLIENT, 80, 4000, seq=3001, ack=8, payload=b"x" * 1000))))
        assert read_frames(net, 1) == [wrap(tcp_frame(SERVER, CLIENT, 80, 4000, seq=1001, ack=8, payload=b"x" * 1000))]
        net.close()
        guest.close()
