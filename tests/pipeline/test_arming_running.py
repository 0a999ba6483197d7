"""A running pipeline whose secondary answers nothing, or whose checkpoints nobody makes: what people see of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline import control, graph
from tests.packets import ACK, SYN, arp_frame, tcp_frame
from tests.pipeline.running import Running, frame, read_frames, until

CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.p]
backend = "socket"
path = "{folder}/p"
server = true
[chardev.s]
backend = "socket"
path = "{folder}/s"
server = true
[chardev.o]
backend = "socket"
path = "{folder}/o"
server = true
[compare.comp0]
primary_in = "p"
secondary_in = "s"
outdev = "o"
{more}
"""
NOTIFY = 'notify_dev = "n"\n[chardev.n]\nbackend = "socket"\npath = "{folder}/n"\nserver = true\n'
SERVER, CLIENT = "10.0.0.1", "10.0.0.9"
ASK, DONE = b"DO_CHECKPOINT", b"COLO_CHECKPOINT"


def opens(port: int, isn: int = 1000) -> bytes:
    """The server's answer to a client that connects."""
    return tcp_frame(SERVER, CLIENT, 80, port, seq=isn, ack=1, flags=SYN | ACK)


def data(port: int, text: bytes) -> bytes:
    """Its first bytes."""
    return tcp_frame(SERVER, CLIENT, 80, port, seq=1001, ack=1, flags=ACK, payload=text)


class Pair(Running):
    """A compare in a pipeline, with a primary, a secondary that is in step, and the network as its peers."""

    p: socket.socket
    s: socket.socket
    o: socket.socket

    def counter(self, name: str) -> int:
        """A counter of the compare."""
        return int(self.status()["counters"]["comp0"][name])

    def says(self) -> list[str]:
        """Why it is not healthy."""
        return list(self.status()["reasons"])

    def answered(self, port: int) -> None:
        """A client connects, and both replicas answer."""
        self.p.sendall(frame(opens(port)))
        self.s.sendall(frame(opens(port, 77)))
        assert read_frames(self.o, 1) == [opens(port)]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of that event, once there is one."""
        return until(lambda: [line for line in self.events() if line["event"] == event], event)  # type: ignore[no-any-return]


@contextmanager
def pair(folder: Path, more: str) -> Iterator[Pair]:
    """All connected, the secondary first."""
    with Pair(folder, more=more.replace("{folder}", str(folder)), config=CONFIG) as it:
        it.running()
        with it.connect("s") as it.s, it.connect("p") as it.p, it.connect("o") as it.o:
            it.s.sendall(frame(arp_frame(SERVER, CLIENT)))
            until(lambda: it.counter("arming_state") == 2, "the secondary is in step")
            yield it


def test_a_secondary_that_answers_nothing_costs_the_first_clients_time_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each connection waited compare_timeout, without end.  It comes back with its first answer."""
    with pair(tmp_path, 'checkpoint = "local"\ncompare_timeout = 200\nsilence_timeout = 600\n') as it:
        port = 4000
        while it.stage("comp0")["arming"] == "in step":
            it.p.sendall(frame(opens(port)))
            assert read_frames(it.o, 1) == [opens(port)]
            port += 1
        paid = it.counter("diverged_timeout")
        assert 1 <= paid <= 4
        for late in range(5000, 5020):
            it.p.sendall(frame(opens(late)))
            assert read_frames(it.o, 1) == [opens(late)]
        assert (it.counter("diverged_timeout"), it.counter("silences")) == (paid, 1)
        assert it.counter("released_unarmed") >= 20
        assert control.main(["--runtime-dir", str(tmp_path), it.name, "status"]) == 1
        assert "comp0: the secondary has answered nothing for " in capsys.readouterr().out
        (line,) = it.logged("secondary answers nothing: the primary's packets leave uncompared until it does")
        assert line["since"]
        it.s.sendall(frame(opens(5019, 77)))
        until(lambda: it.stage("comp0")["arming"] == "in step", "back in step")
        it.answered(6000)
        assert it.counter("matched") == 1 and it.status()["health"] == "healthy"


def test_without_a_notify_dev_it_is_said_at_the_start_and_a_difference_costs_the_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first page that differed stalled its client for ever, without a word."""
    with pair(tmp_path, "checkpoint_timeout = 500\n") as it:
        (line,) = it.logged("this may not be meant")
        assert line["key"] == "compare.comp0.notify_dev" and 'checkpoint = "local"' in line["hint"]
        assert graph.main([str(it.config)]) == 0
        assert "warning: compare.comp0.notify_dev: missing" in capsys.readouterr().err
        it.answered(4000)
        it.p.sendall(frame(data(4000, b"one")))
        it.s.sendall(frame(data(4000, b"two")))
        assert read_frames(it.o, 1) == [data(4000, b"one")]
        assert any(
            said.startswith("comp0: has waited ") and "nobody is joined; connections that differ go on" in said
            for said in it.says()
        )
        assert len(it.logged("no checkpoint: what waits goes on uncompared until one is made")) == 1
        it.answered(4001)  # others are compared
        assert it.ask("checkpoint")["ok"]
        until(lambda: it.status()["health"] == "healthy", "healthy with the checkpoint")


def test_a_frame_that_joins_late_is_asked_and_nothing_was_let_go_before(tmp_path: Path) -> None:
    """checkpoint_overdue = "wait", as in QEMU: nobody is there, then somebody who takes his time."""
    with pair(tmp_path, 'checkpoint_overdue = "wait"\ncheckpoint_timeout = 1\ncompare_timeout = 500\n' + NOTIFY) as it:
        assert "this may not be meant" not in it.text()
        it.answered(4000)
        it.p.sendall(frame(data(4000, b"one")))
        it.s.sendall(frame(data(4000, b"two")))
        until(lambda: any("for a checkpoint; nobody is joined" in said for said in it.says()), "it is said")
        assert len(it.logged("a checkpoint is asked for, but nobody is joined who could make it")) == 1
        with it.connect("n") as n:
            assert read_frames(n, 1) == [ASK]
            until(lambda: any("the frame at notify_dev does not answer" in said for said in it.says()), "it is slow")
            assert it.counter("held_primary") == 1
            n.sendall(frame(DONE))
            assert read_frames(it.o, 1) == [data(4000, b"one")]
            until(lambda: it.status()["health"] == "healthy", "healthy")
        assert it.counter("checkpoints_given_up") == 0
