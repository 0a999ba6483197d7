"""Headers of segments and the state of a ring."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ring import errors, headers, layout


def _words() -> np.ndarray:
    return np.zeros(layout.PAGE // 8, np.int64)


def test_a_header_that_was_written_is_accepted() -> None:
    """format_header and check_header agree, and the header says who owns the ring."""
    w = _words()
    headers.format_header(w, 8192, vnet=True, owner=os.getpid(), digest=7)
    headers.check_header("x", w, layout.PAGE + 8192, layout.RING_MAGIC)
    assert (w[layout.SIZE], w[layout.VNET], w[layout.STATE]) == (8192, 1, layout.RING_OPEN)
    assert (w[layout.OWNER_PID], w[layout.DIGEST]) == (os.getpid(), 7)
    assert w[layout.OWNER_START] > 0
    assert w[layout.P_LINK] == w[layout.C_LINK] == 1


@pytest.mark.parametrize(
    ("nbytes", "magic", "version", "words"),
    [
        (100, layout.RING_MAGIC, layout.LAYOUT_VERSION, "not one of our segments"),
        (8192, 0, layout.LAYOUT_VERSION, "not one of our segments"),
        (8192, layout.STAGE_MAGIC, layout.LAYOUT_VERSION, "not one of our segments"),
        (8192, layout.RING_MAGIC, 99, f"layout version 99, this program speaks {layout.LAYOUT_VERSION}"),
    ],
)
def test_a_header_that_is_not_ours_is_refused_by_name(nbytes: int, magic: int, version: int, words: str) -> None:
    """Too short, another program's, a stage's, another version's: LayoutMismatch with the name and the reason."""
    w = _words()
    w[layout.MAGIC], w[layout.VERSION] = magic, version
    with pytest.raises(errors.LayoutMismatch, match=rf"/dev/shm/some-name .*{words}"):
        headers.check_header("some-name", w, nbytes, layout.RING_MAGIC)


STATES = (0, layout.RING_OPEN, layout.RING_DRAINING, layout.RING_CLOSED, 9)


@pytest.mark.parametrize("to", STATES)
@pytest.mark.parametrize("now", STATES)
def test_the_state_moves_as_the_table_says_and_no_other_way(now: int, to: int) -> None:
    """Allowed moves are made; every other raises BadMove with its reason and leaves the state."""
    w = _words()
    w[layout.STATE] = now
    if (now, to) in layout.RING_MOVES:
        assert headers.move_state(w, to) == now
        assert w[layout.STATE] == to
        return
    with pytest.raises(errors.BadMove) as caught:
        headers.move_state(w, to)
    assert layout.RING_PROHIBITED.get((now, to), "the table of moves does not have it") in str(caught.value)
    assert w[layout.STATE] == now
