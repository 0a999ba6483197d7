"""The control socket: what a client can ask, and that none can hurt or hold the supervisor."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import control, control_server, handlers
from pipeline.children import ChildSpec, Family, Policy, State
from pipeline.control_server import IDLE_NS, LOOK_NS, MAX_CLIENTS, MAX_REQUEST, Later, Refused, Server


class Loop:
    """A server that is turned by the test; ``now`` is the test's, so that nothing has to be waited for."""

    def __init__(self, path: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.now = 0
        self.open = False
        made: dict[str, control_server.Handler] = {
            "echo": lambda args: {"ok": True, "args": dict(args)},
            "big": lambda args: {"ok": True, "data": b"x" * (4 << 20)},
            "no": self._refuse,
            "later": lambda args: Later(lambda: {"ok": True} if self.open else None, 100),
            "stop": lambda args: None,
        }
        self.server = Server(str(path), self.selector, made, structlog.get_logger())

    def _refuse(self, args: Any) -> control_server.Reply:
        raise Refused("not today", 1)

    def turn(self, until: Callable[[], bool] | None = None, turns: int = 200) -> None:
        """Turn the loop until a condition holds (or for a few turns)."""
        for _ in range(turns):
            for key, mask in self.selector.select(0.01 if until else 0):
                key.data(mask)
            self.server.tick(self.now)
            if until and until():
                return
        assert until is None, "the condition never came true"

    def connect(self) -> socket.socket:
        """A client that never blocks for long."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(self.server.path)
        return sock

    def ask(self, sock: socket.socket, request: Any, *, raw: bool = False) -> dict[str, Any]:
        """Send a request, turn the loop until a reply is there, and read it."""
        sock.sendall(request if raw else msgpack.packb(request))
        return self.reply(sock)

    def reply(self, sock: socket.socket) -> dict[str, Any]:
        """The next reply."""
        unpacker = msgpack.Unpacker(max_buffer_size=1 << 27)
        sock.setblocking(False)
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            try:
                unpacker.feed(sock.recv(1 << 20))
            except BlockingIOError:
                return False
            found.extend(unpacker)
            return bool(found)

        self.turn(arrived, 2000)
        return found[0]

    def answers(self) -> bool:
        """Whether an ordinary client still gets its reply."""
        with self.connect() as sock:
            return bool(self.ask(sock, {"command": "echo", "args": {"a": 1}})["ok"])


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """A server in a folder of its own."""
    made = Loop(tmp_path / "p.sock")
    yield made
    made.server.close()
    made.selector.close()


def test_a_request_gets_its_reply_and_a_connection_carries_several(loop: Loop):
    """One map in, one map out, in turn."""
    with loop.connect() as sock:
        for i in range(3):
            assert loop.ask(sock, {"command": "echo", "args": {"i": i}}) == {"ok": True, "error": "", "args": {"i": i}}


def test_only_the_owner_may_connect(loop: Loop):
    """The socket has mode 0600 from its first moment."""
    assert stat.S_IMODE(os.stat(loop.server.path).st_mode) == 0o600


def test_a_refusal_and_an_unknown_command_say_why(loop: Loop):
    """Errors are replies; the unknown name's lists the known ones."""
    with loop.connect() as sock:
        assert loop.ask(sock, {"command": "no"}) == {"ok": False, "error": "not today", "code": 1}
        reply = loop.ask(sock, {"command": "nix"})
        assert reply["code"] == 2
        assert "known: echo, big" in reply["error"]


@pytest.mark.parametrize("request_", [[], 5, {"command": 5}, {"x": 1}, {"command": "echo", "args": []}, None, "x"])
def test_what_is_no_request_is_refused(loop: Loop, request_: Any):
    """Well-formed msgpack of another shape gets an error, and the connection lives on."""
    with loop.connect() as sock:
        assert loop.ask(sock, request_)["ok"] is False
        assert loop.ask(sock, {"command": "echo"})["ok"] is True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(min_size=1, max_size=300))
def test_no_bytes_hurt(loop: Loop, data: bytes):
    """Whatever a client sends, the next one is served."""
    with loop.connect() as sock:
        sock.sendall(data)
        loop.turn(turns=5)
    assert loop.answers()


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 60_000,
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff" + b"x" * 1000,
        b"\x81\xa7command\xa1\xff",
    ],
    ids=["nested", "reserved", "huge map", "huge binary", "no utf-8"],
)
def test_hostile_msgpack_is_dropped(loop: Loop, data: bytes):
    """Depth, impossible lengths and broken text end the connection (at the latest when it has been idle for long)."""
    with loop.connect() as sock:
        sock.sendall(data)
        loop.turn(turns=20)
        loop.now += IDLE_NS
        loop.turn(lambda: not loop.server._clients)
    assert loop.answers()


