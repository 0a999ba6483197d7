"""A compare in a running pipeline: what two replicas cannot send alike costs no checkpoint there, either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packets import udp_frame
from tests.pipeline.running import frame, read_frames
from tests.pipeline.test_rules_running import CLIENT, SERVER, Set
from tests.stages.compare.fragment_scenes import V4, V6, body, even
from tests.stages.compare.test_uncompared import igmp


@pytest.fixture
def compare(tmp_path: Path) -> Iterator[Set]:
    """One whose packets wait for their equals for a tenth of a second only."""
    one = Set(tmp_path, timeout_ms=100)
    with one.it:
        one.connect()
        yield one
        one.close()


def test_reports_that_come_at_random_times_cost_no_checkpoint(compare: Set) -> None:
    """The secondary's guest answers a query later than the primary's."""
    compare.p.sendall(frame(igmp(0x16)))
    assert read_frames(compare.o, 1) == [igmp(0x16)]
    both = udp_frame(SERVER, CLIENT, 53, 9, b"said by both")
    compare.s.sendall(frame(both))
    compare.p.sendall(frame(both))
    assert read_frames(compare.o, 1) == [both]
    compare.s.sendall(frame(igmp(0x16)))
    compare.until(lambda: compare.counter("dropped_uncompared") == 2, "the secondary's report")
    assert (compare.counter("divergences"), compare.counter("held")) == (0, 0)


@pytest.mark.parametrize("pair", [V4, V6], ids=["v4", "v6"])
def test_half_a_datagram_of_both_costs_no_checkpoint(compare: Set, pair: tuple[str, str]) -> None:
    """The rest never comes; identifications differ, as replicas draw them at random."""
    mine, theirs = (even(pair, body(1600, pair=pair), 800, ident)[0] for ident in (7, 1234))
    compare.s.sendall(frame(theirs))
    compare.p.sendall(frame(mine))
    assert read_frames(compare.o, 1) == [mine]
    compare.until(lambda: compare.counter("fragments_unfinished") == 2, "both halves are counted")
    assert (compare.counter("divergences"), compare.counter("checkpoints_asked"), compare.counter("held")) == (0, 0, 0)
