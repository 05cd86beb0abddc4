"""Laws of the robosuite world: one seed one start, nothing leaks, and it is robosuite's own physics and readings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl import control
from robot_rl.geometry import matrix_from_quat, rot6d_from_matrix
from robot_rl.types import RobotRLError, Spec
from sim import robosuite_env
from sim.robosuite_env import RATE, RobosuiteConfig, RobosuiteEnv

TASKS = ("Lift", "PickPlaceCan", "NutAssemblySquare", "Stack", "Door", "Wipe", "ToolHang", "PickPlaceSingle")


@pytest.fixture(scope="module")
def lift() -> RobosuiteEnv:
    return RobosuiteConfig("Lift").build()


def play(env: RobosuiteEnv, seed: int, n: int) -> np.ndarray:
    """(n + 1, S): random actions, the same for the same seed."""
    actions = np.random.default_rng([seed, 2]).uniform(-0.8, 0.8, (n, len(env.spec.action)))
    return np.stack([env.reset(seed)["state"], *(env.step(a).obs["state"] for a in actions)])


def values(env: RobosuiteEnv, state: np.ndarray, prefix: str) -> np.ndarray:
    return state[[i for i, c in enumerate(env.spec.state) if c.name.rpartition("_")[0] == prefix or c.name == prefix]]


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_leaves_no_trace_in_the_next(task):
    env = RobosuiteConfig(task).build()
    first = play(env, 3, 25)
    play(env, 8, 17)  # ends with fingers half closed and the arm elsewhere
    env.step(np.ones(len(env.spec.action)))
    assert np.array_equal(play(env, 3, 25), first)
    env.close()


STARTS = """
import sys
from sim.robosuite_env import RobosuiteConfig
for task in ("Lift", "PickPlaceSingle"):
    env = RobosuiteConfig(task).build()
    print(*(env.reset(seed)["state"].tobytes().hex() for seed in (5, 6, 5)))
