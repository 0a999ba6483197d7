"""The supervisor with real processes: crashes, hangs, orphans, takeover, exit codes, leftovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import segments
from pipeline.children import ChildSpec, Family, Policy, State
from pipeline.spawner import Spawner
from pipeline.supervisor import Supervisor
from ring import layout
from tests.interpreter import fresh_python
from tests.pipeline.running import PATIENCE_S, ROOT, Running, frame, gone, read_frames, until


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Running]:
    """A pipeline that runs."""
    with Running(tmp_path) as made:
        yield made.running()


def test_frames_pass_while_a_stage_is_killed_again_and_again(it: Running):
    """kill -9 of the mirror: epoch and restarts go up by one, its neighbours stay, no frame is lost or doubled."""
    before = it.pids()
    with it.connect("net") as net, it.connect("guest") as guest, it.connect("c0") as copies:
        until(lambda: all(r["connected"] for r in it.status()["rings"]), "all peers are connected")
        sent = [b"frame %d" % i * 10 for i in range(300)]
        for round_ in range(3):
            part = sent[round_ * 100 : round_ * 100 + 100]
            net.sendall(b"".join(map(frame, part[:50])))
            os.kill(it.stage("m0")["pid"], signal.SIGKILL)
            net.sendall(b"".join(map(frame, part[50:])))
            stage = it.back("m0", round_ + 2)
            assert stage["restarts"] == round_ + 1
            assert stage["reason"] == "killed by SIGKILL"
        assert read_frames(guest, 300) == sent
        assert read_frames(copies, 300) == sent
    after = it.pids()
    assert {k for k in before if before[k] != after[k]} == {"m0"}
    counters = it.status()["counters"]["m0"]
    assert (counters["tx_in_frames"], counters["tx_out_frames"], counters["outdev_frames"]) == (300, 300, 300)


def test_a_hang_is_a_crash(tmp_path: Path):
    """SIGSTOP: the heartbeat stands still, the stage is killed and comes back; the log says why."""
    # A busy machine may hold a process up for as long, so only what became of the stopped one is looked at.
    with Running(tmp_path, "heartbeat_timeout_ms = 1000\nintensity = 1000") as it:
        it.running()
        stopped = it.stage("m0")
        os.kill(stopped["pid"], signal.SIGSTOP)
        until(lambda: gone(stopped["pid"]), "the stopped one is killed")
        until(lambda: (s := it.stage("m0"))["state"] == "RUNNING" and s["epoch"] > stopped["epoch"], "m0 is back")
        stage = it.stage("m0")
        assert stage["reason"] == "no heartbeat for 1000 ms"
        assert stage["restarts"] == stage["epoch"] - 1
        (killed,) = [e for e in it.events() if e["event"] == "killed" and e["pid"] == stopped["pid"]]
        assert (killed["stage"], killed["reason"]) == ("m0", "no heartbeat for 1000 ms")


def test_past_the_intensity_the_pipeline_fails_and_says_why(tmp_path: Path):
    """Exit 1, the stage and the reason in the log, nothing left."""
    with Running(tmp_path, "intensity = 1\nperiod_ms = 600000\nbackoff_initial_ms = 1") as it:
        it.running()
        os.kill(it.stage("m0")["pid"], signal.SIGKILL)
        os.kill(it.back("m0", 2)["pid"], signal.SIGKILL)
        assert it.end() == 1
        (given_up,) = [e for e in it.events() if e["event"] == "given up"]
        assert given_up["stage"] == "m0"
        assert "2 crashes within 600 s" in given_up["reason"]
        assert "SIGKILL" in given_up["reason"]
        assert it.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_leaves_nothing(it: Running, number: signal.Signals):
    """Exit 0, no process, no segment, no socket; a summary on stdout."""
    pids = [*it.pids().values(), it.forkserver()]
    it.process.send_signal(number)  # type: ignore[union-attr]
    assert it.end() == 0
    until(lambda: all(map(gone, pids)), "all processes are gone")
    assert it.left() == []
    assert it.name in it.out
    left = [e["stage"] for e in it.events() if e["event"] == "left"]
    assert left.index("hn0.network") < left.index("m0")  # sources first
    assert "stopping (a second signal would cut it short)" in [e["event"] for e in it.events()]


def test_what_is_inside_goes_out_before_the_end(it: Running):
    """SIGTERM right after a burst: the burst arrives."""
    with it.connect("net") as net, it.connect("guest") as guest:
        until(lambda: all(r["connected"] for r in it.status()["rings"] if "c0" not in r["consumer"]), "connected")
        net.sendall(b"".join(frame(b"%d" % i) for i in range(200)))
        until(lambda: it.status()["counters"]["hn0.network"]["receive_frames"] == 200, "all read")
        it.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert read_frames(guest, 200) == [b"%d" % i for i in range(200)]
        assert it.end() == 0


def test_orphans_die_with_the_supervisor_and_a_new_one_takes_over(it: Running):
    """kill -9 of the supervisor: nobody survives it; the next one goes on with the same counters and a higher epoch."""
    with it.connect("net") as net, it.connect("guest") as guest:
        until(lambda: all(r["connected"] for r in it.status()["rings"] if "c0" not in r["consumer"]), "connected")
        net.sendall(b"".join(frame(b"%d" % i) for i in range(50)))
        assert len(read_frames(guest, 50)) == 50
        until(lambda: it.status()["counters"]["hn0.guest"]["send_frames"] == 50, "counted")
    pids = [*it.pids().values(), it.forkserver()]
    os.kill(it.pid, signal.SIGKILL)
    it.end()
    until(lambda: all(map(gone, pids)), "all processes are gone")
    assert len(it.left()) > 4
    it.start().running()
    assert any(e["event"] == "taking over from a dead supervisor" for e in it.events())
    assert it.stage("m0")["epoch"] == 2
    assert it.status()["counters"]["m0"]["tx_in_frames"] == 50


def test_fresh_removes_instead_of_taking_over(it: Running):
    """--fresh: one log line, counters from zero."""
    os.kill(it.pid, signal.SIGKILL)
    it.end()
    it.start("--fresh").running()
    (line,) = [e for e in it.events() if e["event"] == "removed what a dead supervisor left"]
    assert line["why"] == "--fresh was asked for"
    assert it.stage("m0")["epoch"] == 1


def test_another_plan_takes_nothing_over(it: Running):
    """A config with other rings: what the dead one left is removed."""
    os.kill(it.pid, signal.SIGKILL)
    it.end()
    it.config.write_text(it.config.read_text().replace("256KiB", "512KiB"))
    it.start().running()
    assert any(e["event"] == "removed what a dead supervisor left" for e in it.events())


def test_a_second_supervisor_of_the_same_name_is_refused(it: Running):
    """Exit 2 and the pid of the first, which is not disturbed."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.supervisor", str(it.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{it.name} is running as pid {it.pid}" in done.stderr
    assert it.status()["state"] == "RUNNING"


def test_a_wrong_config_exits_with_2_and_starts_nothing(tmp_path: Path):
    """The mistakes are listed."""
    it = Running(tmp_path, "nonsense = 1")
    with it:
        assert it.end() == 2
        assert "supervisor.nonsense" in it.text()
        assert it.left() == []


def test_too_little_shared_memory_exits_with_2_and_the_sum(tmp_path: Path):
    """Nothing is made unless all fits."""
    it = Running(tmp_path)
    it.config.write_text(it.config.read_text().replace("256KiB", "1GiB").replace("[filter.m0]", more_chains(40)))
    with it:
        assert it.end() == 2
        assert "bytes needed" in it.text()
        assert it.left() == []


def more_chains(count: int) -> str:
    """Netdevs that nobody could hold in memory, before the first filter."""
    side = '{ backend = "stream", path = "/nonexistent/x", server = false }'
    chains = [f"[netdev.x{i}]\nnetwork = {side}\nguest = {side}\n" for i in range(count)]
    return "".join(chains) + "[filter.m0]"


def test_a_dead_fork_server_is_replaced_and_stages_live_on(it: Running):
    """Stages are the supervisor's children, not the fork server's."""
    before, first = it.pids(), it.forkserver()
    os.kill(first, signal.SIGKILL)
    until(lambda: any("fork server died" in e["event"] for e in it.events()), "noticed")
    assert it.pids() == before
    os.kill(before["m0"], signal.SIGKILL)
    it.back("m0", 2)
    assert it.forkserver() != first


def test_a_process_that_a_dead_fork_server_may_have_made_gets_a_new_epoch(it: Running):
    """Killed with a request in its hands: whatever came of that one is superseded by what comes of the next."""
    server = it.forkserver()
    os.kill(server, signal.SIGSTOP)
    os.kill(it.stage("m0")["pid"], signal.SIGKILL)
    until(lambda: it.stage("m0")["state"] == "STARTING", "asked for")
    assert it.stage("m0")["epoch"] == 2
    os.kill(server, signal.SIGKILL)
    assert it.back("m0", 3)["restarts"] == 1


def test_a_stop_of_a_process_that_a_dead_fork_server_did_not_make_is_done(it: Running):
    """Nothing is there that could leave: no kill of pid 0, and nothing is made any more."""
    server = it.forkserver()
    os.kill(server, signal.SIGSTOP)
    os.kill(it.stage("m0")["pid"], signal.SIGKILL)
    until(lambda: it.stage("m0")["state"] == "STARTING", "asked for")
    with ThreadPoolExecutor(1) as pool:
        stop = pool.submit(it.ask, "stop", id="m0")
        until(lambda: it.stage("m0")["state"] == "STOPPING", "stopping")
        os.kill(server, signal.SIGKILL)
        assert stop.result()["ok"]
    assert not [e for e in it.events() if e["event"] == "killed"]
    assert it.ask("start", id="m0")["ok"]


def test_what_was_not_sent_to_the_fork_server_is_cancelled_by_a_stop_at_once():
    """A child that is asked to leave before its process was asked for is gone."""
    it = Supervisor.__new__(Supervisor)
    it.processes, it._ends = {"m0": []}, {}
    it.family = Family([ChildSpec("m0", ("m0",))], Policy())
    it.spawner = Spawner({}, -1)
    it.spawner.spawn({"process": "m0"})
    it.family.start_all(0)
    it.act(it.family.stop("m0", 1))
    assert it.family.children["m0"].state is State.STOPPED
    assert it.spawner.cancel(("m0",)) == []


def test_segments_are_removed_under_the_lock(it: Running):
    """A successor that looks for them sees all or none."""

    def at_the_lock() -> bool:
        links = Path(f"/proc/{it.pid}/fd").iterdir()
        return any(os.path.realpath(link) == str(it.folder.resolve()) for link in links)

    with segments.locked(str(it.folder)):
        it.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        until(at_the_lock, "it waits for the lock")
        assert len(it.left()) > 4
    assert it.end() == 0
    assert it.left() == []


def test_stop_start_restart_by_hand(it: Running):
    """Each is answered when it is done; none counts as a crash."""
    assert it.ask("stop", id="m0")["ok"]
    assert (it.stage("m0")["state"], it.stage("m0")["pid"]) == ("STOPPED", None)
    assert it.ask("start", id="m0")["ok"]
    assert it.stage("m0")["state"] == "RUNNING"
    assert it.ask("restart", id="m0")["ok"]
    assert it.stage("m0")["epoch"] == 3
    assert not [e for e in it.events() if e["event"] == "died"]


@pytest.mark.parametrize("command", ["restart", "stop", "start"])
def test_an_unknown_id_lists_the_known_ones(it: Running, command: str):
    """Code 2, for the exit status of pipeline.control."""
    reply = it.ask(command, id="nix")
    assert (reply["ok"], reply["code"]) == (False, 2)
    assert all(name in reply["error"] for name in it.pids())


def test_status_set_and_the_events_reach_the_words(tmp_path: Path):
    """set switches a filter; checkpoint and failover are counts in the segments of the rewriter."""
    more = '[filter.rew0]\ntype = "filter-rewriter"\nnetdev = "hn0"\n'
    with Running(tmp_path, more=more) as it:
        it.running()
        assert it.ask("set", id="m0", status="off")["ok"]
        assert it.stage("m0")["status"] == "off"
        assert it.ask("set", id="c0", status="off")["code"] == 2
        for _ in range(2):
            assert "rew0" in it.ask("checkpoint")["text"]
        assert it.ask("failover")["ok"]
        # After a failover it is no secondary any more, and two counts would not say which came first.
        assert "rew0" not in it.ask("checkpoint")["text"]
        words = segments.StageSegment.attach(f"{it.name}.s.rew0")
        try:
            assert (words.w[layout.CMD_CHECKPOINT], words.w[layout.CMD_FAILOVER]) == (2, 1)
        finally:
            words.close()


def test_the_program_prints_status_as_json_with_exactly_these_keys(it: Running):
    """The keys that other programs read."""
    command = [sys.executable, "-m", "pipeline.control", "--runtime-dir", str(it.folder), it.name]
    done = subprocess.run([*command, "status", "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # nobody is connected
    status = json.loads(done.stdout)
    assert list(status) == ["name", "state", "health", "reasons", "stages", "rings", "counters"]
    keys = {"id", "type", "pid", "state", "epoch", "restarts", "uptime_s", "cpu_percent", "rss_bytes"}
    assert all(keys <= stage.keys() for stage in status["stages"])
    assert all({"id", "size", "used"} <= ring.keys() for ring in status["rings"])
    assert {s["id"]: s["type"] for s in status["stages"]} == {
        "c0": "chardev", "hn0.network": "netdev", "hn0.guest": "netdev", "m0": "filter-mirror",
    }  # fmt: skip
    assert subprocess.run([*command, "status"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert subprocess.run([*command, "profile"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wrong = subprocess.run([*command, "restart", "nix"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "known: " in wrong.stderr
    assert subprocess.run([*command, "stop"], cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert it.end() == 0


def test_a_second_signal_cuts_a_drain_short(tmp_path: Path):
    """Frames that a connected peer does not read hold a drain until shutdown_ms; who signals twice does not wait."""
    with Running(tmp_path, "shutdown_ms = 60000") as it:
        it.running()
        with it.connect("net") as net, it.connect("guest"):
            until(lambda: all(r["connected"] for r in it.status()["rings"] if "c0" not in r["consumer"]), "connected")
            net.setblocking(False)

            def full() -> bool:
                try:
                    net.send(frame(b"x" * 60_000))
                except BlockingIOError:
                    return any(r["used"] > r["size"] / 2 for r in it.status()["rings"])
                return False

            until(full, "rings are full")
            with ThreadPoolExecutor(1) as pool:
                stop = pool.submit(it.ask, "stop")
                until(lambda: it.status().get("state") == "DRAINING", "draining")
                it.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
                assert it.end() == 1
                reply = stop.result()
        assert reply["ok"] is False
        assert "bytes were not delivered: " in reply["error"]
        assert reply["error"].partition(", but ")[2] in it.out.splitlines()[-1]
        assert it.left() == []


def test_stages_of_one_process_live_and_die_together(tmp_path: Path):
    """process = "...": one pid, one crash, and both come back."""
    more = '[stage.m0]\nprocess = "fast"\n[stage."hn0.guest"]\nprocess = "fast"\n'
    with Running(tmp_path, more=more) as it:
        it.running()
        pids = it.pids()
        assert pids["m0"] == pids["hn0.guest"] != pids["c0"]
        os.kill(pids["m0"], signal.SIGKILL)
        it.back("m0", 2)
        it.back("hn0.guest", 2)
        with it.connect("net") as net, it.connect("guest") as guest:
            net.sendall(frame(b"hello"))
            assert read_frames(guest, 1) == [b"hello"]


def test_the_supervisor_never_imports_numba(tmp_path: Path):
    """Not at import and not in a whole run, with JIT on."""
    it = Running(tmp_path)
    code = (
        "import sys, threading, time, os, signal\n"
        "from pipeline import launch\n"
        "threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        f"status = launch.main([{str(it.config)!r}, '--no-view'])\n"
        "print(status, sorted({'numba', 'llvmlite'} & sys.modules.keys()))\n"
    )
    done = fresh_python(code, NUMBA_DISABLE_JIT=None)
    assert done.stdout.splitlines()[-1] in ("0 []", "1 []"), done.stderr  # 1: it was stopped before it ran
    assert it.left() == []
