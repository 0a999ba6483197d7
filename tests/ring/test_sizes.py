"""Sizes as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring import errors
from ring.sizes import LARGEST, check_size, parse_size, show_size

UNITS = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@given(st.integers(0, 1 << 20), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "\t"]), st.booleans())
def test_a_number_and_a_unit_are_bytes(number: int, unit: str, gap: str, lower: bool) -> None:
    """Any number with B, KiB, MiB, GiB or nothing, spaced and cased as one likes, is that many bytes."""
    text = f" {number}{gap}{unit} "
    assert parse_size(text.lower() if lower else text) == number * UNITS[unit]


@given(st.text())
def test_any_other_text_is_a_typed_error(text: str) -> None:
    """Whatever is written, the answer is a number of bytes or a BadSize that quotes it."""
    try:
        assert parse_size(text) >= 0
    except errors.BadSize as error:
        assert repr(text) in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "size", ["", "4MB", "4 M", "1.5MiB", "-4KiB", "KiB", "0x1000", "4KiBB", "٤KiB", True, 4.0, None]
)
def test_near_misses_are_no_sizes(size: object) -> None:
    """Decimal units, fractions, signs, other digits and other types are refused with the value."""
    with pytest.raises(errors.BadSize, match=re.escape(repr(size))):
        parse_size(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -4096, 1, 2048, 4095, 4097, 65535, "3MiB", "100000", 1 << 62])
def test_a_ring_is_a_power_of_two_from_a_page_on(size: int | str) -> None:
    """Other sizes are refused, with the sum and one that would do."""
    with pytest.raises(errors.BadSize) as caught:
        check_size(size)
    number, suggestion = re.findall(r"of (-?[\d,]+) bytes.*say ([\d,]+)", str(caught.value))[0]
    assert int(number.replace(",", "")) == parse_size(size)
    assert check_size(int(suggestion.replace(",", ""))) >= min(parse_size(size), LARGEST)


@given(st.integers(12, 40))
def test_powers_of_two_are_sizes_of_rings(exponent: int) -> None:
    """4 KiB, 8 KiB and so on are accepted, also when shown and read again."""
    size = 1 << exponent
    assert check_size(size) == size
    assert check_size(show_size(size)) == size
