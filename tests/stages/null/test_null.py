"""netdev-null."""

from __future__ import annotations

from ring import layout
from tests.rig import Rig


def test_swallows_and_counts_and_never_gives():
    with Rig("netdev-null") as rig:
        rig.feed("send", b"a" * 60, b"b" * 100, b"")
        rig.run()
        counters = rig.counters()
        assert (counters["send_frames"], counters["swallowed_bytes"]) == (3, 60 + 100 + 3 * 4)
        assert rig.take("receive") == []
        assert rig.rings["send"].used == 0


def test_works_with_one_port_only_and_with_v():
    with Rig("netdev-null", ports=("send",), vnet=("send",)) as rig:
        rig.feed("send", b"a" * 60)
        rig.restart()
        rig.run()
        assert rig.counters()["swallowed_bytes"] == 68
    with Rig("netdev-null", ports=("receive",)) as rig:
        assert rig.run() == 0


def test_swallows_on_while_the_pipeline_drains():
    with Rig("netdev-null") as rig:
        rig.command(layout.CMD_DRAIN, 1)
        rig.feed("send", b"a" * 60)
        rig.run()
        assert rig.counters()["send_frames"] == 1
        assert rig.rings["send"].used == 0
