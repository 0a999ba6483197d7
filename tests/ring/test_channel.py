"""Rings from plain Python: what goes right, and every way to use them wrongly."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

import ring
from ring import errors, layout, segment
from ring.channel import Ring
from tests.ring.children import Child, until
from tests.ring.names import fresh

SHM = Path("/dev/shm")


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_frames_come_out_as_they_went_in() -> None:
    """Single frames, many at once, the empty frame and the largest one arrive whole and in order."""
    frames = [b"", b"x", b"hello", bytes(range(256)) * 272]
    assert len(frames[-1]) == layout.MAX_FRAME
    with ring.create(fresh(), "256KiB") as r, r.producer("p") as p, r.consumer("c") as c:
        for frame in frames:
            assert p.send(frame)
        assert [c.recv() for _ in frames] == frames
        assert p.send_many(frames) == len(frames)
        assert c.recv_many(100) == frames
        assert c.recv(0) is None
        assert c.recv_many(5, 0.01) == []


def test_a_ring_with_v_keeps_the_header_with_its_frame() -> None:
    """On a vnet ring a virtio-net header of 12 bytes arrives with its frame; one longer than its frame is refused."""
    with ring.create(fresh(), "64KiB", vnet=True) as r, r.producer() as p, r.consumer() as c:
        assert r.vnet
        p.send(b"h" * 12 + b"frame", vnet_hdr_len=12)
        assert int.from_bytes(r.u8[layout.PAGE + 4 : layout.PAGE + 8].tobytes(), "big") == 12
        assert c.recv() == b"h" * 12 + b"frame"
        with pytest.raises(errors.BadFrame, match="header of 6 bytes in a frame of 5"):
            p.send(b"frame", vnet_hdr_len=6)


def test_a_full_ring_is_no_error() -> None:
    """send with a timeout and try_send say False where there is no room, send_many how many went in."""
    with ring.create(fresh(), 4096) as r, r.producer() as p, r.consumer() as c:
        assert p.send(b"x" * 4092)
        assert r.used == 4096
        assert p.try_send(b"") is False
        assert p.send(b"", 0.01) is False
        assert p.send_many([b"a", b"b"], 0) == 0
        assert c.recv() == b"x" * 4092
        assert p.send_many([b"y" * 1020] * 5, 0) == 4
        assert len(c.recv_many(10)) == 4


@pytest.mark.parametrize("name", ["", "/x", ".x", "a/b", "a b", "x" * 202, "ü", "a\0"])
def test_a_bad_name_is_refused(name: str) -> None:
    """BadName quotes the name."""
    for use in (ring.create, ring.attach, ring.unlink):
        with pytest.raises(errors.BadName, match=re.escape(repr(name))):
            use(name)


@pytest.mark.parametrize("size", [0, 100, 5000, "3KiB", "many"])
def test_a_bad_size_is_refused(size: int | str) -> None:
    """BadSize, and no segment is made."""
    name = fresh()
    with pytest.raises(errors.BadSize):
        ring.create(name, size)
    assert not (SHM / name).exists()


def test_a_name_that_is_taken_says_by_whom() -> None:
    """A live owner, one that died, another program: SegmentExists tells them apart, and takes nothing away."""
    name = fresh()
    with ring.create(name, 4096):
        with pytest.raises(errors.SegmentExists, match=rf"{name} exists: pid {os.getpid()} owns it"):
            ring.create(name, 4096)
        assert (SHM / name).exists()

    def make_and_die() -> None:
        kept = ring.create(name, 4096)
        os._exit(0 if kept.size else 1)

    with Child(make_and_die) as child:
        child.wait()
    with pytest.raises(errors.SegmentExists, match=rf"pid {child.pid}, is gone; ring.unlink\('{name}'\)"):
        ring.create(name, 4096)
    assert ring.unlink(name) is True
    assert ring.unlink(name) is False
    (SHM / name).write_bytes(b"somebody's data")
    with pytest.raises(errors.SegmentExists, match="another program uses the name"):
        ring.create(name, 4096)
    assert (SHM / name).read_bytes() == b"somebody's data"
    (SHM / name).unlink()


def test_a_missing_ring_is_an_error_that_names_it() -> None:
    """SegmentMissing."""
    name = fresh()
    with pytest.raises(errors.SegmentMissing, match=name):
        ring.attach(name)


@pytest.mark.parametrize("length", [0, 10, 4096, 8192])
def test_a_segment_that_is_not_ours_is_refused(length: int) -> None:
    """LayoutMismatch names it, and no descriptor stays open."""
    name = fresh()
    (SHM / name).write_bytes(b"\1" * length)
    before = _descriptors()
    with pytest.raises(errors.LayoutMismatch, match=name):
        ring.attach(name)
    assert _descriptors() == before
    (SHM / name).unlink()


def test_a_ring_of_another_layout_version_is_refused() -> None:
    """LayoutMismatch says both versions."""
    name, ours = fresh(), layout.LAYOUT_VERSION
    with ring.create(name, 4096) as r:
        r.w[layout.VERSION] = ours + 1
        text = rf"{name} has layout version {ours + 1}, this program speaks {ours}"
        with pytest.raises(errors.LayoutMismatch, match=text):
            ring.attach(name)


def test_a_header_that_lies_about_the_size_is_refused() -> None:
    """A size that is not the segment's, LayoutMismatch with both."""
    with ring.create(fresh(), 4096) as r:
        r.w[layout.SIZE] = 8192
        with pytest.raises(errors.LayoutMismatch, match="8,192 bytes long, its header says 8,192 of data"):
            ring.attach(r.name)
        r.w[layout.SIZE] = 4096


