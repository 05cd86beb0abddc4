"""Joints that are sent keep every limit, also past singularities; and the setpoint is where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drivers.gate import Gate, GateLimits
from robot_rl.geometry import angle_between, quat_from_vector, quat_inverse, quat_product, vector_from_quat
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, Target
from tests.benchmarks import singular_paths

PANDA, PERIOD = arm_limits("Panda"), 0.02
DOWN = np.array([1.0, 0.0, 0.0, 0.0])
MIDDLE = np.array([0.45, 0.0, 0.3])
LIMITS = GateLimits((0.2, -0.3, 0.05), (0.7, 0.3, 0.6))
READY = np.array([0.0, 0.0, 0.0, -1.5, 0.0, 2.0, 0.0])


class Gantry:
    """Implements `Kinematics`: joints 1 to 3 carry the tool along x, y and z, `pitch` metres a radian; 5 to 7 turn it.

    Its hand is nowhere near where a Panda's is; a joint beyond `reach` [rad] carries nothing any more.
    """

    def __init__(self, pitch=(0.1, 0.1, 0.1), reach=np.inf):
        self.pitch, self.reach = np.array(pitch), reach

    def pose(self, joints):
        place = MIDDLE + self.pitch * np.clip(joints[:3], -self.reach, self.reach)
        return place, quat_product(quat_from_vector((joints - READY)[4:]), DOWN)

    def poses(self, joints):
        poses = [self.pose(row) for row in joints]
        return np.array([p for p, _ in poses]), np.array([q for _, q in poses])

    def nearer(self, position, turn, joints, low, high):
        roll = READY[4:] + vector_from_quat(quat_product(turn, quat_inverse(DOWN)))
        return np.clip(np.concatenate([(position - MIDDLE) / self.pitch, joints[3:4], roll]), low, high)


def at(joints, kinematics, now=0.0):
    return ArmState(now, *kinematics.pose(joints), np.array(joints), 1.0, np.zeros(6))


def led(kinematics, way, ticks=400, limits=LIMITS, joints=READY):
    """The gate, joints (k, n) that were sent and rulings, for wishes that go on by `way` (3,) a period."""
    gate = Gate(limits, PANDA, PERIOD, kinematics)
    gate.arm(at(joints, kinematics), "policy", 0.0)
    sent, rulings, wish = [gate.joints], [], gate.setpoint.position
    for tick in range(1, ticks):
        now, wish = tick * PERIOD, wish + way
        state = at(sent[-1], kinematics, now)
        rulings.append(gate.check(Target(now, wish, state.turn, 1.0, "policy"), state, now, now))
        sent.append(gate.joints)
        if gate.stopped and gate.rests:
            break
    return gate, np.array(sent), rulings


def test_fault_f33_paths_past_singularities_keep_every_limit_of_joints_and_tool():
    """A Panda and a UR5e; 10,000 paths with `tests/benchmarks/singular_paths.py`."""
    found, told, aside, _ = singular_paths.run(16, 1)
    assert not found, found
    assert min(told[v] for v in ("clipped", "rejected", "stopped")) > 10 and aside.max() < 0.02


@pytest.mark.parametrize(
    ("pitch", "reach", "way", "named"),
    [
        ((0.3, 0.3, 0.3), np.inf, (0.0, 0.004, 0.0), "joint 2 is at the end of its range"),
        ((0.3, 0.05, 0.3), np.inf, (0.0, 0.004, 0.0), "joint 2 turns no faster"),
        ((0.3, 0.3, 0.3), 0.8, (0.004, 0.0, 0.0), "no joints reach it"),
    ],
)
def test_what_holds_the_setpoint_up_is_named_and_at_last_the_arm_stops(pitch, reach, way, named):
    wide = replace(LIMITS, box_low=(-2.0, -2.0, -2.0), box_high=(2.0, 2.0, 2.0))
    gate, sent, rulings = led(Gantry(pitch, reach), np.array(way), 1000, wide)
    assert named in {part for r in rulings if r.verdict == "clipped" for part in r.reason.split(", ")}
    assert "ahead of the setpoint" in gate.stopped and named in gate.stopped and "lags" not in gate.stopped
    steps = np.diff(sent, axis=0)
    assert (np.abs(steps) <= 0.5 * np.array(PANDA.speed) * PERIOD + 1e-9).all()
    assert np.abs(np.diff(steps, axis=0)).max() <= wide.joint_acceleration * PERIOD**2 + 1e-9
    assert (sent <= np.array(PANDA.high) - wide.joint_margin + 1e-9).all() and gate.rests


SLOW = "joint 1 turns no faster"


@pytest.mark.parametrize(("stands", "named"), [(False, {SLOW}), (True, {SLOW, f"{SLOW} and the arm lags behind it"})])
def test_of_a_slow_joint_and_an_arm_that_lags_the_one_that_holds_it_up_is_named_or_both(stands, named):
    """The target is 0.09 m ahead of the setpoint, with an arm at the setpoint or one that stands still."""
    wide = replace(LIMITS, box_low=(-2.0, -2.0, -2.0), box_high=(2.0, 2.0, 2.0))
    gantry, waits = Gantry((0.05, 0.3, 0.3)), set()
    gate = Gate(wide, PANDA, PERIOD, gantry)
    gate.arm(at(READY, gantry), "policy", 0.0)
    wish = gate.setpoint.position
    for tick in range(1, 200 if stands else 90):
        now = tick * PERIOD
        wish = np.array([min(wish[0] + 0.004, gate.setpoint.position[0] + 0.09), *wish[1:]])
        state = at(READY if stands else gate.joints, gantry, now)
        gate.check(Target(now, wish, state.turn, 1.0, "policy"), state, now, now)
        waits |= {gate.waits} - {""}
    assert waits == named and ("the arm does not follow: it is 0.09" in gate.stopped) == stands, (waits, gate.stopped)


def test_an_arm_that_sags_beside_a_joint_at_its_end_is_not_taken_for_one_that_does_not_follow():
    wide = replace(LIMITS, box_low=(-2.0, -2.0, -2.0), box_high=(2.0, 2.0, 2.0))
    gantry = Gantry((0.02, 0.3, 0.3))
    gate = Gate(wide, PANDA, PERIOD, gantry)
    gate.arm(at(READY, gantry), "policy", 0.0)
    end = MIDDLE + 0.02 * np.array([PANDA.high[0] - wide.joint_margin, 0.0, 0.0])
    for tick in range(1, 300):
        now = tick * PERIOD
        wish = MIDDLE + np.array([min(0.002 * tick, end[0] - MIDDLE[0] + 0.09), 0.0, 0.0])
        wish[0] = min(wish[0], gate.setpoint.position[0] + 0.09)
        state = at(gate.joints, gantry, now)
        state = replace(state, position=state.position - [min(0.02, 0.0005 * tick), 0.0, 0.0])
        gate.check(Target(now, wish, state.turn, 1.0, "policy"), state, now, now)
    assert not gate.stopped and gate.waits == "joint 1 is at the end of its range", (gate.stopped, gate.waits)


def test_from_beyond_a_joints_margin_there_is_a_way_back_and_none_farther():
    joints = READY + np.array([0, 0, 0, 0, PANDA.high[4] - 0.04, 0, 0])
    limits, gantry = replace(LIMITS, tilt=1.5, axis=(0.0, 0.0, -1.0)), Gantry()
    gate = Gate(limits, PANDA, PERIOD, gantry)
    gantry.pose = lambda q: (MIDDLE + 0.1 * q[:3], quat_product(quat_from_vector(0.1 * (q - READY)[4:]), DOWN))
    gantry.nearer = lambda p, turn, q, low, high: np.clip(
        np.concatenate([10 * (p - MIDDLE), q[3:4], READY[4:] + 10 * vector_from_quat(quat_product(turn, DOWN * -1))]),
        low,
        high,
    )
    gate.arm(at(joints, gantry), "policy", 0.0)
    for sign in (1, -1):
        for tick in range(1, 60):
            now = tick * PERIOD + (100 if sign < 0 else 0)
            roll = quat_from_vector(np.array([sign * 0.002, 0.0, 0.0]))
            here = gate.setpoint
            state = at(gate.joints, gantry, now)
            gate.check(Target(now, here.position, quat_product(roll, here.turn), 1.0, "policy"), state, now, now)
            assert gate.joints[4] <= joints[4] + 1e-9
    assert gate.joints[4] < PANDA.high[4] - 0.1


def test_the_setpoint_begins_where_the_arm_was_measured_though_its_kinematics_are_a_little_off():
    gantry = Gantry()
    state = replace(at(READY, gantry), position=MIDDLE + [0.004, -0.003, 0.002])
    turn = quat_product(quat_from_vector(np.array([0.02, 0.01, -0.03])), state.turn)
    gate = Gate(LIMITS, PANDA, PERIOD, gantry)
    gate.arm(replace(state, turn=turn), "policy", 0.0)
    np.testing.assert_allclose(gate.setpoint.position, state.position, atol=1e-12)
    assert angle_between(gate.setpoint.turn, turn) < 1e-9
    np.testing.assert_array_equal(gate.joints, READY)


def test_along_a_wall_it_goes_on_with_joints_too():
    name = "Panda"
    arm = singular_paths.Arm(name)
    joints = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8])
    position, _ = arm.kinematics.pose(joints)
    limits = replace(LIMITS, box_low=(0.1, -0.5, 0.0), box_high=(float(position[0]) + 0.01, 0.5, 1.0), tilt=1.0)
    gate, sent, rulings = led(arm.kinematics, np.array([0.0005, 0.003, 0.0]), 80, limits, joints)
    reached = np.array([r.sent.position for r in rulings])
    assert reached[-1][1] > position[1] + 0.18 and reached[:, 0].max() <= limits.box_high[0]
    assert reached[-1][0] == pytest.approx(limits.box_high[0], abs=1e-4) and not gate.stopped
