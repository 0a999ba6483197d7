"""colo-compare, killed anywhere: twins, holding, matching, reassembly, differences, checkpoints, eviction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ring import hot, layout
from tests.crash.harness import NOW, Outcome, kill_at_every_store
from tests.packets import ACK, FIN, RST, SYN, arp_frame, udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import ASK, CLIENT, DONE, MS, PARAMS, SERVER, handshake, seg


def _rig(**params: object) -> Rig:
    """Two open connections; small tables, so that rows and slots are used again."""
    more = {"max_connections": 4, "max_queue_size": 8, "hold_memory": 1 << 16}
    rig = Rig("colo-compare", PARAMS | more | params, ring_size=1 << 14 if not params.get("wide") else 1 << 17)
    rig.run(NOW - 10)
    for port in (4000, 4001):
        handshake(rig, port=port, now=NOW - 10)
    return rig


def _udp(n: int, text: bytes) -> bytes:
    return udp_frame(SERVER, CLIENT, 53, n, text)


def _twins(rig: Rig) -> None:
    """Both sides in step, over two connections; a packet that is not compared; a datagram."""
    frames = [
        seg(1001, b"one"),
        seg(1001, b"two", port=4001),
        arp_frame(SERVER, CLIENT),
        seg(1004, b"three"),
        _udp(1, b"u"),
    ]
    rig.feed("primary_in", *frames)
    rig.feed("secondary_in", *frames)


def _hold(rig: Rig) -> None:
    """The primary is ahead, in another segmentation; the secondary's is out of order and repeated."""
    rig.feed(
        "primary_in",
        seg(1001, b"abcdef"),
        seg(1007, b"ghi", ack=5005),
        seg(1010, ack=5009),
        _udp(1, b"a"),
        _udp(1, b"b"),
    )
    rig.feed("secondary_in", seg(1005, b"efgh"), seg(1001, b"ab"), seg(1001, b"abcd"), _udp(1, b"b"), seg(1009, b"i"))
    rig.feed("secondary_in", seg(1010, ack=5005), seg(1010, ack=5009), _udp(1, b"a"))


def _ends(rig: Rig) -> None:
    """FIN, RST, and a new life of the same ports."""
    rig.feed(
        "primary_in", seg(1001, b"bye", FIN | ACK), seg(1001, flags=RST | ACK, port=4001), seg(9000, flags=SYN | ACK)
    )
    rig.feed("primary_in", seg(9001, b"again"))
    rig.feed("secondary_in", seg(1001, b"bye"), seg(1004, flags=FIN | ACK), seg(1001, flags=RST | ACK, port=4001))
    rig.feed("secondary_in", seg(7, flags=SYN | ACK), seg(9001, b"again"))


def _differs(rig: Rig) -> None:
    """A byte differs, one request; more comes and waits; the other connection goes on."""
    rig.feed("primary_in", seg(1001, b"public"), seg(1007, b"more"), seg(1001, b"fine", port=4001))
    rig.feed("secondary_in", seg(1001, b"pubXic"), seg(1001, b"fine", port=4001))


def _checkpoint(rig: Rig) -> None:
    """What was held is settled by a message, and by a command that comes with it."""
    _differs(rig)
    rig.run(NOW)
    rig.command(layout.CMD_CHECKPOINT, 1)
    rig.feed("notify_in", DONE, b"COLO_USERSPACE_PROXY_INIT", b"nonsense")
    rig.feed("primary_in", seg(1011, b"after"))
    rig.feed("secondary_in", seg(1011, b"after"))


def _give_up(rig: Rig) -> None:
    """A stream and datagrams that differ, a packet that nobody answers, and a checkpoint that nobody makes."""
    rig.rings["notify_out"].w[layout.C_LINK] = 2
    rig.feed("primary_in", seg(1001, b"public"), _udp(1, b"a"), _udp(2, b"alone"))
    rig.feed("secondary_in", seg(1001, b"pubXic"), _udp(1, b"b"))
    rig.run(NOW - 20_000 * MS)
    rig.run(NOW - 20_000 * MS + 60 * MS)