def test_a_frame_over_the_limit_or_the_ring_is_refused() -> None:
    """FrameTooLarge with the frame's size and the limit; what the ring holds is untouched."""
    with ring.create(fresh(), 4096) as r, r.producer() as p, r.consumer() as c:
        p.send(b"before")
        with pytest.raises(errors.FrameTooLarge, match=r"69,633 bytes: the largest is 69,632"):
            p.send(b"x" * 69_633)
        with pytest.raises(errors.FrameTooLarge, match=rf"4,093 bytes: ring {r.name} holds 4,096"):
            p.try_send(b"x" * 4093)
        with pytest.raises(errors.BadFrame, match="header of 4 bytes in a frame of 6"):
            p.send(b"vframe", vnet_hdr_len=4)
        assert c.recv_many(10) == [b"before"]


def test_a_second_producer_or_consumer_is_refused() -> None:
    """EndTaken names ring, end and pid: in this process, in another, through a forked copy; a free end may be taken."""
    with ring.create(fresh(), 4096) as r, r.producer(), r.consumer():
        for make, word in ((r.producer, "producer"), (r.consumer, "consumer")):
            with pytest.raises(errors.EndTaken, match=rf"{r.name} has a {word} already: pid {os.getpid()};"):
                make()

        def try_both() -> None:
            for copy in (r, ring.attach(r.name)):
                for make in (copy.producer, copy.consumer):
                    with pytest.raises(errors.EndTaken):
                        make()

        with Child(try_both) as child:
            assert child.wait() == 0
    with ring.create(fresh(), 4096) as r:
        r.producer().close()
        with r.producer("second"):
            assert bytes(r.u8[layout.NAMES_BYTE : layout.NAMES_BYTE + 7]) == b"second\0"


def test_an_end_whose_process_died_may_be_taken() -> None:
    """kill -9 of the producer frees its end at once, for whoever comes next; what it had published stays."""
    with ring.create(fresh(), 4096) as r, r.consumer() as c:

        def produce() -> None:
            p = ring.attach(r.name).producer()
            p.send(b"last words")
            until(lambda: False, "the end")

        with Child(produce) as child:
            assert c.recv() == b"last words"
            with pytest.raises(errors.EndTaken, match=f"pid {child.pid};"):
                r.producer()
            child.kill()
            with r.producer() as p:
                p.send(b"next")
            assert c.recv() == b"next"


def test_a_reused_pid_is_not_the_old_process() -> None:
    """An end claimed by a pid that now has another start time counts as free."""
    with ring.create(fresh(), 4096) as r:
        started = segment.process_start(os.getpid())
        r.w[layout.P_PID], r.w[layout.P_START] = os.getpid(), started - 1
        with r.producer() as p, r.consumer() as c:
            assert (int(r.w[layout.P_PID]), int(r.w[layout.P_START])) == (os.getpid(), started)
            p.send(b"mine")
            assert c.recv(0) == b"mine"


