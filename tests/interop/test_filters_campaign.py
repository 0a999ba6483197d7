"""filter-rewriter by hypothesis: any interleaving of whole connections, ours and QEMU's side by side.

Ours has to be right at every step.  QEMU's has to be the same, unless the segment names the row of behaviour.md in
which it is not (tests/interop/filters_talk.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop.filters_feed import TALLY, Both, Ours, Theirs, needs_qemu, scenario
from tests.interop.filters_talk import STYLES, Play, Segment, Talk
from tests.packets import MOD, arp_frame, checksum_faults, udp_frame

__all__ = ["scenario"]
pytestmark = needs_qemu
Numbers = tuple[int, int, int]
STRAYS = (arp_frame("10.0.0.1", "10.0.0.2"), udp_frame("10.0.0.9", "10.0.0.1", 1, 80))
QEMU_ROOM = 12_000  # connections; QEMU forgets all of them at 16,384

isns = st.sampled_from(
    [0, 1, 2, MOD - 1, MOD - 2, MOD - 9, MOD - 40, MOD // 2, MOD // 2 - 1, 0xFFFF, 0x1_0000]
) | st.integers(0, MOD - 1)
numbers = st.tuples(isns, isns, isns)
clocks = st.tuples(isns, isns) | isns.map(lambda n: (n, n))
flows = st.lists(st.tuples(numbers, st.sampled_from((STYLES[0], STYLES[0], *STYLES)), clocks), min_size=1, max_size=4)
plays = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(Play.OPS), st.integers(0, 40), numbers), min_size=10, max_size=40
)


class Campaign:
    """One QEMU for all examples, made anew before its table is full; one stage of ours for each example."""

    def __init__(self) -> None:
        self.theirs = Theirs(["filter-rewriter,id=f0,queue=all"])
        self.known = 0
        self.same: Counter[str] = Counter()

    def room(self, connections: int) -> None:
        self.known += connections
        if self.known > QEMU_ROOM:
            self.theirs.close()
            self.theirs, self.known = Theirs(["filter-rewriter,id=f0,queue=all"]), connections

    def example(self, made: list[tuple[Numbers, object, Numbers]], todo: list[tuple[int, str, int, Numbers]]) -> None:
        """Play the steps of all connections, frame by frame."""
        TALLY.scenarios += 1
        self.room(len(made) + len(todo))
        talks = [Play(Talk(isn, style, clock)) for isn, style, clock in made]  # type: ignore[arg-type]
        ours = Ours("filter-rewriter", params={"max_connections": 64})
        pair = Both(self.theirs, ours)
        try:
            for i, (flow, op, size, fresh) in enumerate(todo):
                for segment in talks[flow % len(talks)].do(op, size, fresh):
                    self.segment(pair, segment)
                if i % 8 == 7:
                    stray = (
                        arp_frame("10.0.0.1", "10.0.0.2") if i % 16 == 7 else udp_frame("10.0.0.9", "10.0.0.1", 1, 80)
                    )
                    assert pair.step("net", stray) == {"guest": [stray]}
        finally:
            ours.close()

    def segment(self, pair: Both, s: Segment) -> None:
        """One segment through both."""
        theirs, ours = pair.apart(s.port, s.sent)
        assert ours == {s.out: [s.right]}
        assert s.sent == s.right or checksum_faults(s.right) == []
        if theirs == ours:
            self.same["untouched" if s.sent == s.right else "rewritten"] += 1
        else:
            assert s.row is not None, (s, theirs)
            assert [len(f) for f in theirs[s.out]] == [len(s.sent)]
            TALLY.note(s.row)


@pytest.fixture
def campaign() -> Iterator[Campaign]:
    made = Campaign()
    yield made
    made.theirs.close()
    assert made.same["rewritten"] > 300, "the relation was empty: hardly a segment was rewritten by both"


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=flows, todo=plays)
def test_any_interleaving_of_connections_is_rewritten_as_qemu_does_where_it_is_right(
    campaign: Campaign, made: list[tuple[Numbers, object, Numbers]], todo: list[tuple[int, str, int, Numbers]]
) -> None:
    campaign.example(made, todo)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=flows, todo=plays)
def test_any_interleaving_of_connections_long(
    campaign: Campaign, made: list[tuple[Numbers, object, Numbers]], todo: list[tuple[int, str, int, Numbers]]
) -> None:
    campaign.example(made, todo)