def _silent(rig: Rig) -> None:
    """The primary has waited for too long; behind it comes what is not an answer."""
    rig.feed("primary_in", seg(1001, b"one"), _udp(1, b"two"))
    rig.run(NOW - 9_000 * MS)
    rig.feed("secondary_in", arp_frame(SERVER, CLIENT), _udp(77, b"its own"))


def _speaks(rig: Rig) -> None:
    """It was silent; the primary has gone on alone; one packet is an answer, the next one is not."""
    _silent(rig)
    rig.run(NOW - 100 * MS)
    rig.feed("primary_in", seg(1004, b"alone"), _udp(1, b"too"))
    rig.run(NOW - 50 * MS)
    rig.feed("secondary_in", _udp(78, b"its own"), _udp(1, b"answer"), _udp(1, b"more"))


def _evict(rig: Rig) -> None:
    """A table of four rows, two of them free."""
    frames = [_udp(100 + i, b"x") for i in range(5)]
    rig.feed("primary_in", *frames)
    rig.feed("secondary_in", *frames)


def _check(rig: Rig, outcome: Outcome) -> None:
    """Conservation, and every invariant of the tables."""
    c = outcome.counters
    for balance in rig.kind.balances:
        assert sum(c[n] for n in balance.left) == sum(c[n] for n in balance.right), balance.label
    audit(rig)


SCENES: dict[str, tuple[Callable[[Rig], None], dict[str, object]]] = {
    "twins": (_twins, {}),
    "hold": (_hold, {}),
    "ends": (_ends, {}),
    "differs": (_differs, {}),
    "differs, local": (_differs, {"checkpoint": "local"}),
    "checkpoint": (_checkpoint, {}),
    "evict": (_evict, {}),
    "give up": (_give_up, {}),
    "silent": (_silent, {"checkpoint": "local", "silence_timeout": 8_000, "compare_timeout": 60_000}),
    "speaks": (_speaks, {"silence_timeout": 8_000, "compare_timeout": 60_000}),
    "speaks, local": (_speaks, {"checkpoint": "local", "silence_timeout": 8_000, "compare_timeout": 60_000}),
}


# A child stepped by the instruction is slow, and its tables are large: with JIT the scenes that touch the most.
@pytest.mark.parametrize("name", ["twins", "hold", "checkpoint", "give up", "speaks"] if hot.JIT else SCENES)
def test_a_compare_killed_at_any_store_loses_and_repeats_nothing(name: str) -> None:
    """What leaves, what is held, what is asked and every counter are those of a run that nobody disturbed."""
    feed, params = SCENES[name]
    kills = kill_at_every_store(lambda: _rig(**params), feed, check=_check, stride=7, tables=False)
    assert kills > 5


def test_the_scenes_do_what_they_say() -> None:
    """Undisturbed: so many released, held, asked."""
    expected = {
        "twins": (5, 0, 0), "hold": (5, 0, 0), "ends": (4, 0, 0), "differs": (1, 3, 1), "differs, local": (3, 0, 0),
        "checkpoint": (4, 0, 1), "evict": (5, 0, 0), "give up": (3, 0, 1), "silent": (2, 0, 0),
        "speaks": (4, 0, 1), "speaks, local": (4, 1, 0),
    }  # fmt: skip
    for name, (feed, params) in SCENES.items():
        with _rig(**params) as rig:
            feed(rig)
            rig.run(NOW)
            out, asked = rig.take("outdev"), [m for m in rig.take("notify_out") if m == ASK]
            assert (len(out), rig.counters()["held"], len(asked)) == expected[name], name
            audit(rig)


def test_a_compare_killed_with_a_full_outdev_goes_on_where_it_was() -> None:
    """The work list survives: the burst ended for want of room in the middle of a connection."""

    def make() -> Rig:
        rig = _rig()
        rig.feed("primary_in", *[seg(1001 + 1000 * i, bytes(1000)) for i in range(7)])
        rig.run(NOW)
        rig.feed("primary_in", b"x" * 6000)
        rig.run(NOW)
        rig.feed("primary_in", b"y" * 6000)
        rig.run(NOW)
        return rig

    def feed(rig: Rig) -> None:
        rig.feed("secondary_in", seg(1001, bytes(3500)), seg(4501, bytes(3500)))

    kills = kill_at_every_store(make, feed, check=_check, stride=5, tables=False)
    assert kills > 5
