"""The comparison of benchmark ratios with a baseline."""

from __future__ import annotations

from tools.bench import better, machine, regressions

BASELINE = {"a": {"over Queue": 100.0, "over Pipe": 50.0}, "gone": {"over Queue": 1.0}}


def test_a_ratio_within_the_tolerance_is_no_regression() -> None:
    assert regressions({"a": {"ratios": {"over Queue": 71.0, "over Pipe": 900.0}}}, BASELINE, 0.3) == {}


def test_a_ratio_that_fell_is_named_with_both_numbers() -> None:
    found = {"a": {"ratios": {"over Queue": 69.0, "over Pipe": 50.0}}, "new": {"ratios": {"over Queue": 0.1}}}
    assert regressions(found, BASELINE, 0.3) == {"a": ["over Queue: 69, was 100"]}


def test_the_better_of_two_runs_counts_ratio_by_ratio() -> None:
    merged = better(
        {"a": {"ratios": {"x": 1.0, "y": 5.0}, "figures": {"f": 1}}}, {"a": {"ratios": {"x": 3.0, "y": 4.0}}}
    )
    assert merged == {"a": {"ratios": {"x": 3.0, "y": 5.0}, "figures": {"f": 1}}}


def test_the_machine_is_named() -> None:
    assert {"cpu", "cores", "kernel", "python", "numba"} <= machine().keys()
