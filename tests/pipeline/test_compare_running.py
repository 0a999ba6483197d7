"""A compare in a running pipeline: what two replicas cannot send alike costs no checkpoint there, either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packets import udp_frame
from tests.pipeline.running import frame, read_frames
from tests.pipeline.test_rules_running import CLIENT, SERVER, Set
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
