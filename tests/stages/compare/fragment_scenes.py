"""Datagrams cut into fragments, as two replicas would send them, and hands to feed a compare with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.packets import IPV4, IPV6, P_UDP, ether, fragment_header, ipv4, ipv6, udp
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import check

V4 = ("10.0.0.2", "10.0.0.1")
V6 = ("fd00::2", "fd00::1")


def body(size: int, port: int = 9, pair: tuple[str, str] = V4, seed: int = 0) -> bytes:
    """A UDP datagram of ``size`` bytes, its header included."""
    return udp(*pair, 53, port, bytes((7 * i + seed) % 251 for i in range(size - 8)))


def piece(
    pair: tuple[str, str], data: bytes, at: int, more: bool, ident: int = 7, proto: int = P_UDP,
    vlans: Sequence[int] = (), extensions: Iterable[tuple[int, bytes]] = (), options: bytes = b"",
) -> bytes:  # fmt: skip
    """The frame of one fragment: ``data`` at offset ``at``."""
    if ":" in pair[0]:
        chain = [*extensions, fragment_header(at, more, ident)]
        return ether(ipv6(*pair, proto, data, extensions=chain), IPV6, vlans)
    return ether(ipv4(*pair, proto, data, ident=ident, frag=at, more=more, dont=False, options=options), IPV4, vlans)


def cut(
    pair: tuple[str, str], whole: bytes, marks: Iterable[int], ident: int = 7, proto: int = P_UDP,
    vlans: Sequence[int] = (),
) -> list[bytes]:  # fmt: skip
    """The frames of a datagram cut at ``marks`` (multiples of 8)."""
    edges = sorted({0, len(whole), *marks})
    return [piece(pair, whole[a:b], a, b < len(whole), ident, proto, vlans) for a, b in pairwise(edges)]


def even(pair: tuple[str, str], whole: bytes, size: int, ident: int = 7, **more: Sequence[int]) -> list[bytes]:
    """The frames of a datagram cut into pieces of ``size`` bytes (a multiple of 8)."""
    return cut(pair, whole, range(0, len(whole), size), ident, **more)


def never_whole(pair: tuple[str, str]) -> dict[str, list[bytes]]:
    """Fragments of which no datagram can be made, by what is wrong with them."""
    whole = body(2400, pair=pair)
    a, b, c = even(pair, whole, 800)
    evil = bytes(800)
    return {
        "other bytes at the same place": [a, piece(pair, evil, 0, True), b, c],
        "overlaps the beginning": [a, piece(pair, whole[792:1600], 792, True), c],
        "overlaps the end": [a, piece(pair, whole[800:1608], 800, True), c],
        "inside another": [a, piece(pair, whole[8:16], 8, True), b, c],
        "around another": [b, piece(pair, whole[:1608], 0, True), c],
        "two ends apart": [piece(pair, whole[800:1600], 800, False), c, a],
        "bytes enough, but beyond the end": [
            piece(pair, evil, 1600, True),
            piece(pair, whole[800:1600], 800, False),
        ],
        "two ends": [a, piece(pair, whole[1600:2000], 1600, False), c, b],
        "beyond the end": [a, c, piece(pair, evil, 2400, True), b],
        "the end before others": [a, c, piece(pair, whole[800:804], 800, False)],
        "the same place, but the last": [a, c, piece(pair, whole[1600:], 1600, True), b],
        "no multiple of 8": [piece(pair, whole[:804], 0, True), b, c],
        "empty": [a, piece(pair, b"", 800, True), b, c],
        "empty at the end": [a, piece(pair, b"", 2400, False), b, c],
        "beyond 65,535": [a, b, piece(pair, evil, 65_528, False)],
    }


def step(g: Rig, port: str, *frames: bytes, now: int = 1) -> list[bytes]:
    """Feed frames one by one; what leaves.  After each the books and the tables are looked at."""
    out: list[bytes] = []
    for frame in frames:
        g.feed(port, frame)
        g.run(now=now)
        out += g.take("outdev")
        check(g)
        audit(g)
    return out


def primary(g: Rig, *frames: bytes, now: int = 1) -> list[bytes]:
    """The primary says something."""
    return step(g, "primary_in", *frames, now=now)


def secondary(g: Rig, *frames: bytes, now: int = 1) -> list[bytes]:
    """The secondary says something."""
    return step(g, "secondary_in", *frames, now=now)


def settled(g: Rig, released: int, matched: int) -> dict[str, int]:
    """Nothing is held and nothing differed."""
    c = check(g)
    seen = (c["held"], c["divergences"], c["released"], c["matched"])
    assert seen == (0, 0, released, matched)
    return c
