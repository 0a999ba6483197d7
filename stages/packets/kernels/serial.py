"""Serial number arithmetic modulo 2^32 (RFC 1982, as TCP uses it): 0 is an ordinary value, and everything wraps."""

from __future__ import annotations

from ring.hot import hot


@hot
def add(a, b):
    """``a + b`` modulo 2^32 (``b`` may be negative)."""
    return (a + b) & 0xFFFFFFFF


@hot
def diff(a, b):
    """How far ``a`` is ahead of ``b``: −2^31 to 2^31 − 1."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@hot
def after(a, b):
    """Whether ``a`` comes after ``b``."""
    return diff(a, b) > 0
