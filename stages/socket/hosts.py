"""What a host's name or address says by itself.  Needs no Numba."""

from __future__ import annotations


def is_loopback(host: str | None) -> bool:
    """Whether it is an address by which a machine reaches itself alone, or the usual name of one; None: no host."""
    return host is not None and (host in ("localhost", "::1") or host.startswith("127."))
