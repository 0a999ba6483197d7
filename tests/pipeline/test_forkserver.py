"""What the fork server says of compiling; its life is in test_spawner."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import structlog

from pipeline import forkserver

PLAIN = "plain compilation: a slower first start, slower kernels"
ASKED = "plain compilation, as asked: a slower first start, slower kernels"
UNKEPT = "compiled kernels cannot be kept: every start compiles them"
WHY = "Numba 0.99.1 is not one that the tests have seen (0.68)"


@pytest.mark.parametrize(
    ("plain", "asked", "jit", "kept", "said"),
    [
        ("", False, True, True, []),
        ("", False, False, False, []),  # JIT is off: nothing is compiled, or kept
        (WHY, False, True, True, [{"event": PLAIN, "log_level": "warning", "reason": WHY}]),
        ("asked", True, True, True, [{"event": ASKED, "log_level": "info", "reason": "asked"}]),
        ("", False, True, False, [{"event": UNKEPT, "log_level": "warning", "cache": "/none"}]),
    ],
    ids=["as usual", "JIT is off", "a Numba that nobody has seen", "as asked", "nothing can be kept"],
)
def test_what_is_not_as_usual_is_one_line(
    plain: str, asked: bool, jit: bool, kept: bool, said: list[dict[str, str]]
) -> None:
    """Which Numba was found, which are known, what follows; nothing where kernels are linked and kept."""
    hot = SimpleNamespace(PLAIN=plain, ASKED=asked, JIT=jit, KEPT=kept, cache_dir=lambda: "/none")
    with structlog.testing.capture_logs() as lines:
        forkserver._say_how(hot, structlog.get_logger())
    assert lines == said