def test_too_much_is_dropped(loop: Loop):
    """A request that never ends is cut off at MAX_REQUEST."""
    with loop.connect() as sock:
        sock.setblocking(False)
        sock.send(b"\xc6\x7f\xff\xff\xff")
        sent = 0

        def dropped() -> bool:
            nonlocal sent
            try:
                sent += sock.send(b"x" * 65536)
            except BlockingIOError:
                pass
            except OSError:
                return True
            return False

        loop.turn(dropped, 2000)
        assert sent < 100 * MAX_REQUEST
    assert loop.answers()


def test_a_client_that_says_nothing_is_dropped_after_a_while(loop: Loop):
    """Half a request, or none, holds a place for IDLE_NS at most."""
    with loop.connect() as silent, loop.connect() as half:
        half.sendall(b"\x82\xa7comm")
        loop.turn(lambda: len(loop.server._clients) == 2)
        loop.now += IDLE_NS
        loop.turn(lambda: not loop.server._clients)
        assert silent.recv(1) == b""


def test_a_client_that_never_reads_holds_nobody(loop: Loop):
    """Its reply waits in memory, then it is dropped; others are served meanwhile."""
    with loop.connect() as deaf:
        deaf.sendall(msgpack.packb({"command": "big"}))
        loop.turn(lambda: any(client.out for client in loop.server._clients))
        assert loop.answers()
        loop.now += IDLE_NS
        loop.turn(lambda: not loop.server._clients)


def test_a_thousand_requests_at_once_are_answered_in_order(loop: Loop):
    """One a turn of the loop: they neither recurse nor keep others waiting."""
    with loop.connect() as sock:
        many = b"".join(msgpack.packb({"command": "echo", "args": {"i": i}}) for i in range(1000))
        sock.sendall(many)
        sock.setblocking(False)
        unpacker, got = msgpack.Unpacker(), []

        def all_there() -> bool:
            try:
                unpacker.feed(sock.recv(1 << 20))
            except BlockingIOError:
                return False
            got.extend(reply["args"]["i"] for reply in unpacker)
            return len(got) == 1000

        loop.turn(all_there, 5000)
        assert got == list(range(1000))


def test_too_many_clients_are_turned_away_and_places_come_free(loop: Loop):
    """Beyond MAX_CLIENTS a connection is closed at once."""
    crowd = [loop.connect() for _ in range(MAX_CLIENTS)]
    loop.turn(lambda: len(loop.server._clients) == MAX_CLIENTS)
    with loop.connect() as late:
        late.setblocking(False)

        def closed() -> bool:
            try:
                return late.recv(1) == b""
            except BlockingIOError:
                return False

        loop.turn(closed)
    for sock in crowd:
        sock.close()
    loop.turn(lambda: not loop.server._clients)
    assert loop.answers()


def test_a_reply_may_come_later_or_be_late(loop: Loop):
    """A command is answered when it is done; after its time with what to do about it."""
    with loop.connect() as sock:
        sock.sendall(msgpack.packb({"command": "later"}))
        loop.turn(turns=20)
        loop.open = True
        assert loop.reply(sock)["ok"] is True
        loop.open = False
        sock.setblocking(True)
        sock.sendall(msgpack.packb({"command": "later"}))
        loop.turn(lambda: any(client.later for client in loop.server._clients))
        loop.now = 100
        assert "status" in loop.reply(sock)["error"]


def test_who_waits_for_the_end_is_told_at_the_end(tmp_path: Path):
    """`stop` of a pipeline is answered when it has stopped."""
    loop = Loop(tmp_path / "p.sock")
    with closing(loop.selector), loop.connect() as sock:
        sock.sendall(msgpack.packb({"command": "stop"}))
        loop.turn(lambda: any(client.parked for client in loop.server._clients))
        with loop.connect() as other:
            other.sendall(msgpack.packb({"command": "later"}))
            loop.turn(lambda: any(client.later for client in loop.server._clients))
            loop.server.close(lambda command: {"ok": command == "stop", "text": command})
            assert msgpack.unpackb(other.recv(1000)) == {"ok": False, "text": "later", "error": ""}
        assert msgpack.unpackb(sock.recv(1000)) == {"ok": True, "text": "stop", "error": ""}
    assert not (tmp_path / "p.sock").exists()


