"""Rules in a compare at work: what passes, what is forgiven, and that no packet is lost while they change."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import layout
from stages.compare.layout import options
from stages.compare.rules.rule_set import from_table
from stages.compare.rules.rulebook import Rulebook
from stages.kind import LiveStage
from tests.packets import ACK, FIN, SYN, icmp_frame, udp_frame
from tests.rig import Rig
from tests.stages.compare.audit import audit
from tests.stages.compare.test_compare import CLIENT, MS, SERVER, check, handshake, rig, seg

PASS_TCP = {"action": "pass", "protocol": "tcp", "source_port": 80}
DATE = {"action": "mask", "protocol": "tcp", "regex": r"\r\nDate: ([^\r\n]*)"}


class Rules:
    """The supervisor's hand on a rig: rules are written into its segment, and taken with the next burst."""

    def __init__(self, g: Rig, **tables: dict[str, Any]) -> None:
        self.g = g
        stages = [LiveStage("comp0", g.params, g.segment)]
        self.book = Rulebook(stages, {}, structlog.get_logger(), taken_over=False)
        self.change(add=tables)

    def change(self, add: dict[str, dict[str, Any]] | None = None, delete: str = "") -> None:
        """One change: written, not yet taken."""
        made = self.book.rules.without(delete)
        for name, table in (add or {}).items():
            rule, wrong = from_table(name, table, ["comp0"])
            assert not wrong
            made = made.added(name, rule)
        self.book.rules = made
        assert self.book.free
        self.book._write(lambda area: area.written + 1)

    def hits(self, name: str) -> tuple[int, int]:
        """Hits and connections of a rule."""
        found = next(one for one in self.book.listed() if one["name"] == name)
        return found["hits"], found["connections"]


def both(g: Rig, now: int, first: bytes, second: bytes | None = None) -> list[bytes]:
    """A packet of each side, and what leaves."""
    g.feed("primary_in", first)
    g.feed("secondary_in", first if second is None else second)
    g.run(now=now)
    return g.take("outdev")


def test_new_rules_are_taken_without_a_packet() -> None:
    """A compare that has nothing to do commits that it knows the new set, so that the next change can be written."""
    with rig() as g:
        rules = Rules(g, a=PASS_TCP)
        assert not rules.book.free
        g.run(now=2)
        assert rules.book.free
        g.run(now=3)
        check(g)


def test_a_connection_under_a_pass_rule_is_not_compared() -> None:
    """The primary's packets leave at once, the secondary's are dropped, whatever they say; others are compared."""
    with rig() as g:
        rules = Rules(g, web=PASS_TCP)
        frames = [seg(1000, flags=SYN | ACK), seg(1001, b"hello"), seg(1006, b"x", FIN | ACK)]
        g.feed("primary_in", *frames)
        g.run(now=2)
        assert g.take("outdev") == frames
        g.feed("secondary_in", seg(7, flags=SYN | ACK), seg(8, b"other"), seg(13))
        g.feed("primary_in", udp_frame(SERVER, CLIENT, 53, 9, b"compared"))
        g.run(now=3)
        assert g.take("outdev") == []
        c = check(g)
        assert (c["released_by_rule"], c["matched"] + c["dropped_by_rule"] + c["secondary_acks"]) == (3, 3)
        assert c["dropped_by_rule"] >= 1
        assert (c["held_primary"], c["divergences"]) == (1, 0)
        assert rules.hits("web") == (c["released_by_rule"] + c["dropped_by_rule"], 1)


def test_a_masked_header_is_no_difference_and_the_rest_is_compared() -> None:
    """An HTTP Date that differs, in segments cut in different places; a byte behind it that differs is found."""
    text = b"HTTP/1.1 200 OK\r\nDate: Mon, 07:00:0%d\r\nContent-Length: 2\r\n\r\n"
    first, second = text % 1, text % 2
    with rig() as g:
        rules = Rules(g, date=DATE)
        handshake(g, now=2)
        g.feed("primary_in", seg(1001, first[:30]), seg(1031, first[30:]))
        g.feed("secondary_in", *(seg(1001 + i, second[i : i + 7]) for i in range(0, len(second), 7)))
        g.run(now=3)
        assert g.take("outdev") == [seg(1001, first[:30]), seg(1031, first[30:])]
        c = check(g)
        assert (c["divergences"], c["masked"], c["held"]) == (0, 1, 0)
        assert rules.hits("date") == (1, 1)
        at = 1001 + len(first)
        assert both(g, 4, seg(at, b"ok"), seg(at, b"oh")) == []
        assert check(g)["diverged_payload"] == 1


@pytest.mark.parametrize("late", ["primary_in", "secondary_in"])
def test_a_mask_reads_every_byte_on_every_way_through_the_compare(late: str) -> None:
    """Equal segments before the header, whichever side is first and in step or not, are read by the mask as well."""
    first, second = b"\r\nDate: aa\r\n", b"\r\nDate: ab\r\n"
    with rig() as g:
        Rules(g, date=DATE)
        handshake(g, now=2)
        early = "secondary_in" if late == "primary_in" else "primary_in"
        for i in range(0, len(first), 3):
            pieces = {"primary_in": first[i : i + 3], "secondary_in": second[i : i + 3]}
            g.feed(early, seg(1001 + i, pieces[early]))
            g.run(now=3)
            g.feed(late, seg(1001 + i, pieces[late]))
            g.run(now=4)
        assert b"".join(frame[-3:] for frame in g.take("outdev")) == first
        assert check(g)["divergences"] == 0


