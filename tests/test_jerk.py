"""Jerk beside box, cone, speed and acceleration: kept whatever is asked for, braking too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.gate import Gate, GateLimits
from drivers.jerk import speed_to_stop
from robot_rl.geometry import (
    angle_between,
    quat_from_vector,
    quat_inverse,
    quat_product,
    vector_from_quat,
)
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, RobotRLError, Target

LOW, HIGH = np.array([0.2, -0.3, 0.05]), np.array([0.7, 0.3, 0.6])
LIMITS = GateLimits(tuple(LOW), tuple(HIGH), jerk=20.0, turn_jerk=60.0)
PANDA, DOWN, PERIOD = arm_limits("Panda"), np.array([1.0, 0.0, 0.0, 0.0]), 0.02


def measured(position, turn, stamp):
    return ArmState(stamp, np.array(position), np.array(turn), np.zeros(7), 1.0, np.zeros(6))


def begun(limits=LIMITS, place=(0.45, 0.0, 0.3)):
    gate = Gate(limits, PANDA, PERIOD)
    gate.arm(measured(place, DOWN, 0.0), "policy", 0.0)
    return gate


def worst(positions, turns, limits, period=PERIOD):
    """The most of speed, acceleration and jerk, of tool and turn, as shares of their limits; how far outside [m]."""
    positions = np.vstack([positions[:1]] * 3 + [positions])
    turns = [turns[0]] * 3 + list(turns)
    rolls = [vector_from_quat(quat_product(b, quat_inverse(a))) for a, b in zip(turns, turns[1:], strict=False)]
    shares = []
    for steps, most in (
        (np.diff(positions, axis=0), (limits.speed, limits.acceleration, limits.jerk)),
        (np.array(rolls), (limits.turn_speed, limits.turn_acceleration, limits.turn_jerk)),
    ):
        for k, limit in enumerate(most):
            rate = np.diff(steps, n=k, axis=0) / period ** (k + 1)
            shares.append(float(np.linalg.norm(rate, axis=1).max() / limit))
    outside = max(float((LOW - positions).max()), float((positions - HIGH).max()))
    return np.array(shares), outside


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([5.0, 20.0, 100.0]))
@example(1196, 20.0)  # at a wall
def test_whatever_is_asked_for_jerk_and_all_else_are_kept(seed, jerk):
    """At walls and at the cone's side, with wild targets, rejects and stops."""
    rng, limits = np.random.default_rng(seed), replace(LIMITS, jerk=jerk, turn_jerk=3 * jerk, lead=0.2)
    gate = begun(limits, rng.uniform(LOW + 0.02, HIGH - 0.02))
    positions, turns, way, roll = [gate.setpoint.position], [gate.setpoint.turn], np.zeros(3), np.zeros(3)
    for tick in range(1, 250):
        now, here = tick * PERIOD, gate.setpoint
        if tick % 40 == 1:
            way, roll = rng.normal(size=3), rng.normal(size=3) * rng.choice([0.0, 0.5])
            way *= rng.uniform(0, 1.2) * limits.speed * PERIOD / np.linalg.norm(way)
        wish = here.position + way * rng.choice([1.0, 5.0]) + (rng.normal(0, 0.02, 3) if rng.random() < 0.1 else 0.0)
        wish = wish * (np.nan if rng.random() < 0.02 else 1.0)
        turn = quat_product(quat_from_vector(roll * limits.turn_speed * PERIOD), here.turn)
        if tick == 200:
            gate.stop("the test says so")
        ruling = gate.check(Target(now, wish, turn, 1.0, "policy"), measured(here.position, here.turn, now), now, now)
        positions.append(ruling.sent.position)
        turns.append(ruling.sent.turn)
    shares, outside = worst(np.array(positions), turns, limits)
    assert (shares <= 1 + 1e-5).all() and outside <= 1e-8, (shares, outside)
    tool = np.array([quat_product(quat_product(q, np.array([0, 0, 1.0, 0])), quat_inverse(q))[2] for q in turns])
    assert np.arccos(np.clip(-tool, -1, 1)).max() <= limits.tilt + 1e-6


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0005, 0.2), st.floats(0.0, 0.6), st.floats(5.0, 200.0), st.floats(1.0, 6.0), st.booleans())
@example(0.01, 0.0, 10.5, 2.0, False)  # it swung by 5 mm, for 2 s
def test_fault_f38_a_place_to_stop_at_is_not_passed(far, roll, jerk, acceleration, moves):
    """Nor is it swung about: from rest, and from a motion towards it that could still end before it."""
    gate = begun(replace(LIMITS, jerk=jerk, turn_jerk=3 * jerk, acceleration=acceleration))
    motion, place = gate._motion, gate._motion.position
    for tick in range(20 if moves else 0):
        motion, _ = gate._mover.towards(motion, place + [(tick + 1) * 0.004, 0.0, 0.0], DOWN, staying=False)
    rest = motion.brake[-1].position[0] if motion.brake else motion.position[0]
    goal, turn = np.array([rest + far, 0.0, 0.3]), quat_product(quat_from_vector(np.array([roll, 0.0, 0.0])), DOWN)
    goal = np.minimum(goal, HIGH)
    passed, ticks = 0.0, 0
    while not (motion.rests and np.abs(motion.position - goal).max() < 1e-4):
        motion, _ = gate._mover.towards(motion, goal, turn, staying=True)
        passed, ticks = max(passed, motion.position[0] - goal[0]), ticks + 1
        assert ticks < 150
    assert passed < 1e-4


