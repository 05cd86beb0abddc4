"""Inverse kinematics: solve and pose are inverses, near the seed; what cannot be reached is said to be so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import robosuite
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.gate import Gate, GateLimits
from drivers.kinematics import MinkKinematics
from robot_rl.geometry import angle_between
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, RobotRLError, Target

MODEL = Path(robosuite.__file__).parent / "models/assets/robots/panda/robot.xml"
JOINTS = [f"joint{i}" for i in range(1, 8)]
HOME = np.array([0.0, np.pi / 16, 0.0, -np.pi / 2 - np.pi / 3, 0.0, np.pi - 0.2, np.pi / 4])
PANDA = arm_limits("Panda")


def panda():
    return MinkKinematics(MODEL, JOINTS, "right_hand", "link0")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=7, max_size=7), st.lists(st.floats(-0.05, 0.05), min_size=7, max_size=7))
def test_solve_and_pose_are_inverses_and_the_solution_is_near_the_seed(shares, beside):
    arm = panda()
    joints = np.array(PANDA.low) + np.array(shares) * (np.array(PANDA.high) - PANDA.low)
    position, turn = arm.pose(joints)
    found = arm.solve(position, turn, joints + beside)
    if found is None:  # at a singular pose the way there may be long; it is then said to be none
        assert np.linalg.cond(jacobian(arm, joints)) > 20
        return
    there, turned = arm.pose(found)
    assert np.linalg.norm(there - position) < 1e-3 and angle_between(turned, turn) < 3e-3
    assert np.abs(found - joints).max() < 0.5


def jacobian(arm, joints):
    columns = []
    for i in range(7):
        step = np.eye(7)[i] * 1e-6
        columns.append((arm.pose(joints + step)[0] - arm.pose(joints - step)[0]) / 2e-6)
    return np.array(columns).T


def test_what_is_out_of_reach_has_no_joints_and_nothing_becomes_nan():
    arm = panda()
    position, turn = arm.pose(HOME)
    assert arm.solve(position + [1.0, 0.0, 0.0], turn, HOME) is None
    straight = np.array([0.0, 0.0, 0.0, -0.07, 0.0, 1.6, 0.0])  # nearly singular: the elbow is straight
    position, turn = arm.pose(straight)
    found = arm.solve(position + [0.0, 0.0, 0.02], turn, straight)
    assert found is None or np.isfinite(found).all()


def test_unknown_names_are_told_beside_the_known():
    with pytest.raises(RobotRLError, match="no joint 'elbow'; it has: joint1"):
        MinkKinematics(MODEL, ["elbow"], "right_hand", "link0")
    with pytest.raises(RobotRLError, match="no body 'tip'"):
        MinkKinematics(MODEL, JOINTS, "tip", "link0")


def test_an_arm_that_is_led_to_the_end_of_its_reach_brakes_and_says_why():
    """Along x as far as the Panda goes, and farther: fault 7 of the list."""
    arm, period = panda(), 0.02
    limits = GateLimits((0.2, -0.5, 0.0), (1.2, 0.5, 1.0), tilt=1.5)
    gate = Gate(limits, PANDA, period, arm)
    position, turn = arm.pose(HOME)
    gate.arm(ArmState(0.0, position, turn, HOME, 1.0, np.zeros(6)), "policy", 0.0)
    now, joints, ruling = 0.0, HOME, None
    while not gate.stopped:
        now, position = now + period, position + [0.003, 0.0, 0.0]
        state = ArmState(now, gate._motion.position, gate._motion.turn, joints, 1.0, np.zeros(6))
        ruling = gate.check(Target(now, position, turn, 1.0, "policy"), state, now, now)
        assert np.isfinite(ruling.sent.position).all()
        joints = gate._joints
        assert (joints >= np.array(PANDA.low)).all() and (joints <= np.array(PANDA.high)).all()
    assert "joint" in ruling.reason and 0.6 < ruling.sent.position[0] < 0.95
