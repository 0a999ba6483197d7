"""What can be wrong with a ring, each with the value at fault and the mend.

Would-block is never an error: a full or empty ring is a return value.
"""

from __future__ import annotations


class RingError(Exception):
    """Anything that a user of a ring can do wrong or run into."""


class BadName(RingError):
    """A segment name that POSIX shared memory cannot hold."""


class BadSize(RingError):
    """A ring size that is no size, no power of two, or below one page."""


class BadFrame(RingError):
    """Something that is no frame: not bytes, or with a virtio-net header that does not fit."""


class FrameTooLarge(RingError):
    """A frame over 69,632 bytes, or one that the ring can never hold."""


class SegmentExists(RingError):
    """The name is taken: by a live owner, or by a segment that a dead one left."""


class SegmentMissing(RingError):
    """There is no segment of that name."""


class LayoutMismatch(RingError):
    """The segment is not ours, or of another layout version."""


class BadRecord(RingError):
    """The bytes between head and tail are no frames: whoever wrote them is broken."""


class BadMove(RingError):
    """A ring's state cannot go from where it is to where it was told to."""


class NoSpace(RingError):
    """/dev/shm cannot hold what was asked for."""


class EndTaken(RingError):
    """The ring has a live producer (or consumer) already."""


class RingClosed(RingError):
    """The ring was closed, here or by the other side."""
