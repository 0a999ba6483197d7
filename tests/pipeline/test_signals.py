"""Signals that come before a supervisor's loop is there to hear them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.running import CONFIG, ROOT, Running

REPLAY = CONFIG.replace(
    'network = {{ backend = "stream", path = "{folder}/net", server = true }}',
    f'network = {{{{ backend = "pcap", read = "{ROOT}/samples/client.pcapng" }}}}',
).replace('guest = {{ backend = "stream", path = "{folder}/guest", server = true }}', 'guest = {{ backend = "null" }}')


@pytest.mark.parametrize(
    ("config", "code", "end"),
    [
        (CONFIG, 0, "good: stopped by {} before every stage was ready"),
        (REPLAY, 1, "not good: nothing ran: it was stopped before every stage was ready. Next: "),
    ],
    ids=["service", "replay"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["load", "segments.open_all", "segments.plan"])
def test_a_signal_before_the_loop_ends_it_cleanly(
    tmp_path: Path, where: str, number: signal.Signals, config: str, code: int, end: str
) -> None:
    """Right after that call of the start: no traceback, nothing left.  Nothing ran: wrong for a replay."""
    it = Running(tmp_path, config=config)
    script = (
        "import os, sys\n"
        "from pipeline import launch\n"
        f"*path, name = 'launch.{where}'.split('.')\n"
        "owner = eval('.'.join(path))\n"
        "real = getattr(owner, name)\n"
        "def signalled(*args, **more):\n"
        "    made = real(*args, **more)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    return made\n"
        "setattr(owner, name, signalled)\n"
        f"sys.exit(launch.main([{str(it.config)!r}, '--no-view']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert "nothing ran" in done.stdout and "adds up" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith(end.format(number.name))
    assert it.left() == []


def test_under_nohup_a_terminal_that_goes_stops_nothing(tmp_path: Path) -> None:
    """SIGHUP that whoever started it ignores is none for it; SIGTERM and SIGINT still stop it."""
    it = Running(tmp_path)
    it.program = ["-c", _IGNORING]
    with it:
        it.running()
        os.kill(it.pid, signal.SIGHUP)
        os.kill(it.stage("m0")["pid"], signal.SIGKILL)  # it goes on doing what it is there for
        it.back("m0", 2)
        assert it.status()["state"] == "RUNNING"
        os.kill(it.pid, signal.SIGINT)
        assert it.end() == 0
    assert "SIGHUP" not in it.text()


_IGNORING = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "pipeline.supervisor", *sys.argv[1:]])
"""
