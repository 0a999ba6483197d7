"""Rules of a running pipeline, through its control socket: nothing is lost while they change, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import control
from stages.compare.rules.rule_set import from_table
from tests.packets import ACK, SYN, arp_frame, read, tcp_frame, udp_frame
from tests.pipeline.running import Running, frame, gone, read_frames, until

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
compare_timeout = 60000
reorder_grace_ms = 60000
checkpoint_overdue = "wait"
{more}
"""
NTP = '[rule.ntp]\naction = "pass"\nprotocol = "udp"\nsource_port = 123\n'
SERVER, CLIENT = "10.0.0.1", "10.0.0.9"


class Set:
    """A pipeline with one compare, and its three peers; ``timeout_ms``: how long a packet waits for its counterpart."""

    def __init__(self, folder: Path, more: str = "", supervisor: str = "", timeout_ms: int = 60_000) -> None:
        config = CONFIG.replace("60000", str(timeout_ms))
        self.it = Running(folder, config=config, more=more, supervisor=supervisor)

    def connect(self) -> None:
        """The secondary first, and it says something that is not compared: it is in step then."""
        self.it.running()
        self.s = self.it.connect("s")
        self.s.sendall(frame(arp_frame(SERVER, CLIENT)))
        until(lambda: self.counter("arming_state") == 2, "the secondary is in step")
        self.p, self.o = self.it.connect("p"), self.it.connect("o")

    def counter(self, name: str) -> int:
        """A counter of the compare."""
        return int(self.it.status().get("counters", {}).get("comp0", {}).get(name, -1))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait; meanwhile be the COLO frame, which makes a checkpoint whenever it is asked for one."""

        def met() -> bool:
            if condition():
                return True
            asked, had = self.counter("checkpoints_asked"), self.counter("checkpoints")
            if asked > had:
                self.it.ask("checkpoint")
                until(lambda: self.counter("checkpoints") > had, "the checkpoint is taken")
            return False

        until(met, what)

    def command(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
        """``pipeline.control``: exit status, what it prints, what it complains of."""
        try:
            code = control.main(["--runtime-dir", str(self.it.folder), self.it.name, "rule", *words])
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return code, said.out.strip(), said.err.strip()

    def close(self) -> None:
        """Leave."""
        for sock in (self.s, self.p, self.o):
            sock.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Set]:
    """A pipeline with one rule in its config, running and connected."""
    one = Set(tmp_path, NTP)
    with one.it:
        one.connect()
        yield one
        one.close()


def test_rules_are_listed_added_and_deleted_through_the_program(made: Set, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables for people and for programs, mistakes with their mend, and what a rule did."""
    packet = udp_frame(SERVER, CLIENT, 123, 4000, b"time")
    made.p.sendall(frame(packet))
    assert read_frames(made.o, 1) == [packet]
    code, shown, _ = made.command(capsys, "list")
    assert code == 0
    heads, row = (line.split() for line in shown.splitlines())
    assert heads == ["RULE", "ACTION", "COMPARE", "CONNECTIONS", "HITS", "MATCH", "MASKS"]
    assert row == ["ntp", "pass", "*", "1", "1", "udp", "*:123", ">", "*:*", "-"]
    words = ["action=mask", "protocol=udp", "source_port=53", "bytes=0-1", "regex=x(y)", "regex=z", "before=ntp"]
    assert made.command(capsys, "add", "dns", *words) == (0, "dns is in force", "")
    first, second = (udp_frame(SERVER, CLIENT, 53, 4000, text) for text in (b"\1\2answer", b"\3\4answer"))
    made.p.sendall(frame(first))
    made.s.sendall(frame(second))
    assert read_frames(made.o, 1) == [first]
    code, shown, _ = made.command(capsys, "list", "--json")
    dns, ntp = json.loads(shown)["rules"]
    assert (dns["name"], dns["hits"], dns["connections"]) == ("dns", 1, 1)
    assert dns["masks"] == ["x(y)", "z", "bytes 0-1"]
    assert (ntp["name"], ntp["match"]) == ("ntp", "udp *:123 > *:*")
    code, shown, _ = made.command(capsys, "list", "--toml")
    tables = tomllib.loads(shown)["rule"]
    assert list(tables) == ["dns", "ntp"]
    assert tables["dns"]["regex"] == ["x(y)", "z"]
    assert [from_table(name, table, ["comp0"])[1] for name, table in tables.items()] == [[], []]
    code, _, error = made.command(capsys, "add", "bad", "action=mask", "regex=a(", "vlan=5000")
    assert code == 1
    assert "2 mistakes" in error
    assert "rule.bad.regex" in error
    assert "rule.bad.vlan" in error
    code, shown, error = made.command(capsys, "add", "all", "action=pass")
    assert (code, shown) == (0, "all is in force")
    assert "warning: rule.all: it lets every packet that no rule before it takes pass uncompared" in error
    assert made.command(capsys, "del", "all") == (0, "all is deleted", "")
    assert made.command(capsys, "del", "nobody")[0] == 2
    assert made.command(capsys, "del", "ntp") == (0, "ntp is deleted", "")
    assert made.command(capsys, "del", "dns")[0] == 0
    assert made.command(capsys, "list") == (0, "no rules", "")
    for wrong in (("add",), ("add", "x", "action"), ("del", "x", "y=z"), ("list", "x"), ("frob",)):
        assert made.command(capsys, *wrong)[0] == 2


