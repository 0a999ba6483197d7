"""Named shared memory, its space, and the arena."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ring import errors, layout, segment
from tests.ring.children import Child
from tests.ring.names import fresh

ROOT = Path(__file__).resolve().parents[2]

FULL = """
import os, ring
from ring import errors, hot  # which holds the directory of compiled code for as long as the process lives
from ring.ledger import StageSegment
before = set(os.listdir("/proc/self/fd"))
small = ring.create("fits", "64KiB")
for make in (lambda: ring.create("big", "4MiB"), lambda: StageSegment.create("big", 1 << 20)):
    try:
        make()
    except errors.NoSpace as error:
        print(error)
    else:
        raise SystemExit("no error")
assert os.listdir("/dev/shm") == ["fits"], os.listdir("/dev/shm")
with small.producer() as p, small.consumer() as c:
    p.send(b"still works")
    assert c.recv() == b"still works"
small.close()
assert os.listdir("/dev/shm") == []
assert set(os.listdir("/proc/self/fd")) == before
"""


def test_a_full_dev_shm_is_a_clear_error_and_not_a_sigbus() -> None:
    """On a /dev/shm of 1 MiB: NoSpace says what is needed and what is free, nothing remains, what fitted goes on."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1) for a small /dev/shm of its own")
    command = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec {sys.executable} -W error -"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", command],
        cwd=ROOT,
        input=FULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "Operation not permitted" in done.stderr or "permission denied" in done.stderr:
        pytest.skip(f"this container does not let root mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    one, two = done.stdout.splitlines()
    assert "/dev/shm cannot hold big: 4,198,400 bytes needed, " in one
    assert "8,388,608 bytes needed" in two
    assert "No space left on device" in one


def test_process_start_names_one_process_for_good() -> None:
    """It is the same at every call, 0 for nobody and for a zombie, and `alive` needs the pair."""
    start = segment.process_start(os.getpid())
    assert start == segment.process_start(os.getpid()) > 0
    assert segment.alive(os.getpid(), start)
    assert not segment.alive(os.getpid(), start + 1)
    assert not segment.alive(os.getpid(), 0)
    assert not segment.alive(0, 0)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert segment.process_start(pid) == 0  # a zombie works no more
    os.waitpid(pid, 0)
    assert segment.process_start(pid) == 0


def test_a_ring_s_data_is_there_twice() -> None:
    """A byte written at an index appears one size further on, so that a record may run over the end."""
    name = fresh()
    seg = segment.Segment.create(name, layout.PAGE + 8192)
    arena = segment.Arena(segment.ring_span(8192))
    assert arena.map_ring(seg) == 0
    arena.u8[layout.PAGE + 8192 - 2 : layout.PAGE + 8192 + 2] = [1, 2, 3, 4]
    assert list(arena.u8[layout.PAGE : layout.PAGE + 2]) == [3, 4]
    assert list(arena.u8[-2:]) == [1, 2]
    arena.close()
    arena.close()
    seg.close()
    segment.unlink(name)


def test_an_arena_holds_its_segments_side_by_side() -> None:
    """Segments follow each other at whole pages; one too many is refused."""
    names = fresh(), fresh()
    segments = [segment.Segment.create(name, 100 * 8) for name in names]
    arena = segment.Arena(2 * layout.PAGE)
    places = [arena.map_plain(s) for s in segments]
    assert places == [0, layout.PAGE // 8]
    arena.w[places[1]] = 77
    assert arena.w[places[0]] == 0
    with pytest.raises(ValueError, match=r"8,192 bytes has no 800 left"):
        arena.map_plain(segments[0])
    arena.close()
    for s, name in zip(segments, names, strict=True):
        s.close()
        segment.unlink(name)


def _mapped(name: str) -> bool:
    return name in Path("/proc/self/maps").read_text()


def test_an_arena_goes_with_its_last_view() -> None:
    """Views that outlive close() go on seeing the memory; when the last is gone the address space is given back."""
    name = fresh()
    seg = segment.Segment.create(name, layout.PAGE)
    arena = segment.Arena(layout.PAGE)
    arena.map_plain(seg)
    words, raw = arena.w[:4], memoryview(arena.u8)[:8]
    arena.close()
    seg.close()
    words[0] = 1
    assert raw[0] == 1
    assert _mapped(name)
    del words
    gc.collect()
    assert _mapped(name)
    raw.release()
    del raw
    gc.collect()
    assert not _mapped(name)
    segment.unlink(name)


def test_a_kernel_with_other_pages_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pages have 64 KiB the double mapping cannot work: an error says so, instead of EINVAL."""
    monkeypatch.setattr(mmap, "PAGESIZE", 65536)
    with pytest.raises(errors.RingError, match=r"pages of 65,536 bytes"):
        segment.Arena(100)


def test_a_forgotten_descriptor_is_closed() -> None:
    """A Segment that is dropped closes its descriptor."""
    name = fresh()
    fd = segment.Segment.create(name, 4096).fd
    assert not os.path.exists(f"/proc/self/fd/{fd}")
    with Child(lambda: segment.Segment.attach(name).close()) as child:
        assert child.wait() == 0
    segment.unlink(name)