def test_a_masked_datagram_may_have_another_checksum() -> None:
    """UDP: bytes of the payload, with right checksums on both sides; a byte beside them is a difference in time."""
    with rig() as g:
        rules = Rules(g, dns={"action": "mask", "protocol": "udp", "bytes": "0-1"})
        p, s = udp_frame(SERVER, CLIENT, 53, 9, b"\x01\x02rest"), udp_frame(SERVER, CLIENT, 53, 9, b"\xaa\xbbrest")
        assert both(g, 2, p, s) == [p]
        assert check(g)["masked"] == 1
        assert rules.hits("dns") == (1, 1)
        assert both(g, 3, p, udp_frame(SERVER, CLIENT, 53, 9, b"\x01\x02rexx")) == []
        g.run(now=3 + 60 * MS)
        assert check(g)["diverged_order"] == 1


def test_an_icmp_echo_under_a_pass_rule_passes() -> None:
    """A protocol without ports."""
    with rig() as g:
        Rules(g, ping={"action": "pass", "protocol": "icmp"})
        frame = icmp_frame(SERVER, CLIENT)
        g.feed("primary_in", frame)
        g.run(now=2)
        assert g.take("outdev") == [frame]
        assert check(g)["released_by_rule"] == 1


@pytest.mark.parametrize("made", [seg(1001, b"waits"), udp_frame(SERVER, CLIENT, 80, 9, b"waits")])
def test_what_is_held_is_let_go_by_a_new_rule(made: bytes) -> None:
    """With the connection's next packet, or when its time is over: it leaves, once, and no difference is found."""
    for wakes in (True, False):
        with rig() as g:
            rules = Rules(g)
            handshake(g, now=2)
            g.feed("primary_in", made)
            g.run(now=3)
            assert g.take("outdev") == []
            rules.change(add={"web": {"action": "pass", "source_port": 80}})
            if wakes:
                g.feed("primary_in", made)
            g.run(now=3 + (0 if wakes else 3100 * MS))
            assert g.take("outdev") == [made] * (1 + wakes)
            c = check(g)
            assert (c["divergences"], c["held"]) == (0, 0)
            audit(g)


def test_a_connection_whose_pass_rule_is_gone_is_compared_again() -> None:
    """From where the primary is then; a difference after that is found."""
    with rig() as g:
        rules = Rules(g, web=PASS_TCP)
        handshake_frames = seg(1000, flags=SYN | ACK)
        assert both(g, 2, handshake_frames, seg(500, flags=SYN | ACK)) == [handshake_frames]
        assert both(g, 3, seg(1001, b"one"), seg(1001, b"two")) == [seg(1001, b"one")]
        rules.change(delete="web")
        assert both(g, 4, seg(1004, b"same")) == [seg(1004, b"same")]
        assert check(g)["released"] >= 1
        assert both(g, 5, seg(1008, b"here"), seg(1008, b"hare")) == []
        assert check(g)["diverged_payload"] == 1
        audit(g)


CHANGES = [
    {"add": {"web": PASS_TCP}},
    {"add": {"m": {"action": "mask", "regex": "a(b*)"}}},
    {"add": {"dns": {"action": "pass", "protocol": "udp"}}},
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["p", "s", "both", "rules", "idle"]), st.integers(0, 3)), max_size=40))
def test_no_packet_is_lost_or_repeated_while_rules_come_and_go(steps: list[tuple[str, int]]) -> None:
    """TCP and UDP of two replicas that agree, rules added and deleted at any time: all of the primary's leave, once."""
    with rig() as g:
        rules = Rules(g)
        handshake(g, now=2)
        seqs = {"primary_in": [1001, 0], "secondary_in": [1001, 0]}
        sent: list[bytes] = []
        left: list[bytes] = []
        now = 10

        def say(side: str, kind: int) -> None:
            at = seqs[side]
            if kind % 2:
                frame = udp_frame(SERVER, CLIENT, 80, 9, b"%06d" % at[1])
                at[1] += 1
            else:
                frame = seg(at[0], b"ab%04d" % at[0])
                at[0] += 6
            g.feed(side, frame)
            if side == "primary_in":
                sent.append(frame)

        for what, n in steps:
            now += MS // 10
            if what == "rules":
                if rules.book.rules.kept and n == 3:
                    rules.change(delete=rules.book.rules.kept[0].name)
                else:
                    new = CHANGES[n % 3]["add"]
                    rules.change(add={k: v for k, v in new.items() if k not in rules.book.rules})
            for side, letter in (("primary_in", "p"), ("secondary_in", "s")):
                if what in (letter, "both"):
                    say(side, n)
            g.run(now=now)
            left += g.take("outdev")
            check(g)
            audit(g)
        while seqs["secondary_in"][0] < seqs["primary_in"][0]:
            say("secondary_in", 0)
        while seqs["secondary_in"][1] < seqs["primary_in"][1]:
            say("secondary_in", 1)
        g.run(now=now + 1)
        g.run(now=now + 3100 * MS)  # what waited for a secondary that was dropped by a rule goes by a request
        g.command(layout.CMD_CHECKPOINT, int(g.segment.w[layout.CMD_CHECKPOINT]) + 1)
        g.run(now=now + 3200 * MS)
        left += g.take("outdev")
        assert sorted(left) == sorted(sent)
        c = check(g)
        assert c["held"] == 0
        for number in (6, 17):
            of = [f for f in left if f[23] == number]
            assert of == [f for f in sent if f[23] == number]


def test_the_supervisor_writes_rules_where_the_kernel_reads_them() -> None:
    """Both find the place on their own."""
    with rig() as g:
        assert int(g.stage.w[options.RULES]) == Rules(g).book.areas["comp0"].at