def test_a_stopped_compare_refuses_new_rules(made: Set, capsys: pytest.CaptureFixture[str]) -> None:
    """And takes them when it is there again."""
    made.it.ask("stop", id="comp0")
    code, _, error = made.command(capsys, "del", "ntp")
    assert code == 1
    assert "comp0 is stopped" in error
    assert made.it.ask("start", id="comp0")["ok"]
    assert made.command(capsys, "del", "ntp")[0] == 0


def _traffic(count: int) -> list[bytes]:
    """A TCP connection and datagrams, in turn; every packet is different from the others."""
    made = [tcp_frame(SERVER, CLIENT, 80, 4000, seq=999, ack=1, flags=SYN | ACK)]
    for n in range(count):
        made.append(tcp_frame(SERVER, CLIENT, 80, 4000, seq=1000 + 6 * n, ack=1, flags=ACK, payload=b"ab%04d" % n))
        made.append(udp_frame(SERVER, CLIENT, 53, 4000, b"%06d" % n))
    return made


CHANGES = (
    ("add", {"name": "web", "table": {"action": "pass", "protocol": "tcp", "source_port": "80"}}),
    ("add", {"name": "dns", "table": {"action": "mask", "protocol": "udp", "bytes": "0-1"}}),
    ("del", {"name": "web"}),
    ("add", {"name": "date", "table": {"action": "mask", "protocol": "tcp", "regex": "a(b[0-9]*)"}}),
    ("del", {"name": "dns"}),
    ("del", {"name": "date"}),
)


def test_no_packet_is_lost_while_rules_change(tmp_path: Path) -> None:
    """Under traffic of two replicas that agree, the compare killed in the midst: each packet leaves once, in order.

    When a rule that let a connection pass is deleted, what the secondary was ahead is gone: that may take a checkpoint.
    """
    one = Set(tmp_path, supervisor="backoff_initial_ms = 0\nintensity = 50", timeout_ms=2000)
    with one.it:
        one.connect()
        frames = _traffic(150)
        got: list[bytes] = []
        sent = threading.Event()

        def say(sock: socket.socket) -> None:
            for i, packet in enumerate(frames):
                while i - len(got) > 20:  # rules change all along the way, not behind it
                    if sent.wait(0.002):
                        return
                sock.sendall(frame(packet))

        def hear() -> None:
            while len(got) < len(frames):
                got.extend(read_frames(one.o, 1))

        threads = [threading.Thread(target=say, args=(sock,)) for sock in (one.p, one.s)]
        threads.append(threading.Thread(target=hear))
        try:
            for thread in threads:
                thread.start()
            changes = 0
            for n, (what, args) in enumerate(CHANGES):
                one.until(lambda n=n: len(got) > n * len(frames) // 8, "traffic goes on")
                if n in (1, 4):
                    os.kill(one.it.pids()["comp0"], signal.SIGKILL)
                assert one.it.ask("rule", what=what, **args)["ok"]
                changes += 1
            one.until(lambda: len(got) == len(frames), "every packet has left")
        finally:
            sent.set()
            one.o.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(60)
        for protocol in (6, 17):
            assert [f for f in got if read(f).proto == protocol] == [f for f in frames if read(f).proto == protocol]
        # After a checkpoint the secondary's last packets may still be on their way.
        said = len(frames) + 1  # the first is what brought it into step
        one.until(lambda: one.counter("secondary_in_frames") == said, "both replicas were heard to the end")
        one.until(lambda: one.counter("held") == 0, "nothing is held")
        status = one.it.status()
        counters = status["counters"]["comp0"]
        assert counters["primary_in_frames"] == counters["secondary_in_frames"] - 1 == len(frames)
        assert counters["outdev_frames"] == len(frames)
        assert counters["released_by_rule"] > 0
        assert next(s for s in status["stages"] if s["id"] == "comp0")["restarts"] == 2
        one.close()
        one.it.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        one.it.end()
        assert "everything adds up" in one.it.out
    assert changes == len(CHANGES)
    assert one.it.left() == []


def test_rules_outlive_the_supervisor(made: Set, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed, and started again with the same config: what was added at run time is in force still."""
    assert made.command(capsys, "add", "web", "action=pass", "protocol=tcp", "before=ntp")[0] == 0
    assert made.it.process is not None
    stages = made.it.pids().values()
    made.it.process.kill()
    made.it.end()
    until(lambda: all(map(gone, stages)), "the stages are gone")
    with made.it:
        made.it.running()
        code, shown, _ = made.command(capsys, "list")
        assert code == 0
        assert [line.split()[0] for line in shown.splitlines()[1:]] == ["web", "ntp"]
        assert any(event["event"] == "rules taken over" for event in made.it.events())
