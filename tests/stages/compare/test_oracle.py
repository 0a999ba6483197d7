"""colo-compare against its oracle: after every single packet both have released the same."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ring import hot
from tests.oracle.compare import Compare as Oracle
from tests.stages.compare.audit import audit
from tests.stages.compare.scenes import Scene, scenes
from tests.stages.compare.test_compare import DONE, check, rig

EXAMPLES = 60 if hot.JIT else 120
settings_here = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def follow(
    arrivals: list[tuple[str, bytes]], policy: str, restarts: frozenset[int] = frozenset(), settle: bool = False,
    tunnels: str = "inner",
) -> dict[str, int]:  # fmt: skip
    """Feed (port, frame) to both, and compare after each; the counters in the end."""
    oracle = Oracle(strict=policy == "strict", tunnels=tunnels)
    with rig(ack_policy=policy, max_queue_size=1024, tunnels=tunnels) as g:
        asked = 0
        for i, (port, frame) in enumerate(arrivals):
            expected = oracle.primary(frame) if port == "primary_in" else oracle.secondary(frame)
            g.feed(port, frame)
            if i in restarts:
                g.restart()
            g.run(now=10)
            assert Counter(g.take("outdev")) == Counter(expected), f"after arrival {i}"
            asked += len(g.take("notify_out"))
            assert asked == oracle.asked
            assert check(g)["held_primary"] == oracle.held_primary
            audit(g)
        c = check(g)
        assert c["divergences"] == oracle.divergences
        if settle:
            g.feed("notify_in", DONE)
            g.run(now=20)
            assert g.take("outdev") == oracle.checkpoint()
            c = check(g)
            assert c["held"] == 0
        elif not oracle.divergences:
            assert c["held"] == 0 and asked == 0
        return c


@given(scenes(), st.sampled_from(["strict", "relaxed"]), st.frozensets(st.integers(0, 60), max_size=3))
@settings_here
def test_equal_outputs_leave_one_by_one_as_the_oracle_says(scene: Scene, policy: str, restarts: frozenset[int]) -> None:
    """However the two sides are cut, repeated, shuffled and interleaved; also over restarts of the stage."""
    follow(scene.arrivals(), policy, restarts)


@given(scenes(differs=True), st.frozensets(st.integers(0, 60), max_size=2))
@settings_here
def test_a_difference_is_found_where_the_oracle_finds_it(scene: Scene, restarts: frozenset[int]) -> None:
    """And the checkpoint then releases, in the order of arrival, what was held."""
    follow(scene.arrivals(), "strict", restarts, settle=True)