def test_two_processes_that_claim_at_once_do_not_both_win() -> None:
    """The claim is made under a lock: of many racing processes exactly one gets the end."""
    with ring.create(fresh(), 4096) as r, r.consumer() as c:

        def claim() -> None:
            try:
                r.producer().send(b"mine")
            except errors.EndTaken:
                os._exit(3)
            until(lambda: False, "the end")

        children = [Child(claim) for _ in range(6)]
        try:
            assert c.recv() == b"mine"
            until(lambda: sum(child.ended() for child in children) == 5, "five losers")
            assert c.recv(0) is None
        finally:
            codes = sorted(child.kill() for child in children)
        assert codes == [-9, 3, 3, 3, 3, 3]


def test_a_closed_end_and_a_closed_ring_say_so() -> None:
    """RingClosed names the ring; closing twice is fine."""
    r = ring.create(fresh(), 4096)
    p, c = r.producer(), r.consumer()
    p.close()
    p.close()
    with pytest.raises(errors.RingClosed, match=r.name):
        p.send(b"x")
    r.close()
    r.close()
    for use in (lambda: c.recv(0), lambda: r.used, r.producer):
        with pytest.raises(errors.RingClosed, match=r.name):
            use()
    assert "closed" in repr(r)


def test_the_last_frames_come_before_the_close() -> None:
    """A consumer gets what was sent before the owner closed, then RingClosed; iteration ends there."""
    r = ring.create(fresh(), 4096)
    other = ring.attach(r.name)
    with r.producer() as p:
        p.send_many([b"1", b"2", b"3"])
    c = other.consumer()
    r.close()
    assert c.recv() == b"1"
    assert list(c) == [b"2", b"3"]
    with pytest.raises(errors.RingClosed):
        c.recv(0)
    with pytest.raises(errors.RingClosed):
        other.producer().send(b"x")
    other.close()


@pytest.mark.parametrize("end", ["producer", "consumer"])
def test_a_peer_that_sleeps_hears_of_the_close(end: str) -> None:
    """A producer asleep on a full ring and a consumer asleep on an empty one get RingClosed when the owner closes."""
    r = ring.create(fresh(), 4096)

    def sleep_on_it() -> None:
        with ring.attach(r.name) as mine, pytest.raises(errors.RingClosed):  # noqa: PT012
            if end == "producer":
                mine.producer().send_many([b"x" * 2000] * 9)
            else:
                mine.consumer().recv()

    with Child(sleep_on_it) as child:
        asleep = layout.P_ASLEEP if end == "producer" else layout.C_ASLEEP
        until(lambda: r.w[asleep] == 1, "a sleeper")
        r.close()
        assert child.wait() == 0


def test_a_record_that_is_none_is_an_error_and_not_a_short_frame() -> None:
    """A length beyond what is published raises BadRecord with the length."""
    with ring.create(fresh(), 4096) as r, r.producer() as p, r.consumer() as c:
        p.send(b"abc")
        r.u8[layout.PAGE + 3] = 200
        with pytest.raises(errors.BadRecord, match="a frame of 200 bytes"):
            c.recv()


def test_a_ring_that_is_forgotten_is_taken_down_with_a_warning() -> None:
    """Garbage collection of an unclosed ring warns, frees its ends and removes the segment of its owner."""
    before = _descriptors()
    r = ring.create(fresh(), 4096)
    name, kept = r.name, r.w[:8]
    ends = r.producer(), r.consumer()
    with pytest.warns(ResourceWarning, match=f"ring {name} was never closed"):  # noqa: PT031
        del r, ends
        gc.collect()
    assert not (SHM / name).exists()
    assert _descriptors() == before
    assert kept[layout.STATE] == layout.RING_CLOSED  # a view that somebody kept is no wild access


def test_a_program_that_forgets_its_ring_leaves_nothing() -> None:
    """A process that ends by an exception, with rings at module level, removes its segments."""
    name = fresh()
    code = f"import ring; r = ring.create({name!r}, 4096); p = r.producer(); p.send(b'x'); raise SystemExit(5)"
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 5
    assert not (SHM / name).exists()


