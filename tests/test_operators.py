"""Scripted operators: they solve the four tasks, each time in another manner, worse the less skilled, and mend it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robot_rl.rollout import rollout
from robot_rl.types import Episode, RobotRLError
from sim.operators import FULLEST, operator_for
from sim.robosuite_env import RobosuiteConfig


def demonstrate(task: str, skill: float, seeds: range, arm: str = "Panda") -> list[Episode]:
    env = RobosuiteConfig(task, arm).build()
    operator = operator_for(env.spec, skill)
    episodes = [rollout(env, operator, explore=False, seed=seed) for seed in seeds]
    env.close()
    return episodes


@pytest.fixture(scope="module")
def experts() -> list[Episode]:
    return demonstrate("Lift", 1.0, range(20))


def test_the_expert_lifts_the_cube(experts):
    assert sum(e.success for e in experts) >= 19
    assert np.mean([len(e) for e in experts]) < 60


@pytest.mark.parametrize("task", ["PickPlaceCan", "NutAssemblySquare", "Stack"])
def test_the_expert_does_the_other_chores(task):
    assert all(e.success for e in demonstrate(task, 1.0, range(100, 104)))


def test_the_expert_uses_other_arms():
    assert all(e.success for e in demonstrate("Lift", 1.0, range(3), arm="UR5e"))


def test_less_skill_succeeds_less_and_more_slowly(experts):
    half, none = (demonstrate("Lift", skill, range(20)) for skill in (0.5, 0.0))
    rates = [sum(e.success for e in episodes) for episodes in (experts, half, none)]
    assert rates[0] > rates[1] > rates[2] > 0
    lengths = [np.mean([len(e) for e in episodes]) for episodes in (experts, half, none)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_one_seed_is_one_demonstration_and_two_are_two(experts):
    again = demonstrate("Lift", 1.0, range(2))
    assert all(np.array_equal(a.action, b.action) for a, b in zip(again, experts, strict=False))
    env = RobosuiteConfig("Lift").build()
    operator = operator_for(env.spec)
    obs = {"state": env.reset(0)["state"][None]}
    firsts = set()
    for seed in range(8):
        operator.reset(seed)
        firsts.add(operator.decide(obs, explore=False).actions.tobytes())
    assert len(firsts) == 8, "the same start is not always begun in the same way"


def test_actions_leave_room(experts):
    actions = np.concatenate([e.action for e in experts])
    assert actions.dtype == np.float32 and actions.shape[1] == 7
    assert np.abs(actions[:, :6]).max() <= FULLEST + 1e-6
    assert np.mean(np.abs(actions[:, :6]).max(1) > 0.9) < 0.02


def test_a_dropped_thing_is_picked_up_again():
    env = RobosuiteConfig("PickPlaceCan", max_steps=300).build()
    height = [c.name for c in env.spec.state].index("Can_pos_z")
    operator = operator_for(env.spec)
    operator.reset(0)
    obs, fingers, dropping = env.reset(0), [], 0
    for _ in range(env.spec.max_steps):
        action = operator.decide({"state": obs["state"][None]}, explore=False).actions[0]
        fingers.append(action[6])
        if obs["state"][height] > 0.90 and dropping < 12:
            action, dropping = np.append(action[:6], -1.0), dropping + 1  # someone opens the fingers
        step = env.step(action)
        obs = step.obs
        if step.terminated:
            break
    turns = np.flatnonzero(np.diff(np.sign(fingers)))
    assert dropping == 12 and step.reward == 1.0, "and the chore is finished all the same"
    assert len(turns) >= 4, "closed, lost, opened, closed again, released"
    env.close()


def test_operators_read_names_and_refuse_what_they_cannot_do():
    env = RobosuiteConfig("Lift", max_steps=5).build()
    with pytest.raises(RobotRLError, match="operators for: robosuite:Lift"):
        operator_for(replace(env.spec, world="robosuite:Door"))
    with pytest.raises(RobotRLError, match="skill"):
        operator_for(env.spec, 1.5)
    with pytest.raises(RobotRLError, match="does not tell where"):
        operator_for(replace(env.spec, state=env.spec.state[:-12]))
    state = env.reset(0)["state"][None]
    turned = operator_for(replace(env.spec, state=env.spec.state[::-1]))
    there, here = (
        o.decide({"state": x}, explore=False).actions
        for o, x in ((turned, state[:, ::-1]), (operator_for(env.spec), state))
    )
    assert np.array_equal(there, here)
    env.close()


@pytest.mark.parametrize("controller", ["OSC_POSITION", "JOINT_POSITION"])
def test_no_operator_acts_through_another_controller(controller):
    env = RobosuiteConfig("Lift", controller=controller).build()
    with pytest.raises(RobotRLError, match="OSC_POSE"):
        operator_for(env.spec)
    env.close()
