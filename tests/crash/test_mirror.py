"""filter-mirror, killed anywhere."""

from __future__ import annotations

import pytest

from tests.crash.harness import Outcome, kill_at_every_store
from tests.oracle.mirror import without_mptcp
from tests.packets import ACK, SYN
from tests.rig import Rig
from tests.stages.mirror.test_mptcp import syn

FRAMES = [bytes([n]) * (20 + 7 * n) for n in range(5)]
BACK = [bytes([100 + n]) * 33 for n in range(3)]


def _feed(rig: Rig) -> None:
    rig.feed("tx_in", *FRAMES)
    rig.feed("rx_in", *BACK)


def _check(rig: Rig, outcome: Outcome) -> None:
    assert outcome.frames["tx_out"] == FRAMES
    assert outcome.frames["rx_out"] == BACK
    assert outcome.frames["outdev"] == FRAMES + BACK
    c = outcome.counters
    assert c["tx_in_frames"] + c["rx_in_frames"] == c["tx_out_frames"] + c["rx_out_frames"] == 8
    assert c["outdev_frames"] == 8


@pytest.mark.parametrize("vnet", [(), ("outdev",)], ids=["same framing", "outdev with V"])
def test_a_mirror_killed_at_any_store_loses_and_repeats_nothing(vnet: tuple[str, ...]) -> None:
    """Wherever kill -9 strikes a burst, both outputs and the copies are the frames in order, and counters balance."""
    kills = kill_at_every_store(lambda: Rig("filter-mirror", vnet=vnet, ring_size=4096), _feed, check=_check)
    assert kills > 20


def test_a_mirror_killed_while_it_takes_out_mptcp_has_changed_both_outputs_once() -> None:
    """Wherever kill -9 strikes, no option leaves, and the counter says how many were taken out."""
    frames = [*(syn(flags=flags, vlans=vlans) for flags in (SYN, SYN | ACK) for vlans in ((), (5,))), FRAMES[4]]

    def check(rig: Rig, outcome: Outcome) -> None:
        assert outcome.frames["tx_out"] == outcome.frames["outdev"] == [*map(without_mptcp, frames[:4]), FRAMES[4]]
        assert outcome.counters["mptcp_taken_out"] == 4

    def make() -> Rig:
        return Rig("filter-mirror", {"strip_mptcp": True}, ring_size=4096)

    kills = kill_at_every_store(make, lambda rig: rig.feed("tx_in", *frames), check=check, stride=5)
    assert kills > 20


def test_a_mirror_killed_with_full_outputs_goes_on_where_it_was() -> None:
    """The same where the burst ends for want of room: what did not fit is neither lost nor sent twice."""
    frames = [bytes([n]) * 700 for n in range(8)]
    rest: list[bytes] = [bytes([50 + n]) * 900 for n in range(4)]

    def make() -> Rig:
        rig = Rig("filter-mirror", ring_size=8192)
        rig.feed("tx_in", *frames)
        rig.run(1)
        return rig

    kills = kill_at_every_store(make, lambda rig: rig.feed("tx_in", *rest), stride=3)
    assert kills > 5
