"""What a process does when a duty cycle found nothing: spin, yield, or sleep on its doorbell."""

from __future__ import annotations

from typing import Final, NamedTuple


class Idle(NamedTuple):
    """Idle duty cycles up to ``spins`` go straight on, up to ``yields`` give the processor away, then comes the doze.

    A doze costs two kernel calls, one more duty cycle, a system call and the waker's ring; a spin costs the neighbours
    their processor.  So the default spins only about as long as a doze takes (measured: pipeline/README.md).
    """

    spins: int
    yields: int


_NEVER: Final = 1 << 62
STRATEGIES: Final = {
    "busy_spin": Idle(_NEVER, _NEVER),
    "backoff": Idle(4, 8),
    "doorbell": Idle(0, 0),
}
