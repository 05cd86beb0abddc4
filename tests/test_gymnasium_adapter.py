from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot_rl.rollout import rollout
from robot_rl.types import Decision, RobotRLError
from sim.gymnasium_adapter import AsGymnasium, FromGymnasium
from sim.pusht import PushTConfig
from sim.robosuite_env import RobosuiteConfig
from sim.toy import ToyEnv


class Constant:
    n_obs = 1

    def __init__(self, value):
        self.value = value

    def reset(self, seed=None):
        pass

    def decide(self, obs, *, explore):
        return Decision(np.array([[self.value]], np.float32))


@pytest.mark.parametrize(
    "build",
    [ToyEnv, PushTConfig().build, PushTConfig(image=True).build, RobosuiteConfig("Lift").build],
    ids=["toy", "pusht", "pusht with image", "robosuite"],
)
def test_our_worlds_pass_gymnasiums_own_checker(build):
    env = AsGymnasium(build())
    check_env(env, skip_render_check=True)
    env.close()


def test_an_adapted_world_keeps_its_episodes():
    """Seeded alike, the adapter and the world give the same observations and the same end."""
    adapted, plain = AsGymnasium(ToyEnv()), ToyEnv()
    seen, _ = adapted.reset(seed=5)
    np.testing.assert_array_equal(seen["state"], plain.reset(5)["state"])
    for _ in range(30):
        obs, reward, terminated, truncated, info = adapted.step(np.array([2.0, -0.5]))
        step = plain.step(np.array([2.0, -0.5]))
        np.testing.assert_array_equal(obs["state"], step.obs["state"])
        assert (reward, terminated, truncated) == (step.reward, step.terminated, step.truncated)
        np.testing.assert_array_equal(info["action"], [1.0, -0.5])
    assert truncated


def test_their_worlds_play_in_our_loop():
    env = FromGymnasium(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), "pendulum", 20.0, 50)
    first = rollout(env, Constant(0.3), explore=False, seed=1)
    again = rollout(env, Constant(0.3), explore=False, seed=1)
    assert len(first) == 50 and first.truncated and not first.success
    np.testing.assert_array_equal(first.obs["state"], again.obs["state"])
    assert env.render().shape[-1] == 3
    env.close()


def test_an_action_is_scaled_to_their_box():
    class Echo(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
        action_space = gymnasium.spaces.Box(0, 4, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return action, 1.0, bool(action[0] > 3.5), False, {}

    env = FromGymnasium(Echo(), "echo", 10.0, 5)
    assert env.step(np.array([0.5])).obs["state"] == 3.0
    last = env.step(np.array([1.0]))
    assert last.terminated and last.reward == 1.0


@pytest.mark.parametrize("name", ["CartPole-v1", "FrozenLake-v1"])
def test_worlds_that_do_not_fit_are_named(name):
    with pytest.raises(RobotRLError, match=r"Box"):
        FromGymnasium(gymnasium.make(name), name, 10.0, 10)
