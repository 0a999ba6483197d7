"""colo-compare: one replica's connection ends where the other's goes on: that never leaves, and is always noticed."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ring import hot
from tests.packets import ACK, FIN, MOD, RST, SYN, read
from tests.stages.compare.audit import audit
from tests.stages.compare.scenes import Flow, Scene, scenes, segment
from tests.stages.compare.test_compare import DONE, MS, check, rig

PORTS = ("primary_in", "secondary_in")
Said = dict[int | str, int]  # bytes by position; where a FIN or RST was


def _hear(said: Said, flow: Flow, frame: bytes) -> None:
    p = read(frame)
    if p.dport != flow.port or p.flags & SYN:
        return
    start = (p.seq - flow.isn - 1) % MOD
    said |= {start + i: byte for i, byte in enumerate(p.payload)}
    for name, flag in (("FIN", FIN), ("RST", RST)):
        if p.flags & flag:
            said[name] = start + len(p.payload)


def _cut_short(scene: Scene, side: str, nth: int, end: int) -> list[tuple[str, bytes]]:
    """The arrivals, but the ``nth`` packet of ``side`` with news in the first flow is a bare ``end``, and its last."""
    flow, reached, dead, found = scene.flows[0], 0, False, []
    for port, frame in scene.arrivals():
        p = read(frame)
        if port != side or p.dport != flow.port or p.flags & SYN:
            found.append((port, frame))
            continue
        if dead:
            continue
        start = (p.seq - flow.isn - 1) % MOD
        if (p.payload and start >= reached) or p.flags & (FIN | RST):
            nth -= 1
            dead = nth < 0
        if dead:
            found.append((port, segment(flow.port, flow.isn + 1 + max(start, reached), p.ack, flags=end | ACK)))
            continue
        if p.payload:
            reached = max(reached, start + len(p.payload))
        found.append((port, frame))
    return found


@given(
    scene=scenes(udp=False),
    side=st.sampled_from(PORTS),
    nth=st.integers(0, 5),
    end=st.sampled_from([FIN, RST]),
    chunk=st.integers(1, 7),
)
@settings(
    max_examples=60 if hot.JIT else 120,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
def test_an_end_of_one_replica_alone_never_leaves_and_is_noticed(
    scene: Scene, side: str, nth: int, end: int, chunk: int
) -> None:
    arrivals = _cut_short(scene, side, nth, end)
    flow = scene.flows[0]
    said: dict[str, Said] = {port: {} for port in PORTS}
    with rig() as g:
        for i in range(0, len(arrivals), chunk):
            for port, frame in arrivals[i : i + chunk]:
                g.feed(port, frame)
                _hear(said[port], flow, frame)
            g.run(now=10)
            mine: Said = {}
            for frame in g.take("outdev"):
                _hear(mine, flow, frame)
            assert mine.items() <= said["secondary_in"].items()
            check(g)
            audit(g)
        g.run(now=4000 * MS)
        c = check(g)
        if c["divergences"] == 0:
            assert said["primary_in"] == said["secondary_in"] and c["held"] == 0
        g.feed("notify_in", DONE)
        g.run(now=4001 * MS)
        c = check(g)
        assert c["held"] == 0 and c["outdev_frames"] == sum(port == "primary_in" for port, _ in arrivals)
