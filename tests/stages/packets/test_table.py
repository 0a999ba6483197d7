"""The connection table against a dict, with commits and crashes in between."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import layout
from ring.kernels.ledger import begin, commit, put, recover, undo_left
from stages.packets.kernels.table import find, format_table, hash_key, insert, mix, remove, remove_cost, touch, victim
from stages.packets.layout import parsed, table
from stages.packets.layout import rows as table_rows

UNDO_ENTRIES = 4096
KEY_AT = layout.UNDO + 2 * UNDO_ENTRIES
T = KEY_AT + 16
ROW_WORDS = table_rows.HEADER + 4
U8 = np.zeros(8, np.uint8)


def make(capacity: int, buckets: int | None = None) -> Any:
    """A stage segment's words with an empty table."""
    many = buckets or table.buckets(capacity)
    w = np.zeros(T + table.DESCRIPTOR + many + capacity * ROW_WORDS, np.int64)
    w[layout.UNDO_CAPACITY] = UNDO_ENTRIES
    format_table(w, T, capacity, many, ROW_WORDS)
    return w


def key(w: Any, n: int) -> int:
    """Write key ``n`` to the scratch words; 0 is all zeros, some are negative, some differ in one word only."""
    w[KEY_AT : KEY_AT + parsed.KEY_WORDS] = [0, n, 0, n // 3, -n, n % 2]
    return KEY_AT


def check(w: Any, model: dict[int, int]) -> None:
    """The table holds exactly the model's keys, each at its row, with its value."""
    assert w[T + table.USED] == len(model)
    for n, value in model.items():
        row = find(w, T, key(w, n))
        assert row > 0
        assert (w[row + table_rows.LIVE], w[row + table_rows.HEADER]) == (1, value)
    for n in set(range(24)) - set(model):
        assert find(w, T, key(w, n)) == -1
    buckets = w[T + table.DESCRIPTOR : T + table.DESCRIPTOR + w[T + table.BUCKETS]]
    assert len(set(buckets[buckets != 0])) == np.count_nonzero(buckets) == len(model)


def put_in(w: Any, n: int, value: int, now: int) -> int:
    """Insert key ``n`` with a value in its own words."""
    row = int(insert(w, T, key(w, n), now))
    if row >= 0:
        assert not w[row + table_rows.HEADER : row + ROW_WORDS].any()
        assert (w[row + table_rows.PINNED], w[row + table_rows.CLOSED], w[row + table_rows.SEEN]) == (0, 0, now)
        put(w, row + table_rows.HEADER, value)
        put(w, row + table_rows.CLOSED, 0)
    return row


operations = st.lists(
    st.tuples(st.sampled_from(["insert", "insert", "insert", "remove", "commit", "crash"]), st.integers(0, 23)),
    max_size=80,
)


@settings(max_examples=150)
@given(st.integers(1, 12), st.booleans(), operations)
def test_as_a_dict_with_commits_and_crashes(capacity: int, crowded: bool, todo: list[tuple[str, int]]) -> None:
    """Any order of inserts and removals; a crash goes back to the last commit exactly, free list and all.

    ``crowded``: as few buckets as can be, so that runs are long and wrap around the end.
    """
    w = make(capacity, 16 if crowded else None)
    row = begin(w)
    model: dict[int, int] = {}
    kept: dict[int, int] = {}
    for i, (what, n) in enumerate(todo, 1):
        if what == "insert" and n not in model:
            left = int(undo_left(w))
            got = put_in(w, n, i, i)
            assert (got < 0) == (len(model) == capacity)
            assert left - undo_left(w) <= ROW_WORDS + 6 + 2
            if got >= 0:
                model[n] = i
        elif what == "remove" and n in model:
            at = find(w, T, key(w, n))
            left, cost = int(undo_left(w)), int(remove_cost(w, T, at))
            remove(w, T, at)
            assert left - undo_left(w) <= cost
            del model[n]
        elif what == "commit":
            commit(w, row, 0, 1)
            row, kept = begin(w), dict(model)
        elif what == "crash":
            recover(U8, w, 0)
            row, model = begin(w), dict(kept)
        check(w, model)


def test_a_used_row_comes_back_empty() -> None:
    """What a connection left in its row is gone when another gets it."""
    w = make(1)
    begin(w)
    row = put_in(w, 5, 77, 1)
    w[row + table_rows.PINNED], w[row + table_rows.CLOSED] = 3, 1
    w[row + table_rows.HEADER : row + ROW_WORDS] = 9
    remove(w, T, row)
    assert put_in(w, 6, 1, 2) == row


def test_victim_prefers_closed_then_the_longest_silent_and_never_a_pinned_one() -> None:
    """Rows that hold packets stay; where all do, there is no victim."""
    w = make(8)
    begin(w)
    rows = [put_in(w, n, n, 100 + n) for n in range(8)]
    touch(w, rows[0], 200)
    assert victim(w, T) == rows[1]
    w[rows[1] + table_rows.PINNED] = 1
    assert victim(w, T) == rows[2]
    w[rows[5] + table_rows.CLOSED] = 1
    assert victim(w, T) == rows[5]
    for row in rows:
        w[row + table_rows.PINNED] = 1
    assert victim(w, T) == -1


def test_the_hand_goes_round() -> None:
    """More rows than are looked at: every one gets its turn, the search does not start at the same row each time."""
    capacity = 3 * table.EVICT_PROBES
    w = make(capacity)
    begin(w)
    rows = [put_in(w, n, n, 1000 - n) for n in range(capacity)]
    found = [victim(w, T) for _ in range(3)]
    assert [rows.index(row) // table.EVICT_PROBES for row in found] == [0, 1, 2]


@pytest.mark.parametrize("capacity", [1, 2, 8, 9, 16_384])
def test_never_more_than_half_full(capacity: int) -> None:
    """Buckets are a power of two and twice the rows or more, so that a search always ends."""
    n = table.buckets(capacity)
    assert n & (n - 1) == 0
    assert n >= 2 * capacity
    assert table.words(capacity, 24) == table.DESCRIPTOR + n + 24 * capacity


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=parsed.KEY_WORDS, max_size=parsed.KEY_WORDS))
def test_the_hash_is_32_bits_and_the_same_with_and_without_jit(words: list[int]) -> None:
    """Written out here once more: rows outlive a process, and whether it compiles."""
    w = make(1)
    w[KEY_AT : KEY_AT + parsed.KEY_WORDS] = words
    secret = [int(x) for x in w[T + table.SECRET : T + table.SECRET + table.SECRETS]]
    assert len(set(secret)) == table.SECRETS and all(0 <= x < 1 << 63 for x in secret)
    halves = [k >> shift & 0xFFFFFFFF for k in words for shift in (0, 32)]
    full = [(a >> 32 << 32) + (a & 0x7FFFFFFF) for a in secret]
    expected = sum(a * x for a, x in zip(full, halves, strict=True)) % (1 << 64) >> 32
    assert hash_key(w, T + table.SECRET, KEY_AT) == mix(expected)


