"""What comes too seldom for the policy's rate, and a simulator's clock that is slow, stands, comes in pieces: named."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.authority import Authority
from drivers.clocks import Pace
from drivers.consistent import PATIENCE
from drivers.pacing import Pacing
from robot_rl.types import RobotRLError
from tests.benchmarks.fake_ros import Times
from tests.lockstep import DOWN, MIDDLE
from tests.test_malformed import SEES as WHOLE
from tests.test_malformed import Ros, say_how_the_arm_is
from tests.test_stream_faults import SEES, World

PERIOD, AGE = 1.0 / SEES.rate, SEES.limits.age
PARTS = {"pose": "current_pose", "joints": "joint_states", "fingers": "finger", "wrench": "wrench"}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(PARTS)), st.sampled_from([5.0, 12.0, 20.0, 30.0]), st.sampled_from([0.1, 0.2, 0.4]))
def test_fault_f46_a_part_that_comes_too_seldom_for_the_policy_is_named_with_both_rates(part, rate, gap):
    robot = replace(SEES, rate=rate, limits=replace(SEES.limits, age=0.3))
    world = World(robot)
    world.every[part] = gap
    pacing = Pacing(robot, world.arm, False)
    world.run(6.0 * gap)
    said, refused = pacing.slow(), pacing.unfit()
    for words, longest in ((said, PATIENCE / rate), (refused, 0.3 - 1.0 / robot.servo_rate)):
        if gap < 0.99 * longest:
            assert words == ""
        elif gap > 1.01 * longest:
            numbers = f"{PARTS[part]} comes at {1 / gap:.1f} Hz, and {1 / longest:.1f} Hz or more are needed"
            assert numbers in words, words


def test_fault_f46_one_long_pause_is_no_rate():
    world = World()
    pacing = Pacing(SEES, world.arm, False)
    world.run(1.0)
    world.wrong.update(dict.fromkeys(world.due))
    world.run(10.0)
    world.wrong.clear()
    world.run(0.05)
    assert (pacing.slow(), pacing.unfit()) == ("", "")


class Slow:
    """A simulator's clock at `pace` of real time that is published each `every` [s] of real time."""

    def __init__(self, pace, every, begin=50.0):
        self.pace, self.every, self.begin = pace, every, begin

    def now(self, steady):
        return self.begin + self.pace * self.every * np.floor(steady / self.every + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0.01, 0.05, 0.2, 0.5, 1.0, 3.0]), st.sampled_from([0.002, 0.01, 0.05, 0.1, 0.2, 1.0]))
def test_fault_f18_a_simulators_clock_that_makes_a_holder_late_is_named_by_its_pace(pace, every):
    watch, clock = Pace(), Slow(pace, every)
    for tick in range(round(max(2.0, 6 * every) / 0.01)):
        steady = 1000.0 + 0.01 * tick
        watch.look(clock.now(steady), steady)
    gap = max(PERIOD / pace, every)
    for longest in (PATIENCE * PERIOD, AGE - 0.01):
        said = watch.words(PERIOD, longest)
        if gap < 0.9 * longest:
            assert said == ""
        elif gap > 1.15 * longest:
            wanted = r"runs at ([0-9.]+) of real time" if PERIOD / pace > 1.15 * longest else "comes every|stands still"
            assert (found := re.search(wanted, said)), said
            if found.groups() and every <= 0.05:
                assert float(found[1]) == pytest.approx(pace, rel=0.3)


def test_fault_f18_a_clock_that_stands_or_never_came_is_named_and_a_holders_silence_with_it():
    watch, authority = Pace(), Authority(("teleop", "policy"), AGE)
    watch.look(0.0, 999.0)
    assert "no time comes on /clock" in watch.words(PERIOD, AGE)
    authority.explain = lambda: watch.words(PERIOD, PATIENCE * PERIOD)
    authority.arm("policy", 1000.0)
    for tick in range(200):
        steady = 1000.0 + 0.01 * tick
        watch.look(50.0 + min(0.01 * tick, 1.0), steady)
        if tick <= 100:
            authority.hear("policy", steady)
        authority.watch(steady)
    assert re.fullmatch(r"'policy' is silent for 0.2\d s: /clock stands still for 0.2\d s", authority.reason)


class Simulated(Ros):
    """A node with use_sim_time."""

    def __init__(self, clock):
        super().__init__(SimulatedTimes(clock))

    def get_parameter(self, _name):
        return SimpleNamespace(value=True)


