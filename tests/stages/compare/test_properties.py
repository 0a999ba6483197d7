"""colo-compare: what must hold in any interleaving."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ring import hot
from tests.packets import ACK, FIN, MOD, RST, SYN, read
from tests.stages.compare.audit import audit
from tests.stages.compare.scenes import Scene, scenes
from tests.stages.compare.test_compare import DONE, check, handshake, rig, seg

settings_here = settings(
    max_examples=40 if hot.JIT else 80,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


class Witness:
    """What the secondary has said so far, byte by byte: nothing may leave that it has not confirmed."""

    def __init__(self, scene: Scene) -> None:
        self.flows = {f.port: f for f in scene.flows}
        self.said: dict[int, set[int]] = {f.port: set() for f in scene.flows}
        self.acked: dict[int, int] = {}

    def hears(self, frame: bytes) -> None:
        """A packet of the secondary."""
        p = read(frame)
        if p.proto != 6:
            return
        flow = self.flows[p.dport]
        if not p.flags & SYN:
            start = (p.seq - flow.isn - 1) % MOD
            self.said[p.dport] |= {start + i for i, b in enumerate(p.payload) if flow.data[start + i] == b}
        ahead = (p.ack - self.acked.get(p.dport, p.ack)) % MOD
        if p.dport not in self.acked or ahead < MOD // 2:
            self.acked[p.dport] = p.ack

    def sees(self, frame: bytes) -> None:
        """A packet that was released by comparison."""
        p = read(frame)
        if p.proto != 6 or p.flags & (SYN | RST):
            return
        flow = self.flows[p.dport]
        start = (p.seq - flow.isn - 1) % MOD
        if p.payload:
            assert set(range(start, start + len(p.payload))) <= self.said[p.dport]
        assert (self.acked[p.dport] - p.ack) % MOD < MOD // 2, "acknowledged more than the secondary has"


@given(scenes(), st.integers(1, 7), st.data())
@settings_here
def test_equal_outputs_all_leave(scene: Scene, chunk: int, data: st.DataObject) -> None:
    """In bursts, with short queues and a reader that takes what it likes: everything leaves, in order, unasked."""
    arrivals = scene.arrivals()
    witness = Witness(scene)
    got: list[bytes] = []
    with rig(max_queue_size=64) as g:
        for i in range(0, len(arrivals), chunk):
            for port, frame in arrivals[i : i + chunk]:
                g.feed(port, frame)
                if port == "secondary_in":
                    witness.hears(frame)
            g.run(now=10)
            for frame in g._consumers["outdev"].recv_many(data.draw(st.integers(1, 5)), timeout=0):
                witness.sees(frame)
                got.append(frame)
            check(g)
            audit(g)
        got += g.take("outdev")
        c = check(g)
        assert (c["held"], c["divergences"]) == (0, 0) and g.take("notify_out") == []
    assert Counter(got) == Counter(f for flow in scene.flows for f in flow.primary)
    for flow in (f for f in scene.flows if f.data):
        # A retransmission may overtake or fall behind; what carries new bytes leaves in the order of the stream.
        fresh = _with_new_bytes(flow.isn, flow.primary)
        assert [f for f in dict.fromkeys(got) if f in fresh] == fresh


def _with_new_bytes(isn: int, frames: tuple[bytes, ...]) -> list[bytes]:
    reached, found = 1, []
    for frame in frames:
        p = read(frame)
        end = (p.seq - isn) % MOD + len(p.payload)
        if p.proto == 6 and p.payload and end > reached:
            reached = end
            found.append(frame)
    return found


@given(scenes(differs=True), st.integers(1, 7))
@settings_here
def test_nothing_leaves_from_the_difference_on(scene: Scene, chunk: int) -> None:
    """One request, and no packet with the byte that differs or a later one before the answer."""
    arrivals = scene.arrivals()
    bad = scene.flows[0]
    witness = Witness(scene)
    asks = 0
    with rig() as g:
        for i in range(0, len(arrivals), chunk):
            for port, frame in arrivals[i : i + chunk]:
                g.feed(port, frame)
                if port == "secondary_in":
                    witness.hears(frame)
            g.run(now=10)
            for frame in g.take("outdev"):
                witness.sees(frame)
                p = read(frame)
                if p.dport == bad.port and p.payload:
                    assert (p.seq - bad.isn - 1) % MOD + len(p.payload) <= bad.bad
            asks += len(g.take("notify_out"))
            check(g)
            audit(g)
        assert asks == 1 and check(g)["diverged_payload"] == 1
        g.feed("notify_in", DONE)
        g.run(now=20)
        assert check(g)["held"] == 0


# --- lives of a connection ----------------------------------------------------------------------------------------
def _life(isn: int, other: int, client: int, text: bytes, end: int) -> tuple[list[bytes], list[bytes]]:
    """Both sides of a short connection on one port: SYN+ACK, data, FIN or RST, the last acknowledgement."""
    sides = []
    for first in (isn, other):
        frames = [seg(first, flags=SYN | ACK, ack=client + 1), seg(isn + 1, text, ack=client + 9)]
        if end:
            frames.append(seg(isn + 1 + len(text), flags=end | ACK, ack=client + 9))
        if end == FIN:
            frames.append(seg(isn + 2 + len(text), ack=client + 10))
        sides.append(frames)
    return sides[0], sides[1]


@pytest.mark.parametrize("end", [FIN, RST, 0])
@pytest.mark.parametrize("second", [(9_000, 5), (MOD - 3, 1 << 31), (900, 77)])
def test_a_connection_may_be_opened_anew_in_any_interleaving(end: int, second: tuple[int, int]) -> None:
    """Same ports, a new SYN: whichever side is ahead and by how much, nothing differs and nothing stays behind."""
    one = _life(1_000, 70_000, 300, b"first", end)
    two = _life(second[0], second[1], 2_000_000_000, b"again and more", FIN)
    mine, theirs = one[0] + two[0], one[1] + two[1]
    n, m = len(mine), len(theirs)
    ways = list(itertools.combinations(range(n + m), n))
    step = max(1, len(ways) // (150 if not hot.JIT else 600))
    for way in ways[::step]:
        chosen = set(way)
        left, right = iter(mine), iter(theirs)
        got: list[bytes] = []
        with rig() as g:
            for i in range(n + m):
                if i in chosen:
                    g.feed("primary_in", next(left))
                else:
                    g.feed("secondary_in", next(right))
                g.run(now=10)
                got += g.take("outdev")
            c = check(g)
            assert (c["held_primary"], c["divergences"]) == (0, 0), way
            assert sorted(got) == sorted(mine), way


def test_a_new_syn_does_not_let_a_difference_out() -> None:
    """What differed in the former life waits for the checkpoint, and so does the new SYN behind it."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"secret"))
        g.feed("secondary_in", seg(1001, b"public"))
        g.run(now=2)
        again = seg(9000, flags=SYN | ACK)
        g.feed("primary_in", again)
        g.feed("secondary_in", seg(5, flags=SYN | ACK))
        g.run(now=3)
        assert g.take("outdev") == []
        g.feed("notify_in", DONE)
        g.run(now=4)
        assert g.take("outdev")[0] == seg(1001, b"secret")
        check(g)


def test_uncompared_data_does_not_leave_for_a_new_syn() -> None:
    """Nor what the secondary has not sent yet."""
    with rig() as g:
        handshake(g)
        g.feed("primary_in", seg(1001, b"secret"), seg(9000, flags=SYN | ACK))
        g.run(now=2)
        assert g.take("outdev") == []
        g.feed("secondary_in", seg(1001, b"secret"), seg(5, flags=SYN | ACK))
        g.run(now=3)
        assert g.take("outdev") == [seg(1001, b"secret"), seg(9000, flags=SYN | ACK)]
