"""A human beside the robot: takes over where it stalls, lets go when it is mended, is told apart in every record."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from robot_rl.rollout import rollout
from robot_rl.types import Decision, RobotRLError
from sim.human import HumanConfig, Watched
from sim.operators import operator_for
from sim.toy import ToyEnv, ToyOperator
from sim.worlds import WatchedConfig, WorldConfig

HELP = HumanConfig(skill=1.0, patience=4, help=0.3, longest=8)


class Idle:
    """An agent that does nothing, in chunks, and counts what it was asked."""

    n_obs = 2

    def __init__(self):
        self.asked = deque()

    def reset(self, seed=None):
        self.asked.clear()

    def decide(self, obs, *, explore):
        self.asked.append(bool(obs["intervened"]))
        return Decision(np.zeros((4, 2), np.float32))


def watched(human=HELP):
    return Watched(ToyEnv(), human, ToyOperator(1.0))


def test_an_idle_robot_is_helped_after_the_patience_and_left_again():
    agent = Idle()
    episode = rollout(watched(), agent, explore=False, seed=0)
    first = int(np.flatnonzero(episode.intervened)[0])
    assert first == HELP.patience and not episode.intervened[:first].any()
    assert (episode.action[~episode.intervened] == 0).all() and np.abs(episode.action[episode.intervened]).sum() > 0
    runs = np.flatnonzero(np.diff(episode.intervened.astype(int)))
    assert len(runs) >= 2, "it let go"
    assert max(np.diff(runs)[::2]) <= HELP.longest
    assert any(agent.asked) and not agent.asked[0], "the agent is told that its plan is stale"


def test_a_robot_that_gets_on_is_left_alone():
    episode = rollout(watched(), ToyOperator(1.0), explore=False, seed=0)
    assert episode.success and not episode.intervened.any()


def test_a_robot_that_goes_wrong_is_stopped_at_once():
    class Away(Idle):
        def decide(self, obs, *, explore):
            return Decision(-np.ones((4, 2), np.float32))

    human = HumanConfig(skill=1.0, patience=100, alarm=0.1)
    episode = rollout(watched(human), Away(), explore=False, seed=0)
    assert 1 <= int(np.flatnonzero(episode.intervened)[0]) <= 3


def test_the_same_seed_is_the_same_help_and_the_rate_is_kept():
    some = HumanConfig(skill=0.5, patience=4, rate=0.5)
    env = Watched(ToyEnv(), some, ToyOperator(0.5))
    helped = []
    for seed in range(60):
        first, second = (rollout(env, Idle(), explore=False, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(first.action, second.action)
        helped.append(first.intervened.any())
    assert 0.3 < np.mean(helped) < 0.7


def test_without_a_skill_nobody_watches():
    assert isinstance(WatchedConfig(WorldConfig("toy"), HumanConfig()).build(), ToyEnv)
    assert isinstance(WatchedConfig(WorldConfig("toy"), HELP).build(), Watched)


@pytest.mark.parametrize("wrong", [{"rate": 1.5}, {"patience": 0}, {"alarm": 0.0}, {"longest": 0}])
def test_senseless_settings_are_named(wrong):
    with pytest.raises(RobotRLError, match="human"):
        Watched(ToyEnv(), HumanConfig(skill=1.0, **wrong), ToyOperator(1.0))


@pytest.mark.parametrize("task", ["Lift", "PickPlaceCan", "NutAssemblySquare", "Stack"])
def test_whoever_works_well_is_left_alone(task):
    """Raising, turning, letting go and going away are progress too: what is left to do falls in each of them."""
    env = WatchedConfig(WorldConfig(f"robosuite:{task}"), HumanConfig(skill=1.0)).build()
    expert = operator_for(env.spec, 1.0)
    episodes = [rollout(env, expert, explore=False, seed=seed) for seed in range(5)]
    env.close()
    assert all(e.success for e in episodes)
    assert np.mean([e.intervened.mean() for e in episodes]) < 0.1


def test_in_robosuite_a_human_mends_what_a_still_robot_never_would():
    """Also from the middle: let go with the cube in the hand, it goes on and does not begin again."""

    class Still(Idle):
        def decide(self, obs, *, explore):
            return Decision(np.array([[0, 0, 0, 0, 0, 0, self.fingers]], np.float32))

        fingers = 1.0  # holds what it holds

    human = HumanConfig(skill=1.0, patience=5, help=0.3, longest=120)
    env = WatchedConfig(WorldConfig("robosuite:PickPlaceCan", max_steps=300), human).build()
    episodes = [rollout(env, Still(), explore=False, seed=seed) for seed in range(4)]
    env.close()
    assert sum(e.success for e in episodes) >= 3
    assert all(0.3 < e.intervened.mean() < 1.0 for e in episodes)
