"""Push-T keeps the laws of a world, and replays the recordings of Diffusion Policy exactly."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robot_rl.formats import diffusion_policy
from robot_rl.types import RobotRLError
from sim import pusht
from sim.pusht import PushTConfig, PushTEnv

DATA = Path(os.environ.get("ROBOT_RL_DATA", Path(__file__).parents[2] / "shared" / "data"))
RECORDINGS = DATA / "pusht" / "pusht_cchi_v7_replay.zarr"
recorded = pytest.mark.skipif(not RECORDINGS.exists(), reason=f"no recordings at {RECORDINGS}; set ROBOT_RL_DATA")

START = "from sim.pusht import PushTConfig; print(PushTConfig().build().reset(7)['state'].tobytes().hex())"


@pytest.fixture(scope="module")
def env() -> PushTEnv:
    return PushTConfig().build()


def play(env: PushTEnv, seed: int, n_steps: int = 60) -> np.ndarray:
    """States (n_steps + 1, S) of a chase around the table that pushes the block."""
    rng = np.random.default_rng(seed)
    states = [env.reset(seed)["state"]]
    for _ in range(n_steps):
        towards_block = states[-1][2:4] / 256 - 1
        states.append(env.step(towards_block + rng.normal(0, 0.2, 2)).obs["state"])
    return np.stack(states)


def test_the_observation_is_what_the_spec_says(env):
    obs = PushTConfig(image=True).build().reset(0)
    assert obs["state"].shape == (len(env.spec.state),) and obs["state"].dtype == np.float32
    assert obs["image/top"].shape == (96, 96, 3) and obs["image/top"].dtype == np.uint8
    assert obs["stamp/state"] == obs["stamp/image/top"] == 0.0
    assert len({c.name for c in env.spec.state}) == len(env.spec.state)


def test_the_same_seed_gives_the_same_start_in_a_fresh_process(env):
    fresh = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == env.reset(7)["state"].tobytes().hex()
    assert (env.reset(8)["state"] != env.reset(7)["state"]).any()


def test_a_replay_is_bit_identical(env):
    first = play(env, 3)
    play(env, 4)  # what was played in between leaves no trace
    assert np.array_equal(first, play(env, 3))
    assert np.array_equal(first, play(PushTConfig().build(), 3))
    assert np.abs(first[-1, 2:4] - first[0, 2:4]).max() > 1, "the block was never pushed: this test shows nothing"


def test_reset_to_places_the_block_where_it_is_told(env):
    pose = np.array([60.0, 70.0, 300.0, 200.0, 2.0])
    assert np.allclose(env.reset_to(pose)["state"], pusht.observe(pose), atol=1e-4)


def test_success_ends_the_episode_and_scores_one(env):
    env.reset_to(np.array([30.0, 30.0, *pusht.GOAL]))
    step = env.step(np.array([-0.9, -0.9]))
    assert (step.reward, step.terminated, step.truncated, step.score) == (1.0, True, False, 1.0)


def test_time_out_truncates_without_success():
    env = PushTConfig(max_steps=2).build()
    env.reset(0)
    assert not env.step(np.zeros(2)).truncated
    last = env.step(np.zeros(2))
    assert last.truncated and not last.terminated and last.reward == 0.0 and last.obs["stamp/state"] == 0.2


def test_the_grade_of_a_pose_is_the_score_of_the_step(env):
    env.reset_to(np.array([200.0, 300.0, 270.0, 250.0, 0.9]))
    for action in np.random.default_rng(0).uniform(-0.3, 0.3, (30, 2)):
        step = env.step(action)
        assert pusht.grade(env.pose()[None])[0] == pytest.approx(step.score, abs=1e-5)


def test_bad_actions_and_poses_are_refused(env):
    env.reset(0)
    with pytest.raises(RobotRLError, match="NaN"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(RobotRLError, match="5 finite numbers"):
        env.reset_to(np.array([0.0, 0.0, np.nan, 0.0, 0.0]))


@recorded
def test_recorded_actions_replay_the_recorded_states_exactly(env):
    episodes = list(diffusion_policy.read(RECORDINGS, env.spec, pusht.observe, pusht.grade))
    for episode in episodes[:21] + episodes[43:44]:  # in 43 the bodies touch at the start
        states = [env.reset_to(np.array(episode.meta["reset_to"]))["state"]]
        steps = [env.step(action) for action in episode.action]
        error = np.abs(np.stack(states + [s.obs["state"] for s in steps]) - episode.obs["state"]).max()
        assert error < 0.005, f"episode {episode.meta['episode']} is {error:.3f} px off"
        assert np.allclose([s.score for s in steps], episode.score, atol=1e-4)


@recorded
def test_the_keypoints_are_the_recorded_ones_where_the_block_rests():
    import zarr

    data = zarr.open_group(str(RECORDINGS), mode="r")["data"]
    ours = pusht.observe(data["state"][:])[:, 6:].reshape(-1, 9, 2)
    error = np.abs(ours - data["keypoint"][:]).max((1, 2))
    assert np.median(error) < 1e-3 and error.max() < 2.2


@recorded
def test_pictures_are_the_recorded_ones():
    env = PushTConfig(image=True).build()
    episode = next(diffusion_policy.read(RECORDINGS, env.spec, pusht.observe, pusht.grade))
    obs = env.reset_to(np.array(episode.meta["reset_to"]))
    for i, action in enumerate(episode.action[:20]):
        assert np.abs(obs["image/top"].astype(float) - episode.obs["image/top"][i]).mean() < 0.5
        obs = env.step(action).obs
