"""Mutated frames, a short campaign against each stage that reads packets; ``python -m tests.fuzz`` is the long one."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.benches import BENCHES, campaign
from tests.fuzz.mutate import Mutator, recorded, seeds

PLAIN = os.environ.get("NUMBA_DISABLE_JIT") == "1"
CORPUS = seeds() + recorded()


@pytest.mark.parametrize("name", BENCHES)
@pytest.mark.parametrize("seed", [11, 12])
def test_no_frame_breaks_a_stage_or_its_books(name: str, seed: int) -> None:
    count = 400 if PLAIN else 20_000
    assert campaign(name, CORPUS, count, seed, burst=40 if PLAIN else 250) >= count


def test_the_mutator_repeats_itself_and_keeps_some_frames_whole() -> None:
    first, again = (Mutator(3, CORPUS) for _ in range(2))
    frames = [frame for _ in range(40) for frame in first.burst(100)]
    assert frames == [frame for _ in range(40) for frame in again.burst(100)]
    whole = sum(frame in CORPUS for frame in frames)
    assert 1000 < whole < 3600
    assert min(map(len, frames)) == 0 and max(map(len, frames)) > 1000
