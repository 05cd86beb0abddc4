"""Two clocks: steps of the stamps' one are found, and durations know nothing of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import clocks
from drivers.clocks import SimulatedTime, StepWatch, read_together
from drivers.observer import Ticker
from tests.lockstep import ROBOT, Bench

REST = np.array([0, 0, 0, 0, 0, 0, -1.0], np.float32)
STEPS = st.sampled_from([-3600.0, -10.0, -0.5, -0.05, -0.021, 0.021, 0.05, 0.5, 10.0, 3600.0])


@settings(max_examples=200, deadline=None)
@given(STEPS, st.lists(st.floats(1e-4, 0.3), min_size=3, max_size=30), st.integers(0, 10**6), st.floats(-5e-4, 5e-4))
def test_a_step_is_found_where_it_is_and_nowhere_else(step, waits, seed, drift):
    at, watch = seed % len(waits), StepWatch(0.02)
    now, steady = 1.7e9, 5.0
    assert watch.look(now, steady) == 0.0
    for k, wait in enumerate(waits):
        steady += wait
        now += wait * (1 + drift) + (step if k == at else 0.0)
        found = watch.look(now, steady)
        assert found == (pytest.approx(step, abs=1e-3) if k == at else 0.0)


def test_a_thread_that_is_held_up_between_the_two_clocks_sees_no_step():
    watch = StepWatch(0.02)
    watch.look(100.0, 1.0)
    assert watch.look(100.0, 1.5, doubt=0.5) == 0.0 and watch.look(90.52, 1.52, doubt=0.0) == pytest.approx(-10.0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-4, 0.3), st.sampled_from([0.0, 1e-4, 0.03, 0.4])), min_size=4, max_size=30),
    st.sampled_from([0.0, -10.0, -0.05, 0.05, 0.5, 3600.0]),
    st.integers(0, 10**6),
)
def test_fault_f41_a_busy_machine_between_the_two_clocks_is_no_step_and_hides_none(waits, step, seed):
    """Each time the stamps' clock is read, the thread may be held up before it looks at the steady one."""
    monkeypatch, moment, shift, at = pytest.MonkeyPatch(), [5.0], [0.0], seed % len(waits)
    held = [0.0]

    def now():
        stamp = 1.7e9 + moment[0] + shift[0]
        moment[0] += held[0]
        return stamp

    with monkeypatch.context() as patched:
        patched.setattr(clocks.time, "monotonic", lambda: moment[0])
        watch, found = StepWatch(0.02), []
        for k, (wait, held[0]) in enumerate([(0.0, 0.0), *waits, (0.01, 0.0)]):
            moment[0] += wait
            shift[0] += step if k == at + 1 else 0.0
            found += [seen] if (seen := watch.look(*read_together(now))) else []
    assert not found if step == 0.0 else len(found) <= 1
    assert sum(found) == pytest.approx(step, abs=0.41) or abs(step) < 0.02 + 2 * 0.4, "what doubt cannot hide is found"


@pytest.mark.parametrize("pace", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("piece", [0.001, 0.1])
def test_a_simulators_pace_and_pieces_are_no_step_and_its_jumps_are(pace, piece):
    watch, time, found = StepWatch(0.02, simulated=True), SimulatedTime(), []
    shift, seen = 0.0, []
    for tick in range(4000):
        steady = 10.0 + 0.01 * tick
        shift = {2000: -10.0, 3000: 20.0}.get(tick, shift)
        now = 50.0 + piece * np.floor(pace * steady / piece) + shift if tick > 100 else 0.0
        found += [step] if (step := watch.look(now, steady)) else []
        seen.append(time.read(now, steady))
    assert found == [pytest.approx(-10.0, abs=0.2), pytest.approx(30.0, abs=0.2)]
    assert min(np.diff(seen)) >= 0.0 and seen[-1] == pytest.approx(pace * 39.0, abs=0.3 + piece)


class Stepping:
    """Implements `Clock`."""

    def __init__(self):
        self.time, self.shift, self.slept = 100.0, 0.0, []

    def now(self):
        return self.time + self.shift

    def steady(self):
        return self.time

    def sleep_until(self, moment):
        self.slept.append(max(moment - self.time, 0.0))
        self.time = max(self.time, moment)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.integers(0, 18))
def test_fault_f41_ticks_neither_hang_nor_hurry_after_a_step(step, at):
    clock = Stepping()
    ticker = Ticker(clock, 0.05)
    ticker.begin()
    for k in range(20):
        clock.shift += step if k == at else 0.0
        clock.time += 0.01  # work
        ticker.wait()
    assert clock.slept == pytest.approx([0.04] * 20) and (ticker.ticks, ticker.late) == (20, 0)


@pytest.mark.parametrize("step", [-3600.0, -10.0, -0.05, 0.05, 10.0, 3600.0])
def test_fault_f41_an_episode_ends_with_the_steps_name_and_the_next_one_runs(step):
    """Readings of before the step are of no time that can be compared: they are forgotten, on both sides."""
    bench = Bench()
    env = bench.env()
    env.reset(0)
    env.step(REST)
    bench.shift += step
    begin = bench.time
    over = env.step(REST)
    assert over.truncated and env.aborted == f"the clock stepped by {step:+.2f} s"
    assert bench.time - begin == pytest.approx(1.0 / ROBOT.rate, abs=1e-6)
    bench.sleep_until(bench.time + 2.0)
    bench.reset()
    obs = env.reset(1)
    assert abs(obs["stamp/state"].item() - bench.now()) < 0.1
    for _ in range(10):
        last = env.step(REST)
    assert not env.aborted and not last.truncated and last.obs["stamp/state"].item() > obs["stamp/state"].item()
