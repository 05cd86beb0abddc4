"""Every refiner keeps its laws on a base that sees pictures; `residual` can have eyes of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policies import checkpoint
from policies.encoders import ConvConfig
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.vision import VisionConfig
from robot_rl.agents.frozen import looked_along
from robot_rl.agents.residual import ResidualConfig
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.collect import collect
from robot_rl.refine import RefineConfig, refine
from robot_rl.replay import Replay
from robot_rl.rollout import rollout
from robot_rl.types import RobotRLError
from robot_rl.vector import episodes
from sim.toy import ToyEnv, ToyOperator
from tests.test_agents import AGENTS, CRITICS

EYES = VisionConfig(ConvConfig((8, 8), (2, 2), features=6), shift=2)
BASE = FlowConfig(horizon=8, steps=2, backbone=MlpConfig(16, 1), vision=EYES, state=("x", "y"))
SEEING = AGENTS | {"residual with own eyes": ResidualConfig(**CRITICS, actor_every=2, eyes="own")}
see_toy = partial(ToyEnv, image=True)
every_agent = pytest.mark.parametrize("name", SEEING)


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory):
    torch.manual_seed(0)
    policy = BASE.build(see_toy().spec)
    rng = np.random.default_rng(0)
    policy.fit(rng.uniform(-1, 1, (50, 4)), rng.uniform(-0.8, 0.8, (50, 2)))
    file = tmp_path_factory.mktemp("seen") / "policy.pt"
    checkpoint.save(policy, file)
    return file


def practised(agent, n=3):
    look = partial(looked_along, agent.policy)
    replay = Replay(getattr(agent, "learns_from_images", False), look)
    for seed in range(n):
        demo = rollout(see_toy(), ToyOperator(1.0), explore=False, seed=seed)
        replay.demos.add(replace(demo, extras=agent.label(demo)))
        own = rollout(see_toy(), agent, explore=True, seed=100 + seed)
        replay.remember(own if own.extras else replace(own, extras=agent.label(own)))
    return replay


@every_agent
def test_it_begins_as_the_base_learns_and_acts_the_same_when_loaded(name, policy_file, tmp_path):
    torch.manual_seed(0)
    agent, base = SEEING[name].build(checkpoint.load(policy_file)), load_agent(policy_file, 4)
    if name != "dsrl sac":  # its noise lies in the box from the start
        mine, its = (rollout(see_toy(), a, explore=False, seed=1) for a in (agent, base))
        np.testing.assert_array_equal(mine.action, its.action)
    replay = practised(agent)
    for _ in range(8):
        assert all(np.isfinite(v) for v in agent.update(replay).values())
    save_agent(agent, tmp_path / "agent.pt")
    again = load_agent(tmp_path / "agent.pt")
    alone = rollout(see_toy(), again, explore=False, seed=5)
    np.testing.assert_array_equal(rollout(see_toy(), agent, explore=False, seed=5).action, alone.action)
    assert agent.update(replay) == again.update(replay)


@every_agent
def test_who_shares_a_policy_call_changes_nothing(name, policy_file):
    agent = SEEING[name].build(checkpoint.load(policy_file))
    replay = practised(agent, 1)
    for _ in range(8):
        agent.update(replay)
    alone = next(episodes(see_toy, lambda: agent, [1], 1))
    np.testing.assert_array_equal(list(episodes(see_toy, lambda: agent, [0, 1], 1))[1].action, alone.action)


def test_own_eyes_are_trained_by_the_critic_alone_and_the_base_is_not(policy_file):
    policy = checkpoint.load(policy_file)
    agent = SEEING["residual with own eyes"].build(policy)
    replay, before = practised(agent), {k: v.clone() for k, v in agent.eyes.state_dict().items()}
    base = {k: v.clone() for k, v in policy.state_dict().items()}
    batch = replay.sample(8, 0.5, 1, 0.99, torch.Generator().manual_seed(0))
    assert batch["image/top"].dtype == torch.uint8
    batch["state"], batch["next/state"] = (policy.normalise(batch[k]) for k in ("state", "next/state"))
    batch["state"], batch["next/state"] = agent.eyes.look(batch, torch.Generator().manual_seed(0))
    agent._actor_step(batch)
    assert all(torch.equal(v, before[k]) for k, v in agent.eyes.state_dict().items())
    agent._critic_step(batch)
    moved = [k for k, v in agent.eyes.state_dict().items() if not torch.equal(v, before[k])]
    assert len(moved) == len([k for k, _ in agent.eyes.named_parameters()])
    assert all(torch.equal(v, base[k]) for k, v in policy.state_dict().items())


def test_eyes_of_its_own_need_a_base_that_sees(toy_policy):
    with pytest.raises(RobotRLError, match="sees no pictures"):
        ResidualConfig(eyes="own").build(checkpoint.load(toy_policy))


@pytest.mark.parametrize("eyes", ["base", "own"])
def test_a_refinement_that_was_stopped_ends_as_one_that_was_not(eyes, policy_file, tmp_path):
    demos = collect(tmp_path / "demos", see_toy().spec, see_toy, partial(ToyOperator, 0.9), episodes=4)
    config = RefineConfig(steps=150, base_steps=40, first_updates=8, utd=0.1, threads=1, hopeless=0)
    agent = ResidualConfig(**CRITICS, actor_every=2, eyes=eyes)
    make = lambda: agent.build(checkpoint.load(policy_file))  # noqa: E731
    run = lambda out, make_env: refine(out, [demos], make_env, make, config, {}, save_agent)  # noqa: E731
    straight = run(tmp_path / "straight", see_toy)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Dying)
    resumed = run(tmp_path / "cut", see_toy)
    ours, theirs = (load_agent(file).state_dict() for file in (straight, resumed))
    assert ours["updates"] == theirs["updates"] > 8
    for part in ("actor", "critic", *(["eyes"] if eyes == "own" else [])):
        assert all(torch.equal(ours[part][k], theirs[part][k]) for k in ours[part])


class Dying(ToyEnv):
    """Stops in its fourth episode."""

    def __init__(self):
        super().__init__(image=True)
        self._begun = 0

    def reset(self, seed=None):
        self._begun += 1
        if self._begun == 4:
            raise KeyboardInterrupt
        return super().reset(seed)
