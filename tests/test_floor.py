"""Laws of the small modules that everything stands on: control, geometry, configs, seeds, specs, runs, the loop."""

from __future__ import annotations

import json
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from policies.checkpoint import KNOWN
from policies.flow import FlowConfig
from policies.unet import UnetConfig
from robot_rl import configs, control, geometry
from robot_rl.evaluate import roughness
from robot_rl.rollout import rollout
from robot_rl.runs import Run
from robot_rl.seeds import episode_seed
from robot_rl.types import CameraSpec, Channel, Decision, RobotRLError, Spec
from sim.toy import ToyEnv

quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 1e-2)
vectors = st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) < 3.1)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(-1, 1))
def test_control_is_inverted_and_meets_both_ends(low, width, action):
    channels = (Channel("x", "m", low, low + width),)
    assert control.to_physical(np.array([-1.0]), channels)[0] == pytest.approx(low)
    assert control.to_physical(np.array([1.0]), channels)[0] == pytest.approx(low + width)
    back = control.to_unit(control.to_physical(np.array([action]), channels), channels)
    assert back[0] == pytest.approx(action, abs=1e-6)


@given(quaternions, quaternions, vectors)
def test_quaternions_multiply_turn_back_and_come_from_vectors_as_scipys_do(first, second, vector):
    a, b = geometry.unit_quat(np.array(first)), geometry.unit_quat(np.array(second))
    both = Rotation.from_quat(b) * Rotation.from_quat(a)
    np.testing.assert_allclose(Rotation.from_quat(geometry.quat_product(b, a)).as_matrix(), both.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(geometry.quat_product(geometry.quat_inverse(a), a), [0, 0, 0, 1], atol=1e-9)
    turn = geometry.quat_from_vector(np.array(vector))
    np.testing.assert_allclose(turn, Rotation.from_rotvec(vector).as_quat(canonical=True), atol=1e-9)
    for same in (turn, -turn):
        np.testing.assert_allclose(geometry.vector_from_quat(same), vector, atol=1e-7)
    assert geometry.angle_between(a, b) == pytest.approx(
        (Rotation.from_quat(b).inv() * Rotation.from_quat(a)).magnitude(), abs=1e-7
    )


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=2, max_size=2))
def test_whatever_enters_comes_out_finite_and_in_the_box_or_is_refused(values):
    if np.isfinite(values).all():
        out = control.checked(np.array(values), 2)
        assert np.isfinite(out).all() and np.abs(out).max() <= 1
    else:
        with pytest.raises(RobotRLError, match="NaN or infinity"):
            control.checked(np.array(values), 2)


@given(st.floats(-2.0, -0.1), st.floats(0.1, 2.0), st.floats(-1, 1))
def test_a_hold_moves_nothing_and_leaves_grippers_and_positions_as_they_are(low, high, told):
    channels = [Channel(name, "m", low, high) for name in ("eef_delta_x", "joint_delta_0", "gripper", "target_x")]
    action = control.hold(channels, np.full(4, told, np.float32))
    np.testing.assert_allclose(control.to_physical(action, channels)[:2], 0.0, atol=1e-6)
    assert action.dtype == np.float32 and (action[2:] == np.float32(told)).all()


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), (0.0, np.inf)])
def test_an_empty_range_is_named(low, high):
    with pytest.raises(RobotRLError, match="grip"):
        control.bounds([Channel("grip", "m", low, high)])


