"""Serial number arithmetic (RFC 1982)."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.packets.kernels.serial import add, after, diff

MOD = 1 << 32
numbers = st.integers(0, MOD - 1) | st.sampled_from([0, 1, MOD - 1, MOD // 2, MOD // 2 - 1, MOD // 2 + 1])
steps = st.integers(-(MOD // 2), MOD // 2 - 1)


@given(numbers, steps)
def test_diff_undoes_add(a: int, n: int) -> None:
    """Whatever wraps: a step away is that step away."""
    assert diff(add(a, n), a) == n
    assert 0 <= add(a, n) < MOD


@given(numbers, numbers)
def test_diff_is_antisymmetric_but_for_the_antipode(a: int, b: int) -> None:
    """At a distance of 2^31 RFC 1982 leaves the order undefined; everywhere else it is an order."""
    if (a - b) % MOD != MOD // 2:
        assert diff(a, b) == -diff(b, a)
        assert after(a, b) == (not after(b, a) and a != b)


def test_zero_is_an_ordinary_value() -> None:
    """0 follows 2^32 - 1."""
    assert add(MOD - 1, 1) == 0
    assert after(0, MOD - 1)
    assert not after(MOD - 1, 0)
    assert diff(5, MOD - 5) == 10


@given(numbers, numbers)
def test_shared_words_do_not_overflow(a: int, b: int) -> None:
    """np.int64 operands, as the kernels have them without JIT, give the same."""
    assert int(diff(np.int64(a), np.int64(b))) == diff(a, b)
    assert int(add(np.int64(a), np.int64(-b))) == add(a, -b)
