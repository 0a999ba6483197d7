"""Mixed chains: any part of the figure may be QEMU's or ours, and the client cannot tell.

Each chain is run with the same client and guests; what each end was given is compared, flow by flow and byte for byte,
with a chain that is QEMU's from end to end.  The ordinary run takes eleven chains that cover every pair of (a part's
holder, another part's holder, sockets, V); ``-m slow`` takes the whole matrix and every division of the parts.
"""

from __future__ import annotations

import itertools
from functools import cache

import pytest

from tests.interop.chain_client import (
    CLIENT,
    EDGES,
    NUMBERS,
    PRIMARY,
    SECONDARY,
    TALKS,
    Client,
    flow_of,
    talk,
    tcp_flow,
)
from tests.interop.chain_guest import Guest
from tests.interop.chain_hosts import running
from tests.interop.chain_plan import COMPARE, ENDS, PARTS, PRIMARY_PARTS, SECONDARY_PARTS, Chain
from tests.interop.chain_run import SCENES, Seen, play_all
from tests.packets import ACK, read
from tools import qemu

needs_qemu = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")

ALL = frozenset(PARTS)
SIDES = (frozenset[str](), ALL, SECONDARY_PARTS, PRIMARY_PARTS)
ONE_OURS = tuple(frozenset({part}) for part in PARTS)
ONE_QEMU = tuple(ALL - {part} for part in PARTS)
COVER = (
    Chain(frozenset(), tcp=True, vnet=True),
    Chain(ALL, tcp=True, vnet=True),
    Chain(SECONDARY_PARTS, tcp=False, vnet=False),
    Chain(PRIMARY_PARTS, tcp=False, vnet=False),
    *(Chain(ours, tcp=i % 2 == 0, vnet=i % 4 in (1, 2)) for i, ours in enumerate(ONE_OURS)),
)
MATRIX = tuple(
    Chain(ours, tcp, vnet)
    for ours in (*SIDES, *ONE_OURS, *ONE_QEMU)
    for tcp, vnet in itertools.product((False, True), repeat=2)
)
DIVISIONS = tuple(
    Chain(frozenset(part for i, part in enumerate(PARTS) if n >> i & 1), tcp=n % 3 == 0, vnet=n % 5 < 2)
    for n in range(1 << len(PARTS))
)
REST = tuple(dict.fromkeys(chain for chain in (*MATRIX, *DIVISIONS) if chain not in COVER))


@cache
def reference() -> Seen:
    """What a chain of QEMU's parts alone does, over unix sockets, without V."""
    return play_all(Chain())


def same_as_reference(chain: Chain) -> None:
    seen, expected = play_all(chain), reference()
    assert seen.asked == {name: scene.asked for name, scene in SCENES.items()} == expected.asked
    for name, flows in expected.client.items():
        assert seen.client[name].keys() == flows.keys()
        for flow, frames in flows.items():
            assert seen.client[name][flow] == frames, f"the client, {name}: {flow}"
    assert seen.primary == expected.primary
    assert seen.secondary == expected.secondary  # so both rewriters made the same bytes
    assert seen.requests == expected.requests


@needs_qemu
@pytest.mark.parametrize("chain", COVER, ids=str)
def test_whoever_holds_a_part_the_client_and_both_guests_get_the_same_bytes(chain: Chain) -> None:
    same_as_reference(chain)


@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("chain", REST, ids=str)
def test_every_division_of_the_parts_gives_the_same_bytes(chain: Chain) -> None:
    same_as_reference(chain)


@needs_qemu
def test_the_reference_is_worth_comparing_with() -> None:
    seen = reference()
    for name in ("talk", "secondary late", "primary late"):
        assert len(seen.client[name]) == len(list(talk(0)))
        assert sum(map(len, seen.client[name].values())) > 200
    primary, secondary = seen.requests
    assert primary == secondary
    assert {port: len(asked) for port, asked in primary.items()} == {port: 3 + port % 2 for port in NUMBERS}
    moved = {flow for flow, frames in seen.secondary.items() if frames != seen.primary[flow]}
    assert {port for flow in moved for port in NUMBERS if (CLIENT, port) in flow} == {
        port for port, n in NUMBERS.items() if n.primary != n.secondary
    }


def test_the_chains_of_the_ordinary_run_cover_every_pair_of_choices() -> None:
    def choices(chain: Chain) -> dict[str, bool]:
        return {part: part in chain.ours for part in PARTS} | {"tcp": chain.tcp, "vnet": chain.vnet}

    for a, b in itertools.combinations(choices(Chain()), 2):
        assert {(choices(c)[a], choices(c)[b]) for c in COVER} == set(itertools.product((False, True), repeat=2)), (
            a,
            b,
        )


def test_every_part_has_its_place_and_every_link_two_ends() -> None:
    for chain in (*MATRIX, *DIVISIONS):
        hosts = chain.hosts()
        assert sorted(part for host in hosts for part in host.parts) == sorted(PARTS)
        assert all(host.ours == (part in chain.ours) for host in hosts for part in host.parts)
        links = [link for host in hosts for _, link, _ in host.chardevs()]
        assert {link: links.count(link) for link in links} == {
            "mirror": 2, "primary": 2, "secondary": 2, "out": 2, "notify": 1,
        }  # fmt: skip
        joints = [side for host in hosts for side in (host.network, host.guest) if "joint" in side]
        assert all(joints.count(joint) == 2 for joint in joints)
        assert sum(COMPARE in host.parts for host in hosts) == 1


def test_the_secondarys_stack_ignores_what_no_rewriter_touched() -> None:
    guest, client = Guest(SECONDARY), Client(iter([tcp_flow(TALKS[0], EDGES[0], [b"get 1\n"])]))
    (syn,) = client.start()
    (answer,) = Guest(PRIMARY).take(syn)  # the client talks to the primary
    guest.take(syn)
    for frame in client.take(answer):
        assert guest.take(frame) == []
    assert "acknowledges what was not sent" in guest.ignored[0]
    assert not guest.requests
    assert read(answer).flags & ACK and flow_of(answer) == flow_of(syn)


def fail_inside(chain: Chain) -> None:
    with running(chain) as links:
        assert links.keys() == set(ENDS)
        raise RuntimeError("in the middle of it")


@needs_qemu
def test_a_chain_that_fails_leaves_nothing_and_shows_its_logs() -> None:
    with pytest.raises(RuntimeError) as failed:
        fail_inside(Chain(frozenset({"redire0"}), tcp=True))  # three processes on the primary
    assert any("primary-1.log" in note and '"connected"' in note for note in failed.value.__notes__)
