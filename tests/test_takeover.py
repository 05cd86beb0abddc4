"""Whose word takes the arm from a policy: a person's of now. One that the gate could only reject takes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.authority import HOMING
from robot_rl.types import Target
from tests.lockstep import DOWN, MIDDLE, ROBOT, Bench

PERIOD, AGE, AHEAD = 1.0 / ROBOT.rate, ROBOT.limits.age, ROBOT.limits.ahead
OLD = st.sampled_from([AGE + 0.001, AGE - 0.001, 0.3, 1.0, 3600.0, -AHEAD - 0.001, -0.3, -3600.0, 1.7e9])
BAD = st.sampled_from(["position", "turn", "gripper", "length"])


def wish(bench, source, age=0.0):
    return Target(bench.now() - age, MIDDLE.copy(), DOWN.copy(), None, source)


def spoilt(target, part):
    if part == "length":
        return replace(target, turn=1.1 * DOWN)
    size = {"position": 3, "turn": 4, "gripper": None}[part]
    return replace(target, **{part: math.nan if size is None else np.full(size, math.inf)})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(OLD, BAD), min_size=1, max_size=12), st.booleans())
def test_fault_f16_a_word_that_could_only_be_rejected_takes_no_arm_and_stops_none(words, homing):
    """Otherwise a page whose clock is slow would stop each policy for good, as would a teleop that begins to fail."""
    bench = Bench()
    bench.sleep_until(bench.time + 4.0)
    bench.servo.arm(HOMING if homing else "policy", bench.state(), bench.now(), bench.time)
    bench.sleep_until(bench.time + 0.05)
    lease = bench.servo.leases
    for word in words:
        if not homing:
            bench.command(wish(bench, "policy"))
        bad = wish(bench, "teleop", word) if isinstance(word, float) else spoilt(wish(bench, "teleop"), word)
        assert not bench.servo.offer(bad, bench.now(), bench.time)
        assert bench.servo.not_taken or bad.stamp <= bench.servo.since, "it is told, but of before the hand-over"
        bench.sleep_until(bench.time + PERIOD)
        assert (bench.servo.leases, bench.stopped) == (lease, ""), bench.stopped
    assert bench.servo.gate.counts["rejected"] == 0
    assert bench.servo.offer(wish(bench, "teleop", 0.05), bench.now(), bench.time), "a word of now does"
    assert (bench.servo.gate.holder, bench.servo.leases, bench.servo.not_taken) == ("teleop", lease + 1, "")


@pytest.mark.parametrize(("age", "words"), [(0.5, "0.500 s old"), (-0.3, "-0.300 s old"), (AGE, "0.200 s old")])
def test_fault_f16_why_it_takes_no_arm_is_told_with_the_remedy(age, words):
    bench = Bench()
    bench.sleep_until(bench.time + 1.0)
    bench.servo.arm("policy", bench.state(), bench.now(), bench.time)
    bench.sleep_until(bench.time + 1.0)
    assert not bench.servo.offer(wish(bench, "teleop", age), bench.now(), bench.time)
    assert words in bench.servo.not_taken and "compare the two computers' clocks" in bench.servo.not_taken
