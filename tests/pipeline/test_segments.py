"""Segments: what is decided about those that a dead supervisor left; made, taken over and removed for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import segments
from pipeline.segments import Found, InUse, Planned, decide, find, open_all
from ring import errors, layout, segment

PLANNED = (Planned("p.r.a", "a", 8192, True), Planned("p.s.m", "m", 16384, False))
LEFT = (Found("p.r.a", 8192, 99, False, 7, True), Found("p.s.m", 16384, 99, False, 7, True))


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **more: Any) -> None:
        """One line."""
        self.lines.append((event, more))


def test_nothing_there_is_no_takeover_and_no_complaint():
    """A first start."""
    assert decide(PLANNED, (), 7, fresh=False) == (False, "")


def test_what_fits_is_taken_over():
    """Same names, sizes, layout and digest, owner dead."""
    assert decide(PLANNED, LEFT, 7, fresh=False) == (True, "")


@pytest.mark.parametrize(
    ("found", "digest", "fresh", "why"),
    [
        (LEFT, 7, True, "--fresh"),
        (LEFT, 8, False, "another config"),
        (LEFT[:1], 7, False, "p.s.m is missing"),
        ((LEFT[0], replace(LEFT[1], good=False)), 7, False, "p.s.m has another layout"),
        ((LEFT[0], replace(LEFT[1], nbytes=8192)), 7, False, "p.s.m has another layout"),
        ((*LEFT, replace(LEFT[0], name="p.r.old")), 7, False, "p.r.old is not in the plan"),
    ],
)
def test_one_that_does_not_fit_removes_all(found: tuple[Found, ...], digest: int, fresh: bool, why: str):
    """All or nothing, with the reason."""
    take, said = decide(PLANNED, found, digest, fresh=fresh)
    assert not take
    assert why in said


@pytest.mark.parametrize("fresh", [False, True])
def test_a_living_owner_is_never_robbed(fresh: bool):
    """Not even by --fresh."""
    with pytest.raises(InUse, match="pid 99"):
        decide(PLANNED, (LEFT[0], replace(LEFT[1], owner_alive=True)), 7, fresh=fresh)


# --- with real segments -----------------------------------------------------------------------------------------


@dataclass
class Real:
    """A plan under a name of its own."""

    name: str
    planned: list[Planned] = field(default_factory=list)
    log: Log = field(default_factory=Log)

    def open(self, digest: int = 7, *, fresh: bool = False) -> segments.Segments:
        """Open all."""
        return open_all(self.name, self.planned, digest, self.log, fresh=fresh)

    def forge_owner(self, pid: int, start: int) -> None:
        """Make the segments belong to another process."""
        for one in find(self.name):
            with open(f"/dev/shm/{one.name}", "r+b") as file:
                file.seek(8 * layout.OWNER_PID)
                file.write(pid.to_bytes(8, "little") + start.to_bytes(8, "little"))


@pytest.fixture
def real() -> Iterator[Real]:
    """A ring and a stage."""
    name = f"seg-{os.getpid()}"
    words = layout.UNDO + 512
    yield Real(
        name,
        [
            Planned(f"{name}.r.m.out", "m.out", layout.PAGE + 65536, True, True, ("m.out", "n.in")),
            Planned(f"{name}.s.m", "m", words * 8, False, status=0, kind="filter-mirror"),
        ],
    )
    for path in Path("/dev/shm").glob(f"{name}.*"):
        path.unlink()


def test_made_segments_have_their_headers_and_go_when_closed(real: Real):
    """Size, framing, owner, names, kind, initial status; nothing is left."""
    opened = real.open()
    ring, stage = opened.rings["m.out"], opened.stages["m"]
    assert (ring.size, ring.used, int(ring.w[layout.VNET])) == (65536, 0, 1)
    assert int(ring.w[layout.OWNER_PID]) == os.getpid()
    assert bytes(ring.w[16:24].tobytes()).rstrip(b"\0") == b"m.out"
    assert int(stage.w[layout.CMD_STATUS]) == 0
    assert stage.kind_name() == "filter-mirror"
    opened.close(unlink=True)
    assert find(real.name) == []


def test_our_own_live_segments_are_in_use(real: Real):
    """The same process counts as an owner that lives."""
    opened = real.open()
    with pytest.raises(InUse, match=f"pid {os.getpid()}"):
        real.open()
    opened.close(unlink=True)


def test_segments_that_somebody_holds_are_in_use_though_their_owners_pid_says_nothing(real: Real):
    """In another pid namespace the owner is not there.  When the last descriptor is closed, nobody holds them."""
    opened = real.open()
    real.forge_owner(2**22 + 1, 1)
    with pytest.raises(InUse, match=f"pid {2**22 + 1} of another pid namespace"):
        real.open()
    opened.close(unlink=False)
    opened = real.open()
    assert opened.taken_over
    opened.close(unlink=True)


def test_taking_over_keeps_the_words_and_changes_the_owner(real: Real):
    """Counters and cursors stay; commands of the dead one do not count."""
    opened = real.open()
    opened.stages["m"].w[layout.STAGE_EPOCH] = 5
    opened.stages["m"].w[layout.CMD_DRAIN] = 1
    opened.rings["m.out"].w[layout.TAIL] = 64
    opened.close(unlink=False)
    real.forge_owner(2**22 + 1, 1)
    opened = real.open()
    assert opened.taken_over
    w = opened.stages["m"].w
    assert (int(w[layout.STAGE_EPOCH]), int(w[layout.CMD_DRAIN]), int(w[layout.OWNER_PID])) == (5, 0, os.getpid())
    assert opened.rings["m.out"].used == 64
    opened.close(unlink=True)


def test_what_was_left_while_draining_is_removed(real: Real):
    """Its producers stopped for good."""
    opened = real.open()
    opened.rings["m.out"].w[layout.TAIL] = 64
    opened.rings["m.out"].move(layout.RING_DRAINING)
    opened.close(unlink=False)
    real.forge_owner(2**22 + 1, 1)
    opened = real.open()
    assert not opened.taken_over
    assert opened.rings["m.out"].used == 0
    assert [event for event, _ in real.log.lines] == ["removed what a dead supervisor left"]
    opened.close(unlink=True)


def test_a_half_made_segment_is_removed(real: Real):
    """A supervisor killed while it made its segments leaves one without a magic word, or empty."""
    Path(f"/dev/shm/{real.planned[0].name}").write_bytes(b"")
    Path(f"/dev/shm/{real.planned[1].name}").write_bytes(bytes(real.planned[1].nbytes))
    opened = real.open()
    assert not opened.taken_over
    opened.close(unlink=True)


def test_a_segment_that_its_owner_is_just_removing_is_not_there(real: Real, monkeypatch: pytest.MonkeyPatch):
    """Between listing it and looking at it."""
    real.open().close(unlink=False)
    attach = segment.Segment.attach

    def vanishing(name: str) -> segment.Segment:
        if name == real.planned[0].name:
            segment.unlink(name)
        return attach(name)

    monkeypatch.setattr(segment.Segment, "attach", vanishing)
    assert [one.name for one in find(real.name)] == [real.planned[1].name]
    segments._wait_for_ends(real.name, (replace(LEFT[0], name=real.planned[0].name),))


def test_another_users_segments_are_a_clear_error(real: Real, monkeypatch: pytest.MonkeyPatch):
    """Not a layout that does not match."""
    opened = real.open()

    def denied(name: str) -> segment.Segment:
        raise errors.LayoutMismatch(f"/dev/shm/{name} belongs to another user")

    with monkeypatch.context() as patched:
        patched.setattr(segment.Segment, "attach", denied)
        with pytest.raises(InUse, match=r"belongs to another user \(/dev/shm/seg-"):
            real.open()
    opened.close(unlink=True)


def test_one_supervisor_at_a_time_and_none_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The lock on the folder is had in turn; past its time the error says who has it."""
    with segments.locked(str(tmp_path)):
        monkeypatch.setattr(segments, "LOCK_S", 0.0)
        with pytest.raises(InUse, match="another supervisor"), segments.locked(str(tmp_path)):
            pass
    with segments.locked(str(tmp_path)):
        pass


def test_a_pipeline_whose_name_begins_alike_is_another(real: Real):
    """Names have no dots, so the first one ends the name."""
    other = segment.Segment.create(f"{real.name}-two.s.m", 8192)
    try:
        assert find(real.name) == []
    finally:
        other.close()
        segment.unlink(f"{real.name}-two.s.m")


def test_too_large_a_plan_makes_nothing_and_says_the_sum(real: Real, monkeypatch: pytest.MonkeyPatch):
    """Before the first segment."""
    monkeypatch.setattr(segment, "free_space", lambda: 50_000)
    with pytest.raises(errors.NoSpace, match=r"bytes needed \(2 segments\), 50,000 free"):
        real.open()
    assert find(real.name) == []