def test_a_forked_child_leaves_its_parent_s_ring_alone() -> None:
    """A child that closes or drops its copy neither removes the segment nor gives up an end, and cannot use the end."""
    with ring.create(fresh(), 4096) as r, r.producer() as p, r.consumer() as c:

        def meddle() -> None:
            with pytest.raises(errors.EndTaken, match="is the parent process's"):
                p.send(b"from the child")
            with pytest.raises(errors.EndTaken, match="is the parent process's"):
                c.recv(0)
            c.close()
            r.close()

        with Child(meddle) as child:
            assert child.wait() == 0
        p.send(b"still here")
        assert c.recv() == b"still here"
        with ring.attach(r.name) as other, pytest.raises(errors.EndTaken):
            other.producer()


def test_a_forked_child_may_take_a_free_end_of_the_copy() -> None:
    """The child produces through the Ring object that it inherited, and gives the end back when it closes."""
    with ring.create(fresh(), 4096) as r, r.consumer() as c:

        def produce() -> None:
            with r.producer() as p:
                p.send(b"from the child")

        for _ in range(2):
            with Child(produce) as child:
                assert c.recv() == b"from the child"
                assert child.wait() == 0
        assert r.w[layout.P_PID] == 0


def test_a_name_that_cannot_be_mapped_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where address space runs out in the middle of create or attach, name and descriptors are gone again."""
    with ring.create(fresh(), 4096) as r:
        before = _descriptors()

        def no_memory(*args: object) -> int:
            raise OSError(12, "mmap: Cannot allocate memory")

        monkeypatch.setattr(segment.Arena, "_mmap", staticmethod(no_memory))
        name = fresh()
        with pytest.raises(OSError, match="Cannot allocate"):
            ring.create(name, 4096)
        with pytest.raises(OSError, match="Cannot allocate"):
            ring.attach(r.name)
        assert not (SHM / name).exists()
        assert _descriptors() == before


def test_an_interrupt_while_memory_is_reserved_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in create goes through, and the half-made segment is removed."""

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", interrupt)
    name, before = fresh(), _descriptors()
    with pytest.raises(KeyboardInterrupt):
        ring.create(name, 4096)
    assert not (SHM / name).exists()
    assert _descriptors() == before


def test_a_segment_is_for_its_user_only() -> None:
    """Mode 0600."""
    with ring.create(fresh(), 4096) as r:
        assert (SHM / r.name).stat().st_mode & 0o777 == 0o600


def test_a_closed_ring_is_not_kept_alive() -> None:
    """A closed ring is freed with its last reference: its finalizer makes no cycle that needs the collector."""
    gc.disable()
    try:
        r: Ring | None = ring.create(fresh(), 4096)
        assert r is not None
        gone = weakref.ref(r)
        r.close()
        r = None
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("frame", ["text", None, 7, ["a"]])
def test_what_is_no_frame_is_refused_by_name(frame: Any) -> None:
    """BadFrame shows the value, and the ring is as before."""
    with ring.create(fresh(), 4096) as r, r.producer() as p, r.consumer() as c:
        with pytest.raises(errors.BadFrame, match=re.escape(repr(frame))):
            p.send(frame)
        with pytest.raises(errors.BadFrame, match=re.escape(repr(frame))):
            p.send_many([b"good", frame])
        assert r.used == 0
        p.send(b"next")
        assert c.recv(0) == b"next"


def test_a_frame_is_the_bytes_of_a_view_whatever_its_items() -> None:
    """A memoryview of four-byte items is as long as its bytes, not as its items."""
    with ring.create(fresh(), 4096) as r, r.producer() as p, r.consumer() as c:
        p.send(memoryview(b"abcdefgh").cast("I"))
        p.send(bytearray(b"array"))
        assert c.recv_many(9, 0) == [b"abcdefgh", b"array"]


def test_a_negative_header_length_is_refused() -> None:
    """BadFrame, not an overflow."""
    with ring.create(fresh(), 4096, vnet=True) as r, r.producer() as p, pytest.raises(errors.BadFrame, match="-1"):
        p.send(b"frame", vnet_hdr_len=-1)


def test_a_name_that_is_no_text_is_refused() -> None:
    """BadName with the value."""
    with pytest.raises(errors.BadName, match="5"):
        ring.create(5, 4096)  # type: ignore[arg-type]
