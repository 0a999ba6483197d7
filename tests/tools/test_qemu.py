"""QEMU as a peer: frames through its compare and its filters, and a clear word where it is missing."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

import pytest

from tests.packets import checksum_faults, udp_frame
from tools import qemu

needs_qemu = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")
FRAME = udp_frame("10.0.0.1", "10.0.0.9", 53, 40000, b"the same on both sides")


@needs_qemu
def test_equal_packets_are_released_once_and_a_difference_asks_for_a_checkpoint() -> None:
    assert checksum_faults(FRAME) == []
    other = udp_frame("10.0.0.1", "10.0.0.9", 53, 40000, b"not the same as before")
    with qemu.compare(compare_timeout=3_600_000) as q:
        q.links["primary_in"].send(FRAME)
        assert q.links["outdev"].take() == []
        q.links["secondary_in"].send(FRAME)
        assert q.links["outdev"].take(1) == [FRAME]
        q.links["primary_in"].send(FRAME)
        q.links["secondary_in"].send(other)
        assert q.links["notify"].take(1) == [b"DO_CHECKPOINT"]
        q.links["notify"].send(b"COLO_CHECKPOINT")
        assert q.links["outdev"].take(1) == [FRAME]


@needs_qemu
def test_filters_pass_between_net_and_guest_and_mirror_to_a_chardev() -> None:
    with qemu.filters(["filter-mirror,id=m0,queue=tx,outdev=mirror0"], ["mirror0"]) as q:
        q.links["net"].send(FRAME)
        assert q.links["guest"].take(1) == [FRAME]
        assert q.links["mirror0"].take(1) == [FRAME]
        q.links["guest"].send(FRAME)
        assert q.links["net"].take(1) == [FRAME]
        assert q.links["mirror0"].take() == []


@needs_qemu
def test_nothing_is_left_behind() -> None:
    with qemu.compare() as q:
        pid, folder = q.pid, q._folder.name
    assert not os.path.exists(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_qemu
def test_a_wrong_object_is_an_error_with_qemus_words() -> None:
    with pytest.raises(qemu.QemuError, match="filter-nonsense"):
        qemu.filters(["filter-nonsense,id=x0"])


def test_a_missing_qemu_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLO_QEMU", "/nowhere/qemu")
    assert not qemu.available()
    with pytest.raises(qemu.QemuError, match="apt-get install qemu-system-x86"):
        qemu.compare()


def test_a_link_takes_whole_frames_out_of_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = qemu.Link("x", ours, vnet=True)
        record = (12).to_bytes(4, "big") + (10).to_bytes(4, "big") + bytes(12)
        theirs.sendall(record[:5])
        assert link.take() == []
        theirs.sendall(record[5:] + record)
        assert link.take(2) == [bytes(12)] * 2
        link.send(b"abc", vnet_hdr_len=2)
        assert theirs.recv(100) == b"\0\0\0\x03\0\0\0\x02abc"
        theirs.sendall((70_000).to_bytes(4, "big") + bytes(4))
        with pytest.raises(qemu.QemuError, match="70,000 bytes"):
            link.take()


def test_a_stream_that_ends_inside_a_frame_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\0\0\0\x09half")
        theirs.close()
        with pytest.raises(qemu.QemuError, match="8 bytes of it"):
            qemu.Link("x", ours).take(1)


@needs_qemu
def test_another_is_started_where_one_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on a busy machine: QEMU reads the monitor's first command and is silent for ever."""
    real, silent, started = qemu.Qmp, 2, list[Any]()

    def deaf(sock: socket.socket, patience: float) -> qemu.Qmp:
        nonlocal silent
        if silent:
            silent -= 1
            sock.close()
            raise TimeoutError("timed out")
        return real(sock, patience)

    popen = subprocess.Popen

    def noted(*arguments: Any, **more: Any) -> Any:
        process = popen(*arguments, **more)
        started.append(process)
        return process

    monkeypatch.setattr(qemu, "Qmp", deaf)
    monkeypatch.setattr(qemu.subprocess, "Popen", noted)
    with qemu.filters(["filter-mirror,id=m0,queue=tx,outdev=mirror0"], ["mirror0"]) as q:
        assert [p.poll() is None for p in started] == [False, False, True]
        q.links["net"].send(bytes(60))
        assert q.links["guest"].take(1) == [bytes(60)]
