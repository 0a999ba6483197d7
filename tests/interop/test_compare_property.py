"""Random scenes fed step by step to QEMU's colo-compare and to ours: the relation of behaviour.md, section 6.

The ordinary run has a few examples, always the same.  The long campaign draws new ones:
``COLO_RANDOM=1 COLO_COMPARE_EXAMPLES=2000 python -m pytest tests/interop/test_compare_property.py``.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from tests.interop.compare_pair import Reference, Scenario
from tests.interop.compare_rows import Row
from tests.packets import P_TCP, RST, SYN, ones_sum, packed, read
from tests.stages.compare.scenes import CLIENT, Scene, scenes
from tools import qemu

pytest_plugins = ("tests.interop.compare_plugin",)
pytestmark = pytest.mark.skipif(not qemu.available(), reason=f"needs Debian's package {qemu.PACKAGE}")
BETTER = frozenset({Row.ACKS, Row.FLAGS, Row.UDP_ORDER})
LONG = int(os.environ.get("COLO_COMPARE_EXAMPLES", "0"))
HERE = settings(
    max_examples=LONG or 30,
    derandomize=not LONG,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes; the scene is printed frame by frame
    suppress_health_check=list(HealthCheck),
)


def readdressed(frame: bytes, client: str) -> bytes:
    """``frame`` to another client, both checksums updated (RFC 1624)."""
    old, new = packed(CLIENT), packed(client)
    at = {14 + 10, 14 + 20 + (16 if frame[23] == P_TCP else 6)}
    data = bytearray(frame[:30] + new + frame[34:])
    for i in at:
        left = bytes(255 - b for b in data[i : i + 2]) + bytes(255 - b for b in old) + new
        data[i : i + 2] = (ones_sum(left) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(data)


def play(reference: Reference, scene: Scene, rows: frozenset[Row], differs: bool, **options: str) -> Counter[Row]:
    """One scene, step by step; which rows it has shown."""
    with Scenario(reference, rows, **options) as s:
        for side, frame in scene.arrivals():
            note(f"{side} {frame.hex()}")
            s.play([(side, readdressed(frame, s.client()))])
        if differs:
            assert s.asked[1] == 1, "the outputs differ, and ours has not asked"
            assert s.asked[0] >= 1, "the outputs differ, and QEMU has not asked"
        else:
            assert s.asked[1] == 0, "ours asks although both have sent the same"
            if options.get("ack_policy") != "relaxed":
                assert Counter(s.all[1]) == Counter(s.fed), "equal outputs, and ours holds something"
        _in_stream_order(s, scene)
        return s.used


def _in_stream_order(s: Scenario, scene: Scene) -> None:
    """What carries bytes that are new leaves ours in the order of the stream."""
    for flow in (f for f in scene.flows if f.data):
        reached, fresh = 1, []
        for frame in flow.primary:
            p = read(frame)
            start = (p.seq - flow.isn) % (1 << 32)
            if p.payload and not p.flags & (SYN | RST) and start + len(p.payload) > reached:
                reached = start + len(p.payload)
                fresh.append(readdressed(frame, s.client()))
        out = [frame for frame in dict.fromkeys(s.all[1]) if frame in fresh]
        assert out == fresh[: len(out)]


@given(scene=scenes())
@HERE
def test_equal_outputs(shared_reference: Reference, scene: Scene) -> None:
    """What QEMU has released ours has released, but for what the secondary has not said; ours never asks."""
    play(shared_reference, scene, BETTER, False)


@given(scene=scenes())
@HERE
def test_equal_outputs_with_acknowledgements_as_in_qemu(shared_reference: Reference, scene: Scene) -> None:
    """With ``ack_policy = "relaxed"`` no acknowledgement holds what QEMU releases."""
    play(shared_reference, scene, BETTER - {Row.ACKS}, False, ack_policy="relaxed")


@given(scene=scenes(differs=True))
@HERE
def test_outputs_that_differ(shared_reference: Reference, scene: Scene) -> None:
    """Both ask, ours once."""
    play(shared_reference, scene, BETTER, True)
