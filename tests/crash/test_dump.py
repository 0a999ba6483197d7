"""filter-dump, killed anywhere: no frame lost, none twice, neither on the way nor in the file."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ring import layout
from stages.capture import reader as captures
from tests.crash.harness import Outcome, kill_at_every_store
from tests.rig import Rig

FIRST = b"first" * 20
FRAMES = [bytes([n]) * (20 + 7 * n) for n in range(5)]
BACK = [bytes([100 + n]) * 33 for n in range(3)]


def _feed(rig: Rig) -> None:
    rig.feed("tx_in", *FRAMES)
    rig.feed("rx_in", *BACK)


@pytest.mark.parametrize("large", [False, True], ids=["one file", "between two files"])
def test_a_dump_killed_at_any_store_loses_and_repeats_nothing(tmp_path: Path, large: bool) -> None:
    """Wherever kill -9 strikes a burst, the outputs and the files hold the frames in order, once."""
    numbers = itertools.count()

    def make() -> Rig:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        rig = Rig(
            "filter-dump", {"netdev": "n", "file": str(folder / "d.pcapng"), "file_size": 150 if large else 1 << 20}
        )
        rig.command(layout.CMD_STATUS, 1)
        rig.feed("tx_in", FIRST)  # so that there is a file with something in it
        rig.run()
        assert rig.take("tx_out") == [FIRST]
        return rig

    def check(rig: Rig, outcome: Outcome) -> None:
        assert outcome.frames["tx_out"] == FRAMES
        assert outcome.frames["rx_out"] == BACK
        folder = Path(rig.params["file"]).parent
        aside = sorted(folder.glob("d.*.pcapng"), key=lambda path: int(path.name.split(".")[1]))
        found = [p.data for path in (*aside, folder / "d.pcapng") for p in captures.read(path)]
        assert sorted(found) == sorted([FIRST, *FRAMES, *BACK])
        assert len(aside) == int(large)
        assert [data for data in found if data in FRAMES] == FRAMES
        assert outcome.counters["recorded"] == 9

    assert kill_at_every_store(make, _feed, check=check) > 15
