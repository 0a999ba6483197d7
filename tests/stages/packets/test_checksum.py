"""The incremental checksum against the sum of the whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.packets.kernels.checksum import delta32, fold, swapped, updated
from tests.packets import checksum, ones_sum

words = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 0xFFFF, 0x10000, 0xFFFF0000, 0xFFFFFFFE, 0xFFFFFFFF])


@given(st.binary(min_size=8, max_size=60), words, st.integers(0, 60))
def test_an_update_gives_what_summing_again_gives(data: bytes, new: int, at: int) -> None:
    """RFC 1624, at even and odd places; one byte is never 0, as in every pseudo-header."""
    data = b"\x06" + data
    at %= len(data) - 4
    old = int.from_bytes(data[at : at + 4], "big")
    changed = data[:at] + new.to_bytes(4, "big") + data[at + 4 :]
    if not any(changed):
        return
    delta = delta32(old, new)
    if at % 2:
        delta = swapped(delta)
    assert updated(checksum(data), delta) == checksum(changed)


@given(words, words, words, words, st.integers(0, 0xFFFF))
def test_deltas_add_up(a: int, b: int, c: int, d: int, start: int) -> None:
    """Two changes in one update are two updates."""
    both = updated(start, fold(delta32(a, b) + delta32(c, d)))
    assert both % 0xFFFF == updated(updated(start, delta32(a, b)), delta32(c, d)) % 0xFFFF


def test_rfc_1624_example() -> None:
    """The example of RFC 1624, section 4: 0xDD2F with 0x5555 becoming 0x3285 gives 0, where RFC 1141 gave 0xFFFF."""
    assert updated(0xDD2F, delta32(0x5555, 0x3285)) == 0


@given(st.binary(min_size=20, max_size=40), words)
def test_a_wrong_checksum_stays_wrong_by_as_much(data: bytes, new: int) -> None:
    """Damage on the way here is not covered up."""
    wrong = checksum(data) ^ 0x0100
    changed = new.to_bytes(4, "big") + data[4:]
    after = updated(wrong, delta32(int.from_bytes(data[:4], "big"), new))
    assert (after - checksum(changed)) % 0xFFFF == (wrong - checksum(data)) % 0xFFFF
    assert ones_sum(changed + after.to_bytes(2, "big")) != 0xFFFF or len(data) % 2


@given(words, words)
def test_words_of_a_table_do_not_overflow(old: int, new: int) -> None:
    """np.int64 operands, as the kernels have them, give the same."""
    assert int(updated(np.int64(0x1234), delta32(np.int64(old), np.int64(new)))) == updated(0x1234, delta32(old, new))
