"""What the hosts' own TCP says of what it got: /proc/net/snmp and /proc/net/netstat of their namespaces."""

from __future__ import annotations

from tools.lab.host import LabError
from tools.lab.scene import Scene

# What can only come of wrong numbers: a bad checksum, a timestamp echoed in a handshake that was never sent.
NEVER = ("InCsumErrors", "TSEcrRejected")
# What overtaking brings about as well, and wrong numbers by the hundred: SACK blocks that cannot be, old timestamps.
SELDOM = ("TCPSACKDiscard", "PAWSEstab", "PAWSActive")
# Of these SACK blocks: D-SACKs for more than this host has sent again.  A secondary gets them for what the primary has.
DUBIOUS = "TCPDSACKIgnoredDubious"
RECEIVED, RETRANSMITTED, BY_SACK, DUPLICATES = "InSegs", "RetransSegs", "TCPSackRecovery", "TCPDSACKRecv"


def parse(text: str) -> dict[str, int]:
    """Counters of ``Tcp`` and ``TcpExt`` by name: a line of names, a line of values."""
    lines = [line.split() for line in text.splitlines()]
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if names[0] in ("Tcp:", "TcpExt:"):
            found |= zip(names[1:], map(int, values[1:]), strict=True)
    return found


def read(scene: Scene, role: str) -> dict[str, int]:
    """The counters of a role since its namespace was made."""
    done = scene.call(role, "cat", "/proc/net/snmp", "/proc/net/netstat")
    if done.returncode:
        raise LabError(f"the {role}'s TCP counters cannot be read: {done.stderr.strip()}")
    return parse(done.stdout)


def some(counters: dict[str, int], names: tuple[str, ...]) -> str:
    """The counters of these names that are not 0, in words; a kernel need not have all of them."""
    return ", ".join(f"{counters[name]} {name}" for name in names if counters.get(name))


def discarded(counters: dict[str, int]) -> int:
    """Segments whose SACK blocks or timestamps were of no use, but for D-SACKs that answer the other replica.

    Of those the kernel counts only some as discarded, too (not where acknowledgements overtook each other), so they are
    taken off what was discarded, not off the timestamps.
    """
    blocks, *stamps = (counters.get(name, 0) for name in SELDOM)
    return max(0, blocks - counters.get(DUBIOUS, 0)) + sum(stamps)