def test_a_socket_that_was_removed_is_made_again(tmp_path: Path):
    """The file, or its folder; one line each.  Clients that are there stay, and another's file is left alone."""
    folder = tmp_path / "run"
    folder.mkdir()
    loop = Loop(folder / "p.sock")
    with structlog.testing.capture_logs() as logs, closing(loop.selector), loop.connect() as early:
        assert loop.ask(early, {"command": "echo"})["ok"]
        for remove in (lambda: os.unlink(loop.server.path), lambda: shutil.rmtree(folder)):
            remove()
            loop.turn(turns=1)  # not yet time to look
            assert not Path(loop.server.path).exists()
            loop.now += LOOK_NS
            loop.turn(turns=1)
            assert stat.S_IMODE(os.stat(loop.server.path).st_mode) == 0o600
            with loop.connect() as sock:
                assert loop.ask(sock, {"command": "echo"})["ok"]
        assert loop.ask(early, {"command": "echo"})["ok"]
        Path(loop.server.path).unlink()
        Path(loop.server.path).write_text("somebody else's")
        for _ in range(3):
            loop.now += LOOK_NS
            loop.turn(turns=1)
        loop.server.close()
    made, refused = "the control socket was gone: made again", "the control socket is gone, and cannot be made again"
    assert [line["event"] for line in logs] == [made, made, refused]
    assert Path(loop.server.path).read_text() == "somebody else's"


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path, loop: Loop):
    """A file that nobody answers at was left by a supervisor that died."""
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    control_server.listen(str(stale)).close()
    stale.unlink()
    with pytest.raises(FileExistsError, match="somebody answers"):
        control_server.listen(loop.server.path)
    plain = tmp_path / "file.sock"
    plain.write_text("not a socket")
    with pytest.raises(FileExistsError, match="no socket"):
        control_server.listen(str(plain))
    assert plain.read_text() == "not a socket"


@pytest.mark.parametrize("words", [["p", "set", "m0", "colour=red"], ["p", "restart"], ["p", "dance"], ["p"]])
def test_a_wrong_command_line_exits_with_2(words: list[str]):
    """argparse's own status for what it does not understand."""
    with pytest.raises(SystemExit) as left:
        control.main(words)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("code", "failure", "left", "command", "ok", "says"),
    [
        (0, "", {}, "stop", True, "p has stopped"),
        (0, "", {}, "restart", False, "the pipeline stopped before restart was done"),
        (1, "m0: 6 crashes", {}, "stop", False, "p has stopped, but given up: m0: 6 crashes"),
        (1, "", {"a": 1000, "b": 24}, "stop", False, "but 1,024 bytes were not delivered: a 1,000, b 24"),
        (1, "", {}, "stop", False, "see its log"),
    ],
)
def test_last_words_say_what_happened(code: int, failure: str, left: dict[str, int], command: str, ok: bool, says: str):
    """Nobody is told that something was done which was not."""
    it: Any = SimpleNamespace(name="p", failure=failure, undelivered=left, ran=True, unbalanced=0)
    reply = handlers.last_words(it, code)(command)
    assert reply["ok"] is ok
    assert says in reply["text" if ok else "error"]
    assert ok or reply["code"] == 1


class Office:
    """Handlers over a family without processes: the test says what happens to them."""

    def __init__(self) -> None:
        self.family = Family([ChildSpec("m0", ("m0",))], Policy())
        self.it: Any = SimpleNamespace(
            state="RUNNING",
            family=self.family,
            processes={"m0": []},
            graph=SimpleNamespace(stages=[SimpleNamespace(id="m0", process="m0")]),
            act=lambda actions: None,
        )
        self.do = handlers.Handlers(self.it)
        self.child = self.family.children["m0"]
        self.family.start_all(0)
        self.came()

    def came(self) -> None:
        """Its process is there and ready."""
        self.family.spawned("m0", 7, time.monotonic_ns())
        self.family.ready("m0", time.monotonic_ns())

    def left(self) -> None:
        """Its process is gone."""
        self.family.exited("m0", "left", time.monotonic_ns())


def test_who_waits_for_a_restart_is_refused_when_another_stops_it():
    """At once, not when the time is up."""
    office = Office()
    first = office.do.restart({"id": "m0"})
    second = office.do.stop({"id": "m0"})
    assert isinstance(second, Later)
    assert (first.done(), second.done()) == (None, None)
    office.left()
    assert office.child.state is State.STOPPED
    assert first.done() == {"ok": False, "error": "m0 was stopped by another command", "code": 1}
    assert (second.done() or {})["ok"] is True


def test_who_waits_for_a_stop_is_refused_when_another_starts_it():
    """The process that was to be gone is back."""
    office = Office()
    first = office.do.stop({"id": "m0"})
    second = office.do.start({"id": "m0"})
    assert isinstance(first, Later) and isinstance(second, Later)
    office.left()
    office.came()
    assert first.done() == {"ok": False, "error": "m0 was started again by another command", "code": 1}
    assert (second.done() or {})["ok"] is True


def test_a_restart_that_is_not_disturbed_is_answered_when_it_is_done():
    """Nor does the end of the pipeline count as a command: its goodbye says it."""
    office = Office()
    later = office.do.restart({"id": "m0"})
    office.left()
    assert later.done() is None
    office.came()
    assert (later.done() or {})["ok"] is True
    later = office.do.restart({"id": "m0"})
    office.it.state = "DRAINING"
    office.family.hold(0)
    office.left()
    assert later.done() is None
