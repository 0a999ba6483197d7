"""Doorbells: a byte in a pipe that its owner sleeps on."""

from __future__ import annotations

import os
import select

import numpy as np
import pytest

from ring import layout
from ring.doorbell import Doorbell, Ringer
from tests.ring.children import Child


def _rung(bell: Doorbell, timeout_ms: int = 0) -> bool:
    poller = select.poll()
    poller.register(bell.fd, select.POLLIN)
    return bool(poller.poll(timeout_ms))


@pytest.fixture
def no_descriptor_left() -> object:
    """Descriptors before and after are the same."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_ring_from_another_process_wakes_the_sleeper() -> None:
    """What stands in the header is enough for any process of the same user to ring."""
    bell = Doorbell()
    w = np.zeros(512, np.int64)
    bell.announce(w, layout.C_ASLEEP)
    assert not _rung(bell)

    def ring_it() -> None:
        ringer = Ringer()
        assert ringer.ring(os.getppid(), int(w[layout.C_BELL_FD]), int(w[layout.C_BELL_INO]))

    with Child(ring_it) as child:
        assert _rung(bell, 60_000)
        assert child.wait() == 0
    bell.drain()
    assert not _rung(bell)
    bell.close()
    bell.close()


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_bell_rung_a_hundred_thousand_times_blocks_nobody() -> None:
    """A full pipe is as good as one byte: the ringer goes on, one drain empties it."""
    bell, ringer = Doorbell(), Ringer()
    for _ in range(100_000):
        assert ringer.ring(os.getpid(), bell._write, bell.inode)
    bell.drain()
    assert not _rung(bell)
    bell.drain()
    ringer.close()
    bell.close()


@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize("pid", [0, -1, 1 << 22])
def test_a_bell_of_nobody_is_no_error(pid: int) -> None:
    """No such process: False, and nothing is opened."""
    ringer = Ringer()
    assert ringer.ring(pid, 0, 0) is False
    assert not ringer._open
    ringer.close()


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_descriptor_that_is_something_else_by_now_is_not_written_to(tmp_path: object) -> None:
    """A reused descriptor number, a file or another pipe, is recognised by its inode and left alone."""
    ringer, bell = Ringer(), Doorbell()
    with open(f"{tmp_path}/file", "wb") as file:
        assert not ringer.ring(os.getpid(), file.fileno(), os.fstat(file.fileno()).st_ino)
        assert not ringer.ring(os.getpid(), bell._write, bell.inode + 1)
    assert not _rung(bell)
    assert os.path.getsize(f"{tmp_path}/file") == 0
    assert ringer.ring(os.getpid(), bell._write, bell.inode)  # a failure before is not held against it
    ringer.close()
    bell.close()


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_neighbour_that_restarts_costs_no_descriptors() -> None:
    """Bells of dead incarnations are closed when the next one is opened."""
    ringer = Ringer()
    for _ in range(20):
        bell = Doorbell()
        assert ringer.ring(os.getpid(), bell._write, bell.inode)
        bell.close()
        assert len(ringer._open) <= 2
    ringer.close()


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_ring_after_the_owner_died_is_false() -> None:
    """A cached bell whose reader is gone is dropped without SIGPIPE."""
    bell, ringer = Doorbell(), Ringer()
    address = os.getpid(), bell._write, bell.inode
    assert ringer.ring(*address)
    bell.close()
    assert ringer.ring(*address) is False
    assert not ringer._open
    ringer.close()