"""


def test_every_process_has_the_same_starts_and_nothing_is_chattered():
    def starts(hash_seed: str) -> list[list[str]]:
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        ran = subprocess.run([sys.executable, "-c", STARTS], env=env, capture_output=True, text=True, check=True)
        assert ran.stderr == ""
        return [line.split() for line in ran.stdout.splitlines()]

    here = starts("1")
    assert here == starts("2")
    for five, six, again in here:
        assert five == again != six


def test_no_seed_is_another_start_each_time(lift):
    assert not np.array_equal(lift.reset()["state"], lift.reset()["state"])


def test_importing_the_module_imports_no_robosuite():
    code = "import sys, sim.robosuite_env; assert 'robosuite' not in sys.modules and 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


@pytest.mark.parametrize("task", ["Lift", "PickPlaceCan", "Stack", "Door", "ToolHang"])
def test_the_state_is_what_robosuite_observes(task):
    env = RobosuiteConfig(task).build()
    state = play(env, 1, 5)[-1]
    env._suite.sim.forward()
    env._suite._get_observations(force_update=True)  # twice: its relative observables read the last round's cache
    theirs = env._suite._get_observations(force_update=True)
    told = {key for key in theirs if not key.startswith("robot0_") and key != "object-state"}
    for key in told | {"robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "robot0_joint_pos"}:
        if key.endswith("_quat"):
            mine = values(env, state, f"{key[:-5]}_rot6d")
            expected = rot6d_from_matrix(matrix_from_quat(theirs[key]))
        else:
            mine, expected = values(env, state, key), np.ravel(theirs[key])
        np.testing.assert_allclose(mine, expected, atol=1e-6, err_msg=key)
    assert not any("quat" in channel.name for channel in env.spec.state)
    env.close()


def test_relative_positions_are_right_from_the_first_observation_on():
    env = RobosuiteConfig("PickPlaceCan").build()
    for state in play(env, 4, 3):
        across = values(env, state, "Can_pos") - values(env, state, "robot0_eef_pos")
        np.testing.assert_allclose(
            np.linalg.norm(values(env, state, "Can_to_robot0_eef_pos")), np.linalg.norm(across), atol=1e-5
        )
    env.close()


@pytest.mark.parametrize(
    (
        "task",
        "arm",
        "controller",
        "exact",
    ),  # how many control steps nothing is touched, so that rounding stays rounding
    [
        ("Lift", "Panda", "OSC_POSE", 40),
        ("Lift", "UR5e", "OSC_POSE", 8),  # its elbow soon meets the table
        ("Lift", "IIWA", "OSC_POSE", 20),  # its "base" turns with the first joint; XArm7's too
        ("Lift", "XArm7", "OSC_POSE", 20),
        ("Lift", "Kinova3", "OSC_POSE", 8),
        ("Lift", "Jaco", "OSC_POSE", 10),
        ("Lift", "Sawyer", "OSC_POSITION", 20),
        ("Lift", "Panda", "JOINT_POSITION", 60),
        ("PickPlaceCan", "Panda", "OSC_POSE", 10),
        ("NutAssemblySquare", "Panda", "OSC_POSE", 10),
        ("Stack", "Panda", "OSC_POSE", 10),
        ("Door", "Panda", "OSC_POSE", 10),
    ],
)
def test_steps_are_those_of_robosuite(task, arm, controller, exact):
    import robosuite

    parts = robosuite.load_composite_controller_config(controller="BASIC")
    part = robosuite.load_part_controller_config(default_controller=controller) | {"gripper": {"type": "GRIP"}}
    theirs = robosuite.make(
        task,
        robots=arm,
        controller_configs={**parts, "body_parts": {"right": part}},
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=int(RATE),
        ignore_done=True,
        hard_reset=False,
        seed=0,
    )
    ours = RobosuiteConfig(task, arm, controller).build()
    assert ours._fast is not None
    rng = np.random.default_rng(0)
    for seed in (11, 12):
        theirs.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        theirs.reset()
        ours.reset(seed)
        assert np.array_equal(theirs.sim.data.qpos, ours._data.qpos)
        for step in range(exact):
            action = rng.uniform(-1.2, 1.2, len(ours.spec.action)).astype(np.float32)
            ours.step(action)
            theirs.step(np.clip(action, -1, 1))
            np.testing.assert_allclose(ours._data.qpos, theirs.sim.data.qpos, atol=1e-7, err_msg=f"step {step}")
            np.testing.assert_allclose(ours._data.qvel, theirs.sim.data.qvel, atol=1e-5, err_msg=f"step {step}")
        assert ours._suite.cur_time == pytest.approx(theirs.cur_time)
    ours.close()
    theirs.close()


def test_what_the_fast_stepping_does_not_cover_is_said_and_still_simulated(lift, monkeypatch):
    with pytest.warns(UserWarning, match="does not cover Wipe"):
        RobosuiteConfig("Wipe").build().close()
    monkeypatch.setitem(robosuite_env.TESTED, "mujoco", "9.9.9")
    with pytest.warns(UserWarning, match="tested: mujoco==9.9.9"):
        slow = RobosuiteConfig("Lift").build()
    assert slow._fast is None
    np.testing.assert_allclose(play(slow, 3, 15), play(lift, 3, 15), atol=1e-6)
    slow.close()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 7), rank=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_solver_inverts_what_can_be_inverted_and_pseudo_inverts_the_rest(seed, n, rank):
    from sim.fast_step import _solve

    rng = np.random.default_rng(seed)
    half = rng.normal(size=(n, min(rank, n)))
    A = half @ half.T + (0.1 * np.eye(n) if rank >= n else 0.0)
    B = A @ rng.normal(size=(n, 3))  # in the range of A
    np.testing.assert_allclose(A @ _solve(A, B), B, atol=1e-6 * np.abs(B).max())


def test_actions_are_in_metres(lift):
    lift.reset(0)
    hand = lift._robot.part_controllers["right"]
    before = hand.ref_pos.copy()
    command = control.to_physical(np.array([1.0, 0, 0, 0, 0, 0, 0]), lift.spec.action)
    assert command[0] == pytest.approx(0.05)
    hand.set_goal(command[:6])
    base, _ = lift._robot.composite_controller.get_controller_base_pose("right")
    assert base[0] + hand.goal_pos[0] == pytest.approx(before[0] + 0.05)


def test_the_executed_action_is_clipped_and_what_is_not_an_action_is_refused(lift):
    lift.reset(0)
    step = lift.step(np.array([9.0, -9, 0.5, 0, 0, 0, 3]))
    assert step.action.tolist() == [1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 1.0]
    before = lift.observe()["state"]
    for wrong in (np.full(7, np.nan), np.full(7, np.inf), np.zeros(6)):
        with pytest.raises(RobotRLError):
            lift.step(wrong)
    assert np.array_equal(lift.observe()["state"], before)


def test_time_truncates_and_success_terminates():
    env = RobosuiteConfig("Lift", max_steps=3).build()
    env.reset(0)
    steps = [env.step(np.zeros(7)) for _ in range(3)]
    assert [s.truncated for s in steps] == [False, False, True]
    assert not any(s.terminated or s.reward or s.score for s in steps)
    assert [float(s.obs["stamp/state"]) for s in steps] == pytest.approx([0.05, 0.1, 0.15])
    state = np.concatenate([[0.0], env._data.qpos, env._data.qvel])
    state[1 + 9 + 2] = 0.95  # the cube's height
    env.reset_to(state)
    step = env.step(np.zeros(7))
    assert step.terminated and not step.truncated and step.reward == 1.0 == step.score
    env.close()


def test_a_recording_can_be_played_again(lift):
    start = lift.reset(7)["state"]
    flat = np.concatenate([[lift._data.time], lift._data.qpos, lift._data.qvel])
    actions = np.random.default_rng(1).uniform(-0.5, 0.5, (20, 7))
    first = np.stack([lift.step(a).obs["state"] for a in actions])
    play(lift, 2, 9)
    assert np.array_equal(lift.reset_to(flat)["state"], start)
    np.testing.assert_allclose(np.stack([lift.step(a).obs["state"] for a in actions]), first, atol=1e-4)
    with pytest.raises(RobotRLError, match="has 32 numbers"):
        lift.reset_to(flat[:-1])


def test_the_spec_survives_json(lift):
    assert Spec.from_dict(json.loads(json.dumps(lift.spec.to_dict()))) == lift.spec
    assert lift.spec == RobosuiteConfig("Lift").build().spec
    assert (lift.spec.world, lift.spec.arm, lift.spec.rate) == ("robosuite:Lift", "Panda", 20.0)
    state = lift.reset(0)["state"]
    assert state.dtype == np.float32 and state.shape == (len(lift.spec.state),)
    low, high = (np.array([getattr(c, side) for c in lift.spec.state]) for side in ("low", "high"))
    assert (low - 1e-3 <= state).all() and (state <= high + 1e-3).all()


@pytest.mark.parametrize("arm", ["Sawyer", "IIWA", "Jaco", "Kinova3", "UR5e", "XArm7"])
def test_other_arms_move_too(arm):
    env = RobosuiteConfig("Lift", arm).build()
    before = values(env, env.reset(0)["state"], "robot0_eef_pos")
    for _ in range(6):
        step = env.step(np.array([0, 0, -0.8, 0, 0, 0, -1]))
    moved = values(env, step.obs["state"], "robot0_eef_pos") - before
    assert moved[2] < -0.02 and env.spec.arm == arm
    env.close()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (RobosuiteConfig("lift"), "no task 'lift'.* Did you mean 'Lift'"),
        (RobosuiteConfig("PickPlaceCann"), "Did you mean 'PickPlaceCan'"),
        (RobosuiteConfig("TwoArmLift"), "needs two arms"),
        (RobosuiteConfig("Lift", "xArm"), "no single arm 'xArm'.* Did you mean 'XArm7'"),
        (RobosuiteConfig("Lift", "Baxter"), "no single arm 'Baxter'.*Panda"),
        (RobosuiteConfig("Lift", controller="JOINT_VELOCITY"), "no controller 'JOINT_VELOCITY'.*OSC_POSE"),
        (RobosuiteConfig("Lift", cameras=("agent_view",)), "no camera 'agent_view'.* Did you mean 'agentview'"),
        (RobosuiteConfig("Stack", "XArm7"), "cannot judge Stack with XArm7"),
    ],
)
def test_what_robosuite_does_not_have_is_named(config, says):
    with pytest.raises(RobotRLError, match=says):
        config.build()


def test_a_missing_robosuite_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(RobotRLError, match="pip install"):
        RobosuiteConfig().build()


def test_images_are_upright_and_renderings_do_not_disturb():
    pytest.importorskip("OpenGL")
    env = RobosuiteConfig("Lift", cameras=("agentview",), image_size=64).build()
    obs = env.reset(0)
    image = obs["image/agentview"]
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert obs["stamp/image/agentview"] == obs["stamp/state"] == 0.0
    # agentview looks at the arm from the front: the dark arm is above, the pale table below
    assert image[:12].mean() + 30 < image[-12:].mean()
    red = (image[..., 0] > 90) & (image[..., 1] < 60)
    assert red.any(), "the cube is red: channels are RGB"
    assert env.render().shape == (256, 256, 3)
    plain = RobosuiteConfig("Lift", cameras=("agentview",), image_size=64, shadows=False).build()
    assert plain.spec.cameras[0].shadows is False and env.spec.cameras[0].shadows is True
    lit = plain.reset(0)["image/agentview"].astype(int)
    assert 0 < np.abs(lit - image).mean() < 30, "no shadows, else the same scene"
    plain.close()
    blind = RobosuiteConfig("Lift").build()
    assert set(blind.reset(0)) == {"state", "stamp/state"}
    assert np.array_equal(play(env, 3, 4), play(blind, 3, 4))
    env.close()
    blind.close()
