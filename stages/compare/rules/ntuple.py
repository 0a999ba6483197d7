"""What a rule matches on, as it stands in a config: protocols, networks, ports, VLANs.  Lists read, and shown again.

A list in a config is one value, a list of values, or a string with commas; ``"*"`` (or ``"any"``) takes everything, and
is kept as an empty tuple.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from stages.schema import Check, Wrong

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Range = tuple[int, int]  # first, last

TCP: Final = 6
UDP: Final = 17
ICMP: Final = (1, 58)  # and ICMPv6, IANA's protocol numbers
_MOST_TAGS: Final = 4
MAX_BYTE: Final = 65_535
_NAMES: Final = {"tcp": (TCP,), "udp": (UDP,), "icmp": ICMP}


def _words(value: Any) -> list[str]:
    """The values of a list, as text."""
    found: list[str] = []
    for one in value if type(value) is list else [value]:
        if type(one) is int and one >= 0:
            found.append(str(one))
        elif type(one) is str:
            found += [word.strip() for word in one.split(",")]
        else:
            raise Wrong
    if not found or not all(found):
        raise Wrong
    return found


def _listed(expected: str, read: Callable[[str], tuple[Any, ...]], order: Callable[[Any], Any] = list) -> Check:
    def check(value: Any, _: Path) -> tuple[Any, ...]:
        words = _words(value)
        made = [one for word in words if word not in ("*", "any") for one in read(word)]
        return () if {"*", "any"} & set(words) else tuple(order(dict.fromkeys(made)))

    return Check(expected, check)


def _number(word: str, low: int, high: int) -> int:
    if not word.isascii() or not word.isdigit() or len(word) > 9 or not low <= int(word) <= high:
        raise Wrong
    return int(word)


def _span(low: int, high: int) -> Callable[[str], tuple[Range]]:
    def read(word: str) -> tuple[Range]:
        first, dash, last = word.partition("-")
        a = _number(first.strip(), low, high)
        b = _number(last.strip(), low, high) if dash else a
        if a > b:
            raise Wrong(f'"{b}-{a}", the smaller number first')
        return ((a, b),)

    return read


def _protocol(word: str) -> tuple[Range, ...]:
    numbers = _NAMES.get(word.lower()) or (_number(word, 0, 255),)
    return tuple((n, n) for n in numbers)


def _net(word: str) -> tuple[Net]:
    if "%" in word:
        raise Wrong("an address without a zone: it means nothing on another machine")
    try:
        network = ipaddress.ip_network(word)
    except ValueError:
        pass
    else:
        if network.version == 6 and network.prefixlen == 128 and (plain := network.network_address.ipv4_mapped):
            raise Wrong(f'"{plain}": a packet has that address as one of IPv4')
        return (network,)
    try:
        network = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise Wrong from None
    raise Wrong(f'"{network}", the network that {word} lies in, or "{word.partition("/")[0]}", the address alone')


def _vlan(word: str) -> tuple[Range]:
    ids = word.split(".")
    if len(ids) == 1:
        return _span(0, 4095)(word)
    if len(ids) > _MOST_TAGS:
        raise Wrong
    outer, inner, third, fourth = ([_number(one, 0, 4095) for one in ids] + [0, 0])[:_MOST_TAGS]
    tags = (third << 12 | fourth) << 32 | outer << 16 | inner  # as the kernel has them: `kernels.rules`
    return ((tags, tags),)


PROTOCOLS = _listed('"tcp", "udp", "icmp", a number from 0 to 255, a list of these, or "*"', _protocol, sorted)
NETS = _listed('an address or a network such as "10.0.0.0/8" or "fd00::/8", a list of these, or "*"', _net)
PORTS = _listed('a port from 1 to 65535, a range such as "8000-8999", a list of these, or "*"', _span(1, 65_535))
VLANS = _listed(
    'a VLAN from 0 (none) to 4095, "10-19", "100.5" (outer and inner, up to four tags), a list, or "*"', _vlan
)
BYTES = _listed(f'offsets from 0 to {MAX_BYTE}, such as "16-23", or a list of these', _span(0, MAX_BYTE))


def show_ranges(ranges: tuple[Range, ...]) -> str:
    """``80,8000-8999``; ``*`` where anything will do."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) or "*"


def show_protocols(ranges: tuple[Range, ...]) -> str:
    """``tcp,udp``; ``any`` where anything will do."""
    numbers = [a for a, _ in ranges]
    named = [name for name, needed in _NAMES.items() if set(needed) <= set(numbers)]
    rest = [str(n) for n in numbers if not any(n in _NAMES[name] for name in named)]
    return ",".join([*named, *rest]) or "any"


def show_nets(nets: tuple[Net, ...]) -> str:
    """``10.0.0.1,fd00::/8``; ``*`` where anything will do."""
    return ",".join(str(n.network_address) if n.num_addresses == 1 else str(n) for n in nets) or "*"


def show_vlans(ranges: tuple[Range, ...]) -> str:
    """``5,100.5``; ``*`` where anything will do."""
    return ",".join(_show_tags(a) if a >> 16 else show_ranges(((a, b),)) for a, b in ranges) or "*"


def _show_tags(tags: int) -> str:
    further = tags >> 32
    more = [further >> 12, *([further & 0xFFF] if further & 0xFFF else [])] if further else []
    return ".".join(map(str, (tags >> 16 & 0xFFFF, tags & 0xFFFF, *more)))
