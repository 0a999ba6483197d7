"""A pipeline whose processes are stopped and go on, as in a container or a machine that is paused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.packets import udp_frame
from tests.pipeline.running import Running, frame, read_frames, until

CONFIG = """
[pipeline]
name = "{name}"
runtime_dir = "{folder}"
ring_size = "256KiB"
[supervisor]
{supervisor}
[chardev.primary]
backend = "socket"
path = "{folder}/primary"
server = true
[chardev.secondary]
backend = "socket"
path = "{folder}/secondary"
server = true
[chardev.out]
backend = "socket"
path = "{folder}/out"
server = true
[compare.comp0]
primary_in = "primary"
secondary_in = "secondary"
outdev = "out"
checkpoint = "local"
compare_timeout = 3000
{more}
"""


def _naps(pid: int) -> int:
    """How often a process has slept."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("voluntary_ctxt")]
    return int(line.split()[1])


def test_a_pipeline_that_was_paused_goes_on_where_it_was(tmp_path: Path) -> None:
    """For longer than compare_timeout; the compare goes on first, before the secondary's answer is there."""
    with Running(tmp_path, config=CONFIG) as it:
        it.running()
        primary, secondary, out = (it.connect(path) for path in ("primary", "secondary", "out"))
        first, held = (udp_frame("10.0.0.2", "10.0.0.1", 53, 99, text) for text in (b"first", b"held"))
        secondary.sendall(frame(first))
        until(lambda: it.status()["counters"]["comp0"]["times_in_step"], "in step")
        primary.sendall(frame(first) + frame(held))
        assert read_frames(out, 1) == [first]
        until(lambda: it.status()["counters"]["comp0"]["held"] == 1, "the second one is held")
        pids = it.pids()
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        secondary.sendall(frame(held))
        paused = time.monotonic()
        until(lambda: time.monotonic() - paused > 3.2, "a pause longer than compare_timeout")
        before = _naps(pids["comp0"])
        os.kill(pids["comp0"], signal.SIGCONT)
        until(lambda: _naps(pids["comp0"]) > before + 3, "the compare has looked at what it holds")
        for name in ("out", "secondary", "primary"):
            os.kill(pids[name], signal.SIGCONT)
        assert read_frames(out, 1) == [held]
        counters = it.status()["counters"]["comp0"]
        assert (counters["divergences"], counters["matched"]) == (0, 2)
        for sock in (primary, secondary, out):
            sock.close()
        os.kill(it.pid, signal.SIGTERM)
        assert it.end() == 0
