"""filter-dump in a pipeline: what went through is in its file, also where its process is killed meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from stages.capture import reader as captures
from stages.capture.reader import INBOUND, OUTBOUND
from tests.pipeline.running import Running, frame, read_frames

DUMP = """
[filter.d0]
type = "filter-dump"
netdev = "hn0"
file = "{folder}/d.pcapng"
"""


def test_what_went_through_a_pipeline_is_in_the_file(tmp_path: Path) -> None:
    """Both ways, over a kill of its process and to the end of the run; the next run puts the file aside."""
    to_guest = [b"in %03d" % n * 20 for n in range(200)]
    to_net = [b"out %03d" % n * 30 for n in range(200)]
    more = DUMP.format(folder=tmp_path)
    with Running(tmp_path, more=more) as run:
        run.running()
        net, guest = run.connect("net"), run.connect("guest")
        for part in range(4):
            some = slice(50 * part, 50 * part + 50)
            net.sendall(b"".join(map(frame, to_guest[some])))
            guest.sendall(b"".join(map(frame, to_net[some])))
            if part == 1:
                os.kill(run.pids()["d0"], signal.SIGKILL)
                run.back("d0", 2)
            assert read_frames(guest, 50) == to_guest[some]
            assert read_frames(net, 50) == to_net[some]
        net.close()
        guest.close()
        os.kill(run.pid, signal.SIGTERM)
        assert run.end() == 0
    found = [(p.data, p.direction) for p in captures.read(tmp_path / "d.pcapng")]
    assert [data for data, way in found if way == INBOUND] == to_guest
    assert [data for data, way in found if way == OUTBOUND] == to_net
    assert len(found) == 400
    with Running(tmp_path, more=more) as run:
        run.running()
    assert [(p.data, p.direction) for p in captures.read(tmp_path / "d.1.pcapng")] == found
    assert captures.read(tmp_path / "d.pcapng") == []
