"""The fork server's life as its supervisor sees it: requests that it dies with, hangs, and whoever it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from pipeline import processes, spawner
from pipeline.spawner import LOOK_NS, LOOKS, PATIENCE_NS, SLOW_NS, Spawner
from tests.pipeline.running import PATIENCE_S, ROOT, gone, until


class Server:
    """A spawner whose fork server is a process that does nothing; ``far`` is that one's end of the channel."""

    def __init__(self) -> None:
        self.spawner = Spawner({}, -1)
        self.far = self.attach()

    def attach(self) -> socket.socket:
        """Start another."""
        process = subprocess.Popen(["sleep", "60"])
        process.returncode = 0  # the spawner reaps it
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        it = self.spawner
        it.pid, it.pidfd, it.channel, it.ready = process.pid, os.pidfd_open(process.pid), ours, True
        return theirs

    def end(self) -> str:
        """Kill it and reap it."""
        self.spawner.kill()
        self.far.close()
        return self.spawner.reap()


@pytest.fixture
def server() -> Iterator[Server]:
    """One that is ready."""
    made = Server()
    yield made
    if made.spawner.pidfd >= 0:
        made.end()


def request(name: str, epoch: int = 1) -> dict[str, Any]:
    """What the spawner needs of one."""
    return {"process": name, "epoch": epoch}


def test_a_request_that_a_fork_server_died_with_is_asked_for_anew(server: Server):
    """It may have been carried out; one that was never sent cannot have been, and goes out as it is."""
    it = server.spawner
    it.spawn(request("sent"))
    it.flush(1)
    it.spawn(request("unsent"))
    assert server.end() == "killed by SIGKILL"
    server.far = server.attach()
    it.renew(lambda name: request(name, 2))
    it.flush(2)
    asked = [msgpack.unpackb(server.far.recv(4096)) for _ in range(2)]
    assert [(a["process"], a["epoch"]) for a in asked] == [("sent", 2), ("unsent", 1)]
    server.far.send(msgpack.packb({"serial": asked[0]["serial"], "pid": 5, "error": ""}))
    assert it.read() == [spawner.Spawned("sent", 5, "")]


def test_only_what_no_fork_server_has_can_be_cancelled(server: Server):
    """What was sent may become a process at any time."""
    it = server.spawner
    it.spawn(request("sent"))
    it.flush(1)
    it.spawn(request("unsent"))
    it.spawn(request("other"))
    assert it.cancel(("sent", "unsent")) == ["unsent"]
    server.end()
    assert it.cancel(("sent", "other")) == ["sent", "other"]


def test_an_overdue_answer_is_a_hang_and_said_once(server: Server):
    """From the kill until the next fork server there is nothing more to say."""
    it = server.spawner
    it.spawn(request("m0"))
    it.flush(1)
    assert it.stuck(PATIENCE_NS) == ""
    assert it.stuck(2 + PATIENCE_NS) == "does not answer"
    it.kill()
    assert it.stuck(3 + PATIENCE_NS) == ""
    server.far.close()
    it.reap()
    server.far = server.attach()
    assert it.stuck(4 + PATIENCE_NS) == ""
    it.renew(request)
    it.flush(5)
    assert it.stuck(6 + PATIENCE_NS) == "does not answer"


def test_a_compiling_fork_server_that_uses_no_processor_is_stuck(server: Server):
    """At LOOKS looks in a row, a second apart: a supervisor that was stopped itself makes no fewer of them."""
    it, now = server.spawner, 100 * LOOK_NS
    it.ready = False
    os.kill(it.pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{it.pid}/stat").read_text().split()[2] == "T", "it stands")
    said = []
    for _ in range(LOOKS + 1):
        now += 1000 * LOOK_NS
        said += [it.stuck(now), it.stuck(now + LOOK_NS - 1)]
    assert said[:-2] == [""] * (2 * LOOKS)
    assert said[-2] == "makes no progress"


def test_a_compiling_fork_server_that_works_is_left_alone_and_told_of_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    """However long it takes."""
    used = iter(range(10 * LOOKS))
    monkeypatch.setattr(processes, "work_seconds", lambda _pid: next(used) / 100)
    it = server.spawner
    it.ready = False
    assert {it.stuck(i * LOOK_NS) for i in range(5 * LOOKS)} == {""}
    assert [it.slow(now) for now in (0, SLOW_NS - 1, SLOW_NS, 2 * SLOW_NS)] == [False, False, True, False]


def test_processor_time_counts_the_workers():
    """A fork server that waits for its compiling children makes progress with them."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 0.1: pass\n"
        "    print('x', flush=True)\n"
        "    time.sleep(60)\n"
        "os.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.read(1)
        (worker,) = processes.children(parent.pid)
        assert processes.work_seconds(parent.pid) >= 0.09
        os.kill(worker, signal.SIGKILL)


def test_strangers_are_killed_to_the_last_generation():
    """An intermediate's stage becomes ours only when the intermediate is dead."""
    code = (
        "import os, time\n"
        "from pipeline import forkserver, processes, spawner\n"
        "forkserver.become_subreaper()\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        os.write(write, b'x')\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "os.read(read, 1)\n"
        "known = os.fork()\n"
        "if known == 0:\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "killed = spawner.kill_strangers({known})\n"
        "print(killed, processes.own_children() == [known], spawner.kill_strangers(set()))\n"
    )
    done = subprocess.run(
        # The command line of a fork server of this very process, which its forks have, too.
        ["sh", "-c", 'exec "$@" pipeline.forkserver $$', "sh", sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2", "True", "1"]


def test_compile_workers_die_with_the_fork_server(tmp_path: Path):
    """kill -9 of it while they compile: a fork does not inherit the parent-death signal."""
    (tmp_path / "slow_one.py").write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        f"Path({str(tmp_path)!r}, f'pid-{{os.getpid()}}').touch()\n"
        "time.sleep(2 * 60)\n"
    )
    code = (
        "from pathlib import Path\n"
        "from pipeline import forkserver\n"
        f"forkserver._compile(['slow_one'], Path({str(tmp_path)!r}))\n"
    )
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "1"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        (worker,) = until(lambda: [int(p.name[4:]) for p in tmp_path.glob("pid-*")], "the worker compiles")
        assert not gone(worker)
        parent.kill()
    until(lambda: gone(worker), "the worker is gone")