class SimulatedTimes(Times):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    @property
    def now(self):
        return self.clock.now(self.steady)


def test_fault_f18_nobody_waits_for_ever_for_a_simulator_that_stands_still(monkeypatch):
    """Else a policy could not be deactivated, nor its process ended, while the simulator is paused."""
    from drivers.observer import Observer
    from drivers.ros_robot import STANDS, RosClock
    from drivers.sync import Stream

    node, woken = Simulated(Slow(1.0, 0.01)), []
    times = node.times
    monkeypatch.setattr(time, "monotonic", lambda: times.steady)
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(times, "steady", times.steady + max(seconds, 1e-4)))
    clock = RosClock(node, lambda: bool(woken))
    for _ in range(3):
        begin = times.steady
        clock.sleep_until(clock.steady() + 0.05)
        assert times.steady - begin == pytest.approx(0.05, abs=0.02)
    times.clock.pace, times.clock.begin = 0.0, times.now
    begin = times.steady
    clock.sleep_until(clock.steady() + 0.05)
    assert times.steady - begin == pytest.approx(STANDS, abs=0.05)
    robot = replace(SEES, cameras={}, state=SEES.state[:3])
    with pytest.raises(RobotRLError, match="nothing new comes from arm"):
        Observer(robot, Stream("arm", 400)).await_readings(clock)
    assert times.steady - begin < 8.0
    woken.append(True)
    begin = times.steady
    clock.sleep_until(clock.steady() + 0.05)
    assert times.steady == begin


@pytest.mark.parametrize(
    ("pace", "every", "words"),
    [
        (0.05, 0.01, "/clock runs at 0.05 of real time: a policy of 20 Hz then speaks every 1.0. s"),
        (1.0, 0.2, "the time on /clock comes every 0.20 s only: a policy of 20 Hz then speaks every 0.2. s"),
        (0.5, 0.01, ""),
        (1.0, 0.01, ""),
    ],
)
def test_fault_f18_the_arms_node_refuses_a_simulator_that_is_too_slow_and_names_one_that_becomes_so(
    monkeypatch, pace, every, words
):
    from drivers.arm_node import ArmNode
    from drivers.messages import pose_msg

    clock = Slow(pace, every)
    node = Simulated(clock)
    monkeypatch.setattr(time, "monotonic", lambda: node.times.steady)
    arm, answer = ArmNode(node, WHOLE), None

    def run(seconds, speaks=False):
        said = node.times.now
        for _ in range(round(seconds / 0.01)):
            node.times.steady += 0.01
            say_how_the_arm_is(node, WHOLE)
            if speaks and node.times.now >= said + PERIOD - 1e-9:
                said = node.times.now
                node.heard["policy/target_pose"](pose_msg(said, "base", MIDDLE, DOWN))
            arm.tick()

    run(2.0)
    answer = node.services["policy/arm"]()
    assert answer.success == (not words) and re.search(words, answer.message), answer.message
    if words:
        return
    run(1.0, speaks=True)
    assert not arm.authority.reason and arm.ticks == 300
    clock.begin, clock.pace = node.times.now - 0.02 * node.times.steady, 0.02
    run(2.0, speaks=True)
    assert re.search(r"silent for 0.2\d s.*/clock runs at 0.\d+ of real time", arm.authority.reason), (
        arm.authority.reason
    )


@pytest.mark.parametrize(
    ("topic", "rate", "level", "words"),
    [
        ("wrench", 100.0, "OK", ""),
        ("wrench", 12.0, "WARN", "it comes at 12.0 Hz, and 28.6 Hz or more are needed for its silence"),
        ("wrench", 4.2, "ERROR", "above 0.20 s the arm is held"),
        ("pose", 12.0, "ERROR", "above 0.07 s the arm is held"),
    ],
)
def test_fault_f46_check_knows_what_counts_by_its_age_only(topic, rate, level, words):
    from drivers.check_listener import CheckListener
    from drivers.health import Level

    node = Ros(Times())
    listener = CheckListener(node, WHOLE, 10.0)
    heard = next(heard for heard in listener.streams if heard.name == topic)
    heard.health.limits = replace(heard.health.limits, rate=rate)  # that it is slow is another finding
    for k in range(int(10 * rate)):
        heard.add(100.0 + k / rate, 100.0 + k / rate, k / rate, k)
    found, said = heard.verdict((k + 0.5) / rate)
    assert Level[level] == found and words in said, said
