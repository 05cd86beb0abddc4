"""What an action asks of an arm, and what was asked as an action: each the inverse of the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.actions import action_of, target_of
from robot_rl.geometry import angle_between, quat_from_vector, unit_quat
from robot_rl.types import ArmState, Target
from tests.lockstep import ROBOT

CHANNELS = ROBOT.spec().action
WITHOUT_TURNS = (*CHANNELS[:3], CHANNELS[-1])


def vectors(size, low, high):
    return st.lists(st.floats(low, high), min_size=size, max_size=size).map(np.array)


turns = vectors(4, -1, 1).filter(lambda q: np.linalg.norm(q) > 0.1).map(unit_quat)
places = st.builds(
    lambda position, turn: ArmState(0.0, position, turn, np.zeros(7), 0.5, np.zeros(6)), vectors(3, -1, 1), turns
)


@given(vectors(7, -1, 1), places)
def test_an_action_comes_back_from_its_target(action, here):
    target = target_of(action, here, CHANNELS, 3.0, "policy")
    np.testing.assert_allclose(action_of(target, here, CHANNELS), action, atol=1e-5)
    assert (target.stamp, target.source) == (3.0, "policy") and 0 <= target.gripper <= 1


@given(vectors(3, -1, 1), vectors(3, -1, 1), st.floats(0, 1), st.sampled_from([1, -1]), places)
def test_a_target_within_reach_of_an_action_comes_back_from_it(way, turn, opening, sign, here):
    position = here.position + ROBOT.move * way
    turned = target_of(np.concatenate([way, turn, [0.0]]), here, CHANNELS, 0.0, "policy").turn
    target = Target(0.0, position, sign * turned, opening, "teleop")  # q and -q are one rotation
    again = target_of(action_of(target, here, CHANNELS), here, CHANNELS, 0.0, "teleop")
    np.testing.assert_allclose(again.position, position, atol=1e-7)
    assert angle_between(again.turn, turned) < 1e-6
    assert again.gripper == pytest.approx(opening, abs=1e-6)


@given(vectors(4, -1, 1), places)
def test_without_turns_too(action, here):
    target = target_of(action, here, WITHOUT_TURNS, 0.0, "policy")
    assert angle_between(target.turn, here.turn) < 1e-6
    np.testing.assert_allclose(action_of(target, here, WITHOUT_TURNS), action, atol=1e-5)


def test_what_no_action_can_ask_is_cut_to_the_nearest_that_one_can():
    here = ArmState(0.0, np.zeros(3), np.array([0, 0, 0, 1.0]), np.zeros(7), 0.5, np.zeros(6))
    far = Target(0.0, np.array([1.0, -1.0, 0.0]), quat_from_vector(np.array([0, 0, 2.0])), 0.0, "teleop")
    np.testing.assert_array_equal(action_of(far, here, CHANNELS), np.array([1, -1, 0, 0, 0, 1, 1], np.float32))
