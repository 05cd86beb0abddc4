"""One rule for rewards and one for rotations, whatever the format: laws first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_rl.formats import outcome, rotations
from robot_rl.formats.account import Account
from robot_rl.geometry import matrix_from_quat, rot6d_from_matrix
from robot_rl.types import RobotRLError

flags = st.lists(st.lists(st.booleans(), min_size=2, max_size=12).map(lambda v: [False, *v]), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(flags, st.sampled_from([0.0, -1.0]))
def test_an_episode_ends_at_its_first_success_in_both_conventions(episodes, lowest):
    rewards = [np.array(e, float) + lowest for e in episodes]
    account = Account()
    judge = outcome.Judge.of("rewards", rewards, "it", account)
    for told, rows in zip(episodes, rewards, strict=True):
        result = judge.outcome(rows, account)
        won = any(told)
        assert result.terminated == won and result.reward.sum() == won and result.reward[-1] == won
        assert len(result) == (told.index(True) + 1 if won else len(told))
        assert np.array_equal(result.score, result.reward)
    assert account.cut_steps == sum(len(e) - e.index(True) - 1 for e in episodes if True in e)
    assert bool(account.cut_steps) == any("first success" in line for line in account.lines())


def test_the_convention_is_that_of_the_whole_recording():
    account = Account()
    judge = outcome.Judge.of("r", [np.zeros(3) - 1, np.array([-1.0, -1, 0])], "it", account)
    assert [judge.outcome(np.full(3, v), account).terminated for v in (-1.0, 0.0)] == [False, True]
    assert "made 0 and 1" in account.lines()[0]
    assert not outcome.Judge.of("r", [np.zeros(3)], "it", account).outcome(np.zeros(3), account).terminated


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        ([[0.0, 0.3, 1.0]], "r spans .0, 1."),
        ([[-1.0, 0.0, 1.0]], "r spans .-1, 1."),
        ([[0.0, 5.0]], "r spans .0, 5."),
        ([[0.0, np.nan]], "r spans"),
        ([[1.0, 1.0], [1.0, 1.0]], "r is 1 from the first step on"),
        ([[0.0, -1.0], [0.0, 0.0, -1.0]], "r is 0 from the first step on"),
    ],
)
def test_rewards_that_do_not_say_what_success_is_are_refused(rewards, says):
    with pytest.raises(RobotRLError, match=f"it: {says}.*--ignore-rewards"):
        outcome.Judge.of("r", [np.array(r) for r in rewards], "it", Account())


quats = arrays(np.float64, (6, 4), elements=st.floats(-1, 1)).filter(lambda q: (np.linalg.norm(q, axis=1) > 0.1).all())
NAMES = [
    [f"robot0_eef_quat_{i}" for i in range(4)],
    [f"robot0_eef_quat_site_{i}" for i in range(4)],
    ["ee.qx", "ee.qy", "ee.qz", "ee.qw"],
    ["qw", "qx", "qy", "qz"],
    [f"pose.orientation.{c}" for c in "xyzw"],
    [f"tool_quat_wxyz_{i}" for i in range(4)],
]


@settings(max_examples=40, deadline=None)
@given(quats, arrays(np.bool_, 6), st.sampled_from(NAMES))
def test_a_quaternion_that_changes_sign_does_not_move(quat, flipped, names):
    quat = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    other = np.where(flipped[:, None], -quat, quat)
    values = [np.concatenate([np.ones((6, 1)), q, np.zeros((6, 1))], 1) for q in (quat, other)]
    (told, seen), (_, again) = (rotations.continuous(["x", *names, "grip"], v, "it") for v in values)
    assert np.allclose(seen, again, atol=1e-12) and seen.shape == (6, 8) and len(told) == 8
    assert all("rot6d" in name for name in told[1:7]) and told[0] == "x" and told[7] == "grip"


@settings(max_examples=40, deadline=None)
@given(quats, st.integers(0, len(NAMES) - 1))
def test_the_order_of_a_quaternion_is_that_of_its_names(quat, which):
    quat = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    expected = rot6d_from_matrix(matrix_from_quat(quat))
    first = NAMES[which][0] in ("qw", "tool_quat_wxyz_0")
    values = quat[:, [3, 0, 1, 2]] if first else quat
    assert np.allclose(rotations.continuous(NAMES[which], values, "it")[1], expected)
    by_program = rotations.continuous(NAMES[0], quat[:, [3, 0, 1, 2]], "it", scalar_first=True)[1]
    assert np.allclose(by_program, expected)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (5, 3), elements=st.floats(-1, 1)), st.floats(0.01, np.pi))
def test_axis_times_angle_does_not_jump_where_it_passes_pi(axis, angle):
    axis = (axis + [0, 0, 2]) / np.linalg.norm(axis + [0, 0, 2], axis=1, keepdims=True)
    names = [f"robot0_eef_rot_axis_angle_{i}" for i in range(3)]
    told, seen = rotations.continuous(names, axis * angle, "it")
    _, again = rotations.continuous(names, axis * (angle - 2 * np.pi), "it")
    assert np.allclose(seen, again, atol=1e-9) and told[0] == "robot0_eef_rot6d_0"
    assert np.allclose(np.linalg.norm(seen[:, :3], axis=1), 1)


def test_what_is_not_called_a_rotation_stays_as_it_is():
    names = ["x", "y", "z", "w", "object_0", "object_1", "object_2", "object_3", "q0", "q1", "q2", "q3"]
    values = np.random.default_rng(0).normal(size=(3, 12))
    told, seen = rotations.continuous(names, values, "it")
    assert told == names and np.array_equal(seen, values)


def test_a_quaternion_without_length_is_refused_by_name():
    with pytest.raises(RobotRLError, match="it: 'a_quat' is called a quaternion, and its length is 0 in row 1"):
        rotations.continuous([f"a_quat_{i}" for i in range(4)], np.array([[0.0, 0, 0, 1], [0, 0, 0, 0]]), "it")