@settings(max_examples=15, deadline=None)
@given(st.tuples(*(st.floats(lo, hi) for lo, hi in zip(LOW, HIGH, strict=True))), st.floats(-0.3, 0.3))
def test_a_place_to_stop_at_is_reached_and_kept(goal, roll):
    gate = begun()
    turn, motion = quat_product(quat_from_vector(np.array([roll, 0.0, 0.0])), DOWN), gate._motion
    for _ in range(300):
        motion, _ = gate._mover.towards(motion, np.array(goal), turn, staying=True)
    assert np.linalg.norm(motion.position - goal) < 1e-5 and angle_between(motion.turn, turn) < 1e-5
    assert np.linalg.norm(motion.velocity) < 1e-4


def test_a_smooth_path_is_followed_and_a_stop_takes_no_longer_than_the_limits_need():
    gate, xs = begun(), []
    for tick in range(1, 150):
        now = tick * PERIOD
        position = np.array([0.45 + 0.05 * (1 - np.cos(1.5 * now)), 0.0, 0.3])
        ruling = gate.check(Target(now, position, DOWN, 1.0, "policy"), measured(position, DOWN, now), now, now)
        assert ruling.verdict in ("sent", "clipped"), ruling.reason
        xs.append(np.linalg.norm(ruling.sent.position - position))
    assert max(xs[20:]) < 0.01
    gate.stop("the test says so")
    ticks = 0
    while not gate._motion.rests:
        ticks, now = ticks + 1, now + PERIOD
        gate.check(Target(now, position, DOWN, 1.0, "policy"), measured(position, DOWN, now), now, now)
    speed, c = 0.05 * 1.5, LIMITS
    assert ticks * PERIOD <= speed / c.acceleration + 3 * c.acceleration / c.jerk + 0.1


@given(st.floats(1e-6, 1.0), st.floats(0.1, 10.0), st.floats(0.5, 200.0))
def test_the_speed_to_stop_from_leaves_room_to_stop(distance, acceleration, jerk):
    speed = speed_to_stop(distance, acceleration, jerk)
    longest = (
        speed / acceleration + acceleration / jerk if speed > acceleration**2 / jerk else 2 * (speed / jerk) ** 0.5
    )
    assert 0.5 * speed * longest <= distance


def test_without_it_nothing_changes_and_where_joints_are_gated_it_is_refused():
    assert GateLimits(tuple(LOW), tuple(HIGH)).jerk == 0.0
    for value in (-1.0, np.nan, np.inf):
        with pytest.raises(RobotRLError, match="jerk is .*from 0"):
            replace(LIMITS, jerk=value)
    with pytest.raises(RobotRLError, match="jerk 20.0 .*kinematics.gated"):
        Gate(LIMITS, PANDA, PERIOD, object())
    only = begun(replace(LIMITS, turn_jerk=0.0))  # one of the two
    for tick in range(1, 20):
        now = tick * PERIOD
        sent = only.check(Target(now, np.array([0.46, 0.0, 0.3]), DOWN, 1.0, "policy"),
                          measured((0.45, 0.0, 0.3), DOWN, now), now, now).sent  # fmt: skip
    assert sent.position[0] > 0.452
