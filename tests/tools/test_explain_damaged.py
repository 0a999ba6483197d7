"""tools.explain: no file makes it fall over."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.capture import reader as captures
from stages.capture import writer as capture_writer
from stages.compare.finding import MARK, SIDES, VERSION
from tests.packets import icmp_frame, tcp_frame, udp_frame
from tests.stages.compare import evidence_words as words
from tests.stages.compare.evidence_words import WALL, content, write
from tools import explain
from tools.divergence import NotExplainedError, load

SCENES = ("date", "flags", "order", "timeout", "stuck")


def survives(path: Path) -> bool:
    """Whether it can be shown; a typed error is the only other thing that may happen."""
    try:
        d = load(path)
    except (captures.CaptureError, NotExplainedError):
        return False
    for width in (40, 80, 140):
        lines = explain.picture(d, width, everything=width == 140)
        assert lines and all("\x1b" not in line.plain for line in lines)
    assert json.dumps(explain.as_json(d))
    return True


quick = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(
    st.sampled_from(SCENES), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8), st.data()
)
def test_a_damaged_file_is_a_line_not_a_traceback(
    tmp_path: Path, scene: str, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Bytes changed, cut or added anywhere."""
    blob = bytearray(content(getattr(words, scene)()))
    for at, value in changes:
        blob[at % len(blob)] = value
    cut = data.draw(st.integers(0, len(blob)) | st.just(len(blob)))
    path = tmp_path / "x.pcapng"
    path.write_bytes(bytes(blob[:cut]))
    shown = survives(path)
    assert shown or changes or cut < len(blob)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(SIDES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@quick
@given(st.sampled_from(SCENES), st.data())
def test_a_wrong_verdict_is_a_line_not_a_traceback(tmp_path: Path, scene: str, data: st.DataObject) -> None:
    """The JSON object with any value in any field, over the same packets or none."""
    path = write(getattr(words, scene)(), tmp_path / "x.pcapng")
    packets = captures.read(path, cut=True)
    verdict = json.loads(captures.comments(path)[1])
    for name in data.draw(st.lists(st.sampled_from(sorted(verdict)), max_size=3)):
        inner = verdict[name]
        if isinstance(inner, dict) and inner and data.draw(st.booleans()):
            inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(anything)
        else:
            verdict[name] = data.draw(anything)
    for name in data.draw(st.lists(st.sampled_from(sorted(verdict)), max_size=1)):
        del verdict[name]
    out = capture_writer.header(SIDES, comment=["prose", json.dumps(verdict)])
    for p in packets[: data.draw(st.integers(0, len(packets)))]:
        out += capture_writer.record(p.data, p.ns, interface=SIDES.index(p.interface), missing=p.missing)
    path.write_bytes(out)
    survives(path)


frames_and_marks = st.lists(
    st.tuples(st.binary(max_size=90), st.integers(0, 1), st.booleans(), st.integers(-2, 1 << 40)), max_size=9
)
kinds = st.sampled_from(["tcp", "udp", "icmp", "ip", "fragment", ""])


@quick
@given(frames_and_marks, kinds, st.none() | st.integers(0, 1 << 40))
def test_any_packets_can_be_shown(
    tmp_path: Path, frames: list[tuple[bytes, int, bool, int]], kind: str, position: int | None
) -> None:
    """Frames that are none, differences behind their ends, kinds that do not fit."""
    heads = [tcp_frame("10.0.0.2", "10.0.0.1", 80, 9, seq=5, payload=b"abc")[:54], icmp_frame("10.0.0.2", "10.0.0.1")]
    heads += [udp_frame("2001:db8::2", "2001:db8::1", 53, 9, b"x"), b""]
    window = {"bytes": "00ff", "length": 2}
    verdict = {
        MARK: VERSION, "rule": "payload", "time_ns": WALL, "kind": kind, "position": position, "offset": 1,
        "primary": window, "secondary": window, "packets": [[int(held), at] for _, _, held, at in frames],
    }  # fmt: skip
    out = capture_writer.header(SIDES, comment=["prose", json.dumps(verdict)])
    for n, (data, side, _, _) in enumerate(frames):
        out += capture_writer.record(heads[n % 4] + data, WALL + n, interface=side, missing=n)
    path = tmp_path / "x.pcapng"
    path.write_bytes(out)
    assert survives(path)
