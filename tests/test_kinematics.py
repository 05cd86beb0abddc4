"""Kinematics: poses, their derivative, and joints that lead to them; what cannot be reached is gone towards."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import robosuite
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.gate import Gate, GateLimits
from drivers.kinematics import MujocoKinematics
from robot_rl.geometry import angle_between, quat_inverse, quat_product, vector_from_quat
from robot_rl.robots import arm_limits
from robot_rl.types import ArmState, RobotRLError, Target

MODEL = Path(robosuite.__file__).parent / "models/assets/robots/panda/robot.xml"
JOINTS = [f"joint{i}" for i in range(1, 8)]
HOME = np.array([0.0, np.pi / 16, 0.0, -np.pi / 2 - np.pi / 3, 0.0, np.pi - 0.2, np.pi / 4])
PANDA = arm_limits("Panda")
LOW, HIGH = np.array(PANDA.low), np.array(PANDA.high)


@lru_cache
def panda():
    return MujocoKinematics(MODEL, JOINTS, "right_hand", "link0")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.1, 0.9), min_size=7, max_size=7), st.lists(st.floats(-0.004, 0.004), min_size=7, max_size=7)
)
def test_joints_that_lead_to_a_neighbours_pose_are_found_within_their_range(shares, beside):
    arm = panda()
    joints = LOW + np.array(shares) * (HIGH - LOW)
    position, turn = arm.pose(joints + beside)
    found = arm.nearer(position, turn, joints, LOW, HIGH)
    there, turned = arm.pose(found)
    before, faced = arm.pose(joints)
    left = np.linalg.norm(there - position) + angle_between(turned, turn)
    assert left <= np.linalg.norm(before - position) + angle_between(faced, turn) + 1e-9
    assert (found >= LOW).all() and (found <= HIGH).all()
    if np.linalg.cond(arm.jacobian(joints)) < 100:
        assert left < 1e-5 and np.abs(found - joints).max() < 0.1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.05, 0.95), min_size=7, max_size=7))
def test_the_jacobian_is_the_pose_differentiated(shares):
    arm = panda()
    joints = LOW + np.array(shares) * (HIGH - LOW)
    _, turn = arm.pose(joints)
    for i, column in enumerate(arm.jacobian(joints).T):
        (ahead, facing), (behind, _) = (arm.pose(joints + sign * 1e-6 * np.eye(7)[i]) for sign in (1, -1))
        np.testing.assert_allclose(column[:3], (ahead - behind) / 2e-6, atol=1e-6)
        roll = vector_from_quat(quat_product(facing, quat_inverse(turn))) / 1e-6
        np.testing.assert_allclose(column[3:], roll, atol=1e-5)


def test_joints_at_the_end_of_their_range_stay_there_and_the_others_go_on():
    arm = panda()
    position, turn = arm.pose(HOME)
    high = np.append(HOME[:1], HIGH[1:])  # the first joint may not go up, which would do it all
    found = arm.nearer(position + [0.0, 0.01, 0.0], turn, HOME, LOW, high)
    assert (found <= high).all() and arm.pose(found)[0][1] > position[1] + 0.005


def test_what_is_out_of_reach_is_gone_towards_and_nothing_becomes_nan():
    arm = panda()
    position, turn = arm.pose(HOME)
    found = arm.nearer(position + [1.0, 0.0, 0.0], turn, HOME, LOW, HIGH)
    assert np.isfinite(found).all() and arm.pose(found)[0][0] > position[0]
    straight = np.array([0.0, 0.0, 0.0, -0.07, 0.0, 1.6, 0.0])  # nearly singular: the elbow is straight
    position, turn = arm.pose(straight)
    assert np.isfinite(arm.nearer(position + [0.0, 0.0, 0.02], turn, straight, LOW, HIGH)).all()


def test_unknown_names_are_told_beside_the_known():
    with pytest.raises(RobotRLError, match="no joint 'elbow'; it has: joint1"):
        MujocoKinematics(MODEL, ["elbow"], "right_hand", "link0")
    with pytest.raises(RobotRLError, match="no body 'tip'"):
        MujocoKinematics(MODEL, JOINTS, "tip", "link0")


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
        joints = gate.joints
        assert (joints >= np.array(PANDA.low)).all() and (joints <= np.array(PANDA.high)).all()
    assert "joint" in ruling.reason and 0.6 < ruling.sent.position[0] < 0.95