def test_every_table_has_a_secret_of_its_own() -> None:
    """Keys that meet in one table do not in another: nobody outside can choose them."""
    one, other = make(1), make(1)
    assert list(one[T + table.SECRET : T + table.DESCRIPTOR]) != list(other[T + table.SECRET : T + table.DESCRIPTOR])


def longest_walk(load: Any) -> int:
    """The most buckets that linear probing passes before it is at a key's own: ``load`` keys belong to each bucket."""
    most = waiting = 0
    for _ in range(2):  # twice around: a run may wrap
        for n in load.tolist():
            waiting = max(0, waiting + n - 1)
            most = max(most, waiting)
    return most


@pytest.mark.parametrize("shift", [16, 0], ids=["client's ports", "server's ports"])
def test_the_hash_spreads_ports_in_a_row_under_any_secret(shift: int) -> None:
    """As many connections as the table holds, of one client to one server: about as random numbers would lie."""
    w = make(1)
    secrets = random.Random(1)
    for steps in [None, 1, 3, 0x5555, 0x7FFF, 0x10000, 0x10001]:
        w[T + table.SECRET : T + table.SECRET + table.SECRETS] = [secrets.getrandbits(63) for _ in range(table.SECRETS)]
        if steps is not None:  # a secret under which one port is so many buckets from the next
            w[T + table.SECRET + 8] = steps << 32 - shift & ~(1 << 31)
        load = np.zeros(32_768, np.int64)
        for port in range(16_384):
            w[KEY_AT : KEY_AT + parsed.KEY_WORDS] = [
                0,
                0xC6336409,
                0,
                0x0A000001,
                6 << 32 | 40_000 + port << shift,
                4 << 32,
            ]
            load[hash_key(w, T + table.SECRET, KEY_AT) & 32_767] += 1
        assert load.max() <= 10
        assert np.count_nonzero(load) > 32_768 * 0.37  # 1 - exp(-1/2) of them is 0.393
        assert longest_walk(load) <= 40


def test_the_last_step_of_the_hash_lets_no_two_numbers_meet() -> None:
    """A bijection: what did not meet before it does not meet after it; known values hold with and without JIT."""
    numbers = [n * 0x9E3779B1 & 0xFFFFFFFF for n in range(20_000)]
    assert len({mix(n) for n in numbers}) == len(numbers)
    assert max(mix(n) for n in numbers) < 1 << 32
