"""Children: states, strategies, intensity, backoff, heartbeats; no process is touched."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.children import (
    MOVES,
    MS,
    PROHIBITED,
    Ask,
    BadMove,
    Child,
    ChildSpec,
    Family,
    GiveUp,
    Kill,
    Policy,
    Spawn,
    State,
)

NAMES = ("sink", "middle", "source")


def family(**policy: object) -> Family:
    """Three running children, sink first."""
    made = Family([ChildSpec(name, (name,)) for name in NAMES], Policy(**policy), seed=1)  # type: ignore[arg-type]
    made.start_all(0)
    for pid, name in enumerate(NAMES, 100):
        made.spawned(name, pid, 0)
        made.ready(name, 0)
    return made


def states(made: Family) -> list[State]:
    """States in start order."""
    return [child.state for child in made.children.values()]


def respawn(made: Family, actions: list, now: int) -> None:
    """What the supervisor does with Spawn: the new process is ready at once."""
    for action in actions:
        if isinstance(action, Spawn):
            made.spawned(action.child, 1, now)
            made.ready(action.child, now)


def test_children_start_in_start_order():
    made = Family([ChildSpec(name, (name,)) for name in NAMES], Policy())
    assert made.start_all(0) == [Spawn(name) for name in NAMES]
    assert states(made) == [State.STARTING] * 3


def test_no_move_is_both_allowed_and_prohibited_and_each_has_its_reason():
    assert not MOVES.keys() & PROHIBITED.keys()
    assert all(MOVES.values())
    assert all(PROHIBITED.values())


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_a_move_that_no_rule_allows_raises(old, new):
    child = Child(ChildSpec("x", ("x",)), old)
    if (old, new) in MOVES:
        child.move(new, 5)
        assert (child.state, child.since_ns) == (new, 5)
    else:
        with pytest.raises(BadMove, match="x: "):
            child.move(new, 5)


def test_the_first_crash_after_a_stable_time_is_mended_at_once():
    made = family()
    assert made.exited("middle", "killed by SIGKILL", 1000 * MS) == [Spawn("middle")]
    assert made.children["middle"].restarts == 1
    assert made.children["middle"].reason == "killed by SIGKILL"
    assert made.children["sink"].state is State.RUNNING


def test_further_crashes_in_a_row_wait_longer_each_time_up_to_the_cap():
    made = family(intensity=100, jitter=0.0, backoff_initial_ns=50 * MS, backoff_max_ns=180 * MS)
    now, waits = 1000 * MS, []
    for _ in range(6):
        actions = made.exited("middle", "crash", now)
        waits.append((made.children["middle"].retry_ns - now) // MS)
        now = made.children["middle"].retry_ns
        respawn(made, actions or made.tick(now, {}), now)
        now += MS
    assert waits == [0, 50, 100, 180, 180, 180]


def test_a_stable_time_resets_the_backoff():
    made = family(intensity=100, stable_ns=500 * MS)
    now = 1000 * MS
    respawn(made, made.exited("middle", "crash", now), now)
    made.exited("middle", "crash", now + MS)
    assert made.children["middle"].state is State.BACKOFF
    now = made.children["middle"].retry_ns
    respawn(made, made.tick(now, {}), now)
    assert made.exited("middle", "crash", now + 500 * MS) == [Spawn("middle")]


def test_nothing_is_started_before_its_backoff_is_over():
    made = family(intensity=100)
    now = 1000 * MS
    respawn(made, made.exited("middle", "crash", now), now)
    made.exited("middle", "crash", now)
    due = made.next_deadline()
    assert due is not None
    beats = dict.fromkeys(NAMES, now)
    assert made.tick(due - 1, beats) == []
    assert made.tick(due, beats) == [Spawn("middle")]


@given(st.integers(0, 2**32), st.integers(2, 200))
def test_jitter_only_shortens_and_is_the_same_for_the_same_seed(seed, crashes):
    policy = Policy(jitter=0.2)
    one, two = (Family([], policy, seed=seed).delay(crashes) for _ in range(2))
    full = min(policy.backoff_initial_ns * 2 ** (crashes - 2), policy.backoff_max_ns)
    assert one == two
    assert 0.8 * full - 1 <= one <= full


def test_past_the_intensity_the_pipeline_is_given_up_with_the_reason():
    made = family(intensity=2, period_ns=10_000 * MS)
    now = 1000 * MS
    for _ in range(2):
        actions = made.exited("middle", "crash", now)
        now = max(made.children["middle"].retry_ns, now)
        respawn(made, actions or made.tick(now, {}), now)
    (action,) = made.exited("middle", "killed by SIGSEGV", now)
    assert isinstance(action, GiveUp)
    assert action.child == "middle"
    assert "3 crashes within 10 s" in action.why
    assert "SIGSEGV" in action.why
    assert made.children["middle"].state is State.FATAL


def test_crashes_further_apart_than_the_period_never_add_up():
    made = family(intensity=1, period_ns=1000 * MS)
    for now in range(2000 * MS, 20_000 * MS, 1001 * MS):
        actions = made.exited("middle", "crash", now)
        assert actions == [Spawn("middle")]
        respawn(made, actions, now)


def test_one_for_all_takes_the_others_down_sources_first_and_starts_all_sinks_first():
    made = family(strategy="one_for_all")
    now = 1000 * MS
    assert made.exited("middle", "crash", now) == [Ask("source"), Ask("sink")]
    assert made.exited("source", "left with status 0", now) == []
    assert made.exited("sink", "left with status 0", now) == [Spawn(name) for name in NAMES]


def test_rest_for_one_leaves_alone_what_was_started_before():
    made = family(strategy="rest_for_one")
    now = 1000 * MS
    assert made.exited("middle", "crash", now) == [Ask("source")]
    assert made.exited("source", "left with status 0", now) == [Spawn("middle"), Spawn("source")]
    assert made.children["sink"].state is State.RUNNING


def test_a_silent_heartbeat_is_a_crash_with_that_reason():
    made = family(heartbeat_ns=2000 * MS)
    beats = dict.fromkeys(NAMES, 1)
    for now in range(0, 2001 * MS, 100 * MS):
        beats.update(sink=now, source=now)
        assert made.tick(now, beats) == []
    assert made.tick(2100 * MS, beats) == [Kill("middle", "no heartbeat for 2000 ms")]
    assert made.tick(2200 * MS, beats) == []  # once
    made.exited("middle", "killed by SIGKILL", 2300 * MS)
    assert made.children["middle"].reason == "no heartbeat for 2000 ms"


def test_a_supervisor_that_was_stopped_itself_does_not_blame_its_children():
    made = family(heartbeat_ns=2000 * MS)
    made.tick(100 * MS, dict.fromkeys(NAMES, 100 * MS))
    assert made.tick(60_000 * MS, dict.fromkeys(NAMES, 100 * MS)) == []
    assert made.tick(60_100 * MS, dict.fromkeys(NAMES, 60_090 * MS)) == []


def test_before_its_first_heartbeat_a_child_has_the_start_timeout():
    made = Family([ChildSpec("a", ("a",))], Policy(heartbeat_ns=100 * MS, start_timeout_ns=1000 * MS))
    made.start_all(0)
    made.tick(0, {"a": 0})
    made.spawned("a", 7, 0)
    for now in range(0, 1001 * MS, 40 * MS):
        assert made.tick(now, {"a": 0}) == []
    assert made.tick(1040 * MS, {"a": 0}) == [Kill("a", "no heartbeat for 1000 ms")]


def test_a_child_that_never_becomes_ready_lives_as_long_as_its_heart_beats():
    made = Family([ChildSpec("a", ("a",))], Policy())
    made.start_all(0)
    made.spawned("a", 7, 0)
    for now in range(0, 60_000 * MS, 500 * MS):
        assert made.tick(now, {"a": now}) == []
    assert made.children["a"].state is State.STARTING


def test_stop_and_start_by_hand():
    made = family()
    assert made.stop("middle", 10) == [Ask("middle")]
    assert made.exited("middle", "left with status 0", 20) == []
    assert made.children["middle"].state is State.STOPPED
    assert made.tick(10**12, {}) == []  # it stays down
    assert made.start("middle", 10**12) == [Spawn("middle")]


def test_a_restart_by_hand_is_no_crash():
    made = family(intensity=0)
    assert made.stop("middle", 10, again=True) == [Ask("middle")]
    assert made.exited("middle", "left with status 0", 20) == [Spawn("middle")]
    assert made.children["middle"].restarts == 1


def test_who_does_not_leave_is_killed():
    made = family()
    made.stop("middle", 0, within_ns=300 * MS)
    assert made.next_deadline() == 300 * MS
    beats = dict.fromkeys(NAMES, 300 * MS)
    assert made.tick(300 * MS, beats) == [Kill("middle", "did not leave when asked")]
    made.exited("middle", "killed by SIGKILL", 301 * MS)
    assert made.children["middle"].state is State.STOPPED


def test_once_the_pipeline_comes_down_nothing_is_started_any_more():
    made = family()
    made.hold(1000 * MS)
    assert made.exited("middle", "crash", 2000 * MS) == []
    assert made.children["middle"].state is State.STOPPED
    assert made.tick(10**12, {}) == []


@given(st.data())
def test_whatever_happens_only_allowed_moves_are_made(data):
    made = family(
        strategy=data.draw(st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"])), intensity=3, jitter=0.1
    )
    now = 0
    for _ in range(data.draw(st.integers(1, 30))):
        now += data.draw(st.integers(0, 800)) * MS
        name = data.draw(st.sampled_from(NAMES))
        child = made.children[name]
        event = data.draw(st.sampled_from(["exit", "ready", "stop", "start", "again", "tick"]))
        actions: list = []
        if event == "exit" and child.up:
            actions = made.exited(name, "crash", now)
        elif event == "ready":
            made.ready(name, now)
        elif event in ("stop", "again"):
            actions = made.stop(name, now, again=event == "again")
        elif event == "start":
            actions = made.start(name, now)
        else:
            actions = made.tick(now, dict.fromkeys(NAMES, now))
        for action in actions:
            if isinstance(action, Spawn):
                assert made.children[action.child].state is State.STARTING
                made.spawned(action.child, 9, now)


def test_how_long_a_child_must_live_to_be_stable_grows_with_its_backoff_up_to_the_limit():
    policy = Policy(backoff_initial_ns=50 * MS, stable_ns=3000 * MS)
    made = Family([], policy)
    assert [made.stable_after(n) // MS for n in (0, 1, 2, 3, 4, 9)] == [250, 250, 500, 1000, 2000, 3000]


def test_a_child_without_a_process_is_not_killed_for_not_leaving():
    """Its request is with the fork server; once there is a process its time to leave counts."""
    made = Family([ChildSpec("m", ("m",))], Policy())
    made.start_all(0)
    assert made.stop("m", 1) == [Ask("m")]
    late = 1 + made.policy.shutdown_ns
    assert made.tick(late, {}) == []
    assert made.next_deadline() is None
    made.spawned("m", 7, late)
    assert made.tick(late + 1, {}) == [Kill("m", "did not leave when asked")]
    assert made.next_deadline() == late + 1 + made.policy.shutdown_ns
