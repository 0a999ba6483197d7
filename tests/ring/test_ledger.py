"""A stage's segment from outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ring
from ring import errors, hot, layout, ledger
from ring.kernels.ledger import begin, bucket, commit
from ring.ledger import StageSegment, bucket_floor, percentile
from tests.ring.children import Child
from tests.ring.names import fresh

TOP = bucket_floor(layout.BUCKETS - 1)


@given(st.integers(-5, 2 * TOP))
def test_a_bucket_holds_its_durations(ns: int) -> None:
    """A duration lies between the floor of its bucket and that of the next; the last takes all above."""
    i = bucket(ns)
    assert 0 <= i < layout.BUCKETS
    assert bucket_floor(i) <= max(ns, 0)
    if i < layout.BUCKETS - 1:
        assert ns < bucket_floor(i + 1)


@given(st.integers(0, layout.BUCKETS - 1))
def test_a_bucket_and_its_floor_are_inverse(i: int) -> None:
    """The floor of a bucket falls into that bucket, and floors grow."""
    assert bucket(bucket_floor(i)) == i
    assert bucket_floor(i + 1) > bucket_floor(i)


@given(st.lists(st.integers(0, TOP), min_size=1, max_size=50), st.integers(0, 1000))
def test_a_percentile_is_the_bucket_of_the_sample_of_that_rank(samples: list[int], permille: int) -> None:
    """percentile() gives what sorting all samples would give, rounded down to a bucket."""
    histogram = np.zeros(layout.BUCKETS, np.int64)
    for ns in samples:
        histogram[bucket(ns)] += 1
    rank = max(1, -(-permille * len(samples) // 1000))
    found = percentile(histogram, permille / 1000)
    near = {bucket_floor(bucket(sorted(samples)[min(max(r, 1), len(samples)) - 1])) for r in (rank, rank + 1)}
    assert (
        found in near
        if permille * len(samples) % 1000 == 0
        else found == bucket_floor(bucket(sorted(samples)[rank - 1]))
    )


def test_a_histogram_without_samples_has_no_percentile() -> None:
    """No sample: 0."""
    assert percentile(np.zeros(layout.BUCKETS, np.int64), 0.5) == 0


def test_a_stage_segment_starts_on_and_empty() -> None:
    """A new segment is on, all its counters and scalars are 0, and another process can attach to it by name."""
    name = fresh()
    made = StageSegment.create(name, layout.UNDO + 10, digest=5, kind="filter-mirror")
    found = StageSegment.attach(name)
    assert found.kind_name() == "filter-mirror"
    assert found.w[layout.CMD_STATUS] == 1
    assert found.w[layout.STAGE_WORDS] == layout.UNDO + 10
    assert not any(found.counters())
    assert not any(found.scalars())
    assert len(found.counters()) == layout.COUNTERS
    made.w[layout.CMD_CHECKPOINT] = 3
    assert found.w[layout.CMD_CHECKPOINT] == 3
    made.close()
    found.close()
    assert ring.unlink(name)


def test_a_stage_segment_smaller_than_its_fixed_part_is_refused() -> None:
    """BadSize with the number of words; nothing is made."""
    name = fresh()
    with pytest.raises(errors.BadSize, match=r"2,047 words: its fixed part alone has 2,048"):
        StageSegment.create(name, layout.UNDO - 1)
    assert not ring.unlink(name)


def test_a_ring_is_no_stage_segment_and_the_other_way_round() -> None:
    """Attaching to the wrong kind is a LayoutMismatch, and leaves no descriptor open."""
    ring_name, stage_name = fresh(), fresh()
    stage = StageSegment.create(stage_name, layout.UNDO)
    with ring.create(ring_name, "64KiB"):
        with pytest.raises(errors.LayoutMismatch, match=ring_name):
            StageSegment.attach(ring_name)
        with pytest.raises(errors.LayoutMismatch, match=stage_name):
            ring.attach(stage_name)
    stage.close()
    ring.unlink(stage_name)


@pytest.mark.skipif(not hot.JIT, reason="a torn read needs bursts as fast as compiled code makes them")
def test_a_row_is_never_torn() -> None:
    """While another process commits as fast as it can, every copy of the row has all its words from one burst."""
    name = fresh()
    made = StageSegment.create(name, layout.UNDO)

    def commit_for_ever() -> None:
        w = ledger.StageSegment.attach(name).w
        while w[layout.CMD_STOP] == 0:
            row = begin(w)
            w[row + layout.ROW_SCALARS : row + layout.ROW_WORDS] = w[layout.COMMITTED] + 1
            commit(w, row, 0, 1)

    try:
        with Child(commit_for_ever) as child:
            seen: set[int] = set()
            while len(seen) < 500:
                row = made.row()[layout.ROW_SCALARS :]
                assert row.min() == row.max()
                seen.add(int(row[0]))
            made.w[layout.CMD_STOP] = 1
            assert child.wait() == 0
    finally:
        made.close()
        ring.unlink(name)