@given(quaternions)
def test_rotations_agree_with_scipy_and_both_signs_of_a_quaternion_are_one(quat):
    q = np.array(quat) / np.linalg.norm(quat)
    matrix = geometry.matrix_from_quat(q)
    np.testing.assert_allclose(matrix, Rotation.from_quat(q).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(matrix, geometry.matrix_from_quat(-q), atol=1e-12)
    np.testing.assert_allclose(geometry.matrix_from_rot6d(geometry.rot6d_from_matrix(matrix)), matrix, atol=1e-9)


@given(vectors)
def test_rotation_vectors_agree_with_scipy(vector):
    matrix = Rotation.from_rotvec(vector).as_matrix()
    np.testing.assert_allclose(geometry.rotation_vector(matrix), vector, atol=1e-5)


def test_half_a_turn_keeps_its_axis_up_to_sign():
    for axis in np.eye(3):
        found = geometry.rotation_vector(Rotation.from_rotvec(np.pi * axis).as_matrix())
        np.testing.assert_allclose(np.abs(found), np.pi * axis, atol=1e-6)


def test_seeds_never_meet():
    purposes = ("collect", "refine", "evaluate")
    seeds = {episode_seed(p, s, i) for p in purposes for s in (0, 1, 999) for i in (0, 1, 999_999)}
    assert len(seeds) == 27 and max(seeds) < 2**32
    with pytest.raises(RobotRLError, match="seed 1000"):
        episode_seed("collect", 1000, 0)


def test_configs_survive_json_and_name_what_is_unknown():
    config = FlowConfig(steps=3, backbone=UnetConfig(channels=(8, 16)))
    data = json.loads(json.dumps(configs.to_data(config)))
    assert configs.from_data(data, KNOWN) == config
    with pytest.raises(RobotRLError, match="did you mean 'solver'"):
        configs.from_data({**data, "solvr": "heun"}, KNOWN)
    with pytest.raises(RobotRLError, match="lacks"):
        configs.from_data({"type": "FlowConfig"}, KNOWN)
    with pytest.raises(RobotRLError, match="unknown config type"):
        configs.from_data({"type": "Rainbow"}, KNOWN)
    assert configs.difference({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}) == [
        "a.b: 1 here, 2 there",
        "a.c: None here, 3 there",
    ]


def test_specs_survive_json_and_differences_print_both_sides():
    spec = replace(ToyEnv().spec, cameras=(CameraSpec("top", 8, 9),))
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    other = replace(spec, rate=50.0, cameras=(), max_steps=7)
    with pytest.raises(RobotRLError, match=r"(?s)rate: mine has 10.0.*theirs has 50.0.*cameras"):
        spec.require(other, "mine", "theirs")
    spec.require(replace(other, rate=spec.rate), "mine", "theirs", state_only=True)
    with pytest.raises(RobotRLError, match="rate"):
        spec.require(other, "mine", "theirs", state_only=True)


class Chunks:
    """Executes chunks of three and remembers, for each action, when it was decided and its place in the chunk."""

    n_obs = 2

    def __init__(self):
        self.seen = []

    def reset(self, seed=None):
        self.count = 0

    def decide(self, obs, *, explore):
        self.seen.append(obs["stamp/state"].copy())
        self.count += 1
        marks = np.array([[self.count, place] for place in range(3)])
        return Decision(np.full((3, 2), 0.1, np.float32), {"mark": marks})


class Interrupting(ToyEnv):
    """A human takes over at the second step."""

    def step(self, action):
        step = super().step(-np.asarray(action) if self._steps == 1 else action)
        return replace(step, intervened=self._steps == 2)


def test_the_loop_executes_chunks_and_keeps_what_the_agent_remembers():
    player = Chunks()
    episode = rollout(ToyEnv(), player, explore=False, seed=0, max_steps=7)
    assert len(episode) == 7 and episode.truncated
    assert episode.extras["mark"].tolist() == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [3, 0], [3, 1]]
    np.testing.assert_allclose(player.seen, [[0, 0], [0.2, 0.3], [0.5, 0.6]])  # history, newest last


def test_an_intervention_is_stored_as_executed_and_makes_the_rest_of_the_chunk_stale():
    episode = rollout(Interrupting(), Chunks(), explore=False, seed=0, max_steps=5)
    assert episode.intervened.tolist() == [False, True, False, False, False]
    assert episode.action[1, 0] == pytest.approx(-0.1)
    assert episode.extras["mark"][:4].tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]


def test_roughness_is_zero_for_a_constant_and_grows_with_jerks():
    still, shaky = np.ones((10, 2)), np.resize([1.0, -1.0], (10, 2))
    shaky[:, 1] = shaky[:, 0] = np.resize([1.0, -1.0], 10)
    assert roughness(still) == 0 and roughness(shaky) == pytest.approx(4.0)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """A real limit of the kernel: files of this process may not grow beyond 64 KiB."""
    run = Run(tmp_path / "run", "test", {})
    run.save({"x": torch.zeros(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
        with pytest.raises(RobotRLError, match="What was there before is untouched"):
            run.save({"x": torch.zeros(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(run.load()["x"], torch.zeros(10))
    assert not list((tmp_path / "run").glob(".part*"))


def test_metrics_rewind_to_the_checkpoint(tmp_path):
    run = Run(tmp_path / "run", "test", {})
    for step in (1, 2, 3):
        run.log(step, {"loss": 1.0 / step})
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # the moment of the kill
    run.rewind(2)
    assert [json.loads(row)["step"] for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [1, 2]
