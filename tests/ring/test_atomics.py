"""Bytes and words: compiled and plain Python do the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ring import atomics
from ring.atomics import be16, be32, be64, byte, common_prefix, copy, put_be16, put_be32, put_byte
from ring.memory_fence import fence

MEMORY = st.binary(min_size=24, max_size=64)


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


@given(MEMORY, st.integers(0, 15))
def test_loads_are_big_endian_and_unaligned(data: bytes, at: int) -> None:
    """be16, be32 and be64 at any byte are what int.from_bytes says; be64 is signed."""
    u8 = _array(data)
    assert byte(u8, at) == data[at]
    assert be16(u8, at) == int.from_bytes(data[at : at + 2], "big")
    assert be32(u8, at) == int.from_bytes(data[at : at + 4], "big")
    assert be64(u8, at) == int.from_bytes(data[at : at + 8], "big", signed=True)


@given(MEMORY, st.integers(0, 15), st.integers(0, 0xFFFFFFFF))
def test_stores_write_their_bytes_and_no_other(data: bytes, at: int, value: int) -> None:
    """put_byte, put_be16 and put_be32 change one, two and four bytes."""
    for put, n in ((put_byte, 1), (put_be16, 2), (put_be32, 4)):
        u8 = _array(data)
        put(u8, at, value & (1 << 8 * n) - 1)
        expected = data[:at] + (value & (1 << 8 * n) - 1).to_bytes(n, "big") + data[at + n :]
        assert u8.tobytes() == expected


@given(MEMORY, st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_common_prefix_counts_equal_bytes(data: bytes, a: int, b: int, n: int) -> None:
    """It is the number of equal bytes before the first that differs, at most n."""
    expected = next((i for i in range(n) if data[a + i] != data[b + i]), n)
    assert common_prefix(_array(data), a, b, n) == expected


@given(MEMORY, st.integers(0, 12))
def test_copy_moves_bytes(data: bytes, n: int) -> None:
    """The target gets the source's bytes and nothing else changes."""
    u8 = _array(data)
    copy(u8, 12, 0, n)
    assert u8.tobytes() == data[:12] + data[:n] + data[12 + n :]


def test_words_are_stored_and_loaded_whole() -> None:
    """load_acquire sees what store_release wrote, at the ends of int64 too; fences change nothing."""
    w = np.zeros(4, np.int64)
    for value in (0, -1, 1 << 62, -(1 << 63), (1 << 63) - 1):
        atomics.store_release(w, 2, value)
        atomics.fence_full()
        atomics.fence_order()
        fence()
        assert atomics.load_acquire(w, 2) == value
        assert list(w) == [0, 0, value, 0]
