"""Residual RL on the toy world: the laws first, the traps of ResFiT one by one, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.agents.engine import CriticEnsemble
from robot_rl.agents.frozen import Frozen, FrozenConfig
from robot_rl.agents.residual import Residual
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.cli import DEMOS
from robot_rl.episodes import EpisodeStore
from robot_rl.evaluate import evaluate
from robot_rl.refine import refine
from robot_rl.replay import Replay
from robot_rl.rollout import rollout
from robot_rl.types import Channel, RobotRLError
from sim.toy import ToyEnv, ToyOperator

SMALL = DEMOS["toy"].agent


@pytest.fixture
def policy(toy_policy):
    return checkpoint.load(toy_policy)


def filled(agent, episodes=5):
    """A replay of demonstrations and of the agent's own episodes."""
    replay = Replay()
    for i in range(episodes):
        demo = rollout(ToyEnv(), ToyOperator(1.0), explore=False, seed=i)
        replay.demos.add(replace(demo, extras=agent.label(demo)))
        replay.online.add(rollout(ToyEnv(), agent, explore=True, seed=100 + i))
    return replay


def test_a_residual_of_zero_is_the_base_bit_for_bit(policy):
    frozen, fresh = Frozen(policy, FrozenConfig(4)), SMALL.build(policy)
    none = replace(SMALL, scale=0.0, critic_only=0).build(policy)
    replay = filled(none)
    for _ in range(8):
        none.update(replay)
    for seed in range(5):
        base = rollout(ToyEnv(), frozen, explore=False, seed=seed)
        for agent in (fresh, none):
            other = rollout(ToyEnv(), agent, explore=False, seed=seed)
            np.testing.assert_array_equal(base.action, other.action)
            np.testing.assert_array_equal(base.obs["state"], other.obs["state"])


def test_the_residual_stays_within_its_scale_and_the_action_within_the_box(policy):
    agent = replace(SMALL, scale=0.2).build(policy)
    torch.nn.init.normal_(agent.actor[-1].weight, std=100.0)  # as far out as it can go
    episode = rollout(ToyEnv(), agent, explore=False, seed=0)
    base = episode.extras["base_action"][:-1]
    assert np.abs(episode.action - base).max() <= 0.2 + 1e-6
    assert np.abs(episode.action).max() <= 1.0
    assert np.abs(episode.action - base).max() > 0.19


def test_a_chunk_is_corrected_and_explored_by_one_offset_for_all_its_actions(policy):
    """Noise drawn anew at each step averages out along a chunk: the critic would not see where the actor goes."""
    agent = replace(SMALL, scale=0.2, whole_chunks=True, execute=4).build(policy)
    torch.nn.init.normal_(agent.actor[-1].weight, std=0.1)  # not so much that the bound makes two the same
    state, base = torch.randn(50, 4), torch.rand(50, 8) * 2 - 1
    agent.reset(0)
    for updates in (0, 1):
        agent.updates = updates
        for offsets in (agent._residual(state, base), agent._exploration(50)):
            steps = offsets.view(50, 4, 2)
            assert (steps == steps[:, :1]).all()
            assert len(steps.flatten(1).unique(dim=0)) == 50


def test_a_ramp_opens_the_scale_step_by_step(policy):
    agent = replace(SMALL, scale=0.2, critic_only=40, ramp=100).build(policy)
    torch.nn.init.normal_(agent.actor[-1].weight, std=100.0)
    seen = torch.randn(200, 4), torch.rand(200, 2) * 2 - 1
    for updates, share in ((0, 0.0), (40, 0.0), (65, 0.25), (140, 1.0), (900, 1.0)):
        agent.updates = updates
        assert agent._residual(*seen).abs().max().item() == pytest.approx(0.2 * share, rel=1e-3)


def test_a_gripper_has_a_scale_of_its_own_that_can_turn_its_command():
    toy = ToyEnv().spec
    spec = replace(toy, action=(toy.action[0], Channel("gripper", "1", -1.0, 1.0)))
    policy = FlowConfig(horizon=4, backbone=MlpConfig(16, 1)).build(spec)
    policy.fit(np.random.default_rng(0).normal(size=(50, 4)), np.array([[-1.0, -1.0], [1.0, 1.0]]))
    agent = replace(SMALL, scale=0.2, gripper_scale=1.5).build(policy)
    torch.nn.init.normal_(agent.actor[-1].weight, std=100.0)
    seen = torch.randn(200, 4), torch.rand(200, 2) * 2 - 1
    residual = agent._residual(*seen).abs()
    assert 0.19 < residual[:, 0].max() <= 0.2 + 1e-6 and 1.4 < residual[:, 1].max() <= 1.5 + 1e-6


def test_what_is_stored_is_what_was_executed(policy):
    """The exploration noise and the clip are in the stored action; the base action is stored beside it."""
    agent = replace(SMALL, warm_up_noise=2.0).build(policy)
    episode = rollout(ToyEnv(), agent, explore=True, seed=0)
    points = episode.obs["state"][:, :2]
    moved = np.diff(points, axis=0) / 0.1
    inside = (np.abs(points[1:]) < 1.0).all(1)
    np.testing.assert_allclose(moved[inside], episode.action[inside], atol=1e-4)
    assert (np.abs(episode.action) == 1.0).any()


def test_the_base_is_planned_afresh_after_every_reset(policy):
    """ResFiT's code starts an episode with the rest of the last chunk after a time-out."""
    agent = SMALL.build(policy)
    env = ToyEnv(max_steps=6)  # a time-out in the middle of a chunk of 4
    rollout(env, agent, explore=False, seed=0)
    after = rollout(env, agent, explore=False, seed=1)
    fresh = rollout(env, SMALL.build(policy), explore=False, seed=1)
    np.testing.assert_array_equal(after.extras["base_action"], fresh.extras["base_action"])


def test_labelling_a_demonstration_is_what_acting_along_it_would_remember(policy):
    """Fed its own episode, the labels are the base actions that it stored, the one after the last step included."""
    agent = SMALL.build(policy)
    for seed in range(4):
        episode = rollout(ToyEnv(), agent, explore=False, seed=seed)
        labels = agent.label(episode)["base_action"]
        np.testing.assert_allclose(labels, episode.extras["base_action"], atol=1e-5)


def test_targets_bootstrap_time_outs_and_not_success(policy):
    agent = replace(SMALL, n_step=1, gamma=0.5).build(policy)
    replay = filled(agent)
    batch = replay.sample(256, 0.5, 1, 0.5, torch.Generator().manual_seed(0))
    batch["discount"][:10], batch["reward"][:10] = 0.0, 1.0
    for key in ("state", "next/state"):
        batch[key] = policy.normalise(batch[key])
    agent.target.forward = lambda state, action, heads: torch.full((2, len(state)), 0.8)
    target = agent._td_target(batch)
    expected = (batch["reward"] + batch["discount"] * 0.8).clamp(0, 1)
    torch.testing.assert_close(target, expected)
    assert (target[:10] == 1).all() and (target[10:] > 0.39).any()


def test_the_actor_waits_for_the_critic_and_then_moves_once_in_four(policy):
    agent = replace(SMALL, critic_only=8).build(policy)
    replay = filled(agent)
    moved = []
    for _ in range(16):
        before = agent.actor[-1].weight.clone()
        agent.update(replay)
        moved.append(not torch.equal(before, agent.actor[-1].weight))
    assert moved == [False] * 11 + [True] + [False] * 3 + [True]


def test_targets_follow_the_critic_and_remember_no_graph(policy):
    agent = replace(SMALL, tau=0.25).build(policy)
    replay = filled(agent)
    before = [p.clone() for p in agent.target.parameters()]
    agent.update(replay)
    for old, target, critic in zip(before, agent.target.parameters(), agent.critic.parameters(), strict=True):
        torch.testing.assert_close(target, old + 0.25 * (critic - old))
        assert not target.requires_grad and target.grad_fn is None


def test_a_saturated_action_can_be_pulled_back(policy):
    """The clip hides the critic's slope from a plain gradient; here it must come through."""
    agent = replace(SMALL, penalty=0.0, actor_learning_rate=1e-2).build(policy)
    batch = filled(agent).sample(64, 0.5, 1, 0.9, torch.Generator().manual_seed(0))
    batch["state"] = policy.normalise(batch["state"])
    batch["extra/base_action"] = torch.ones_like(batch["extra/base_action"])
    torch.nn.init.constant_(agent.actor[-1].bias, 0.5)  # pushes outwards, beyond 1
    agent.critic.forward = lambda state, action: -action.sum(-1)[None]  # wants less of everything
    for _ in range(60):
        agent._actor_step(batch)
    residual = agent._residual(batch["state"], batch["extra/base_action"])
    assert residual.mean() < -0.1


def test_critic_heads_are_independent_and_can_be_chosen():
    torch.manual_seed(0)
    critic = CriticEnsemble(5, 6, 16)
    state, action = torch.randn(7, 4), torch.randn(7, 2)
    every = critic(state, action)
    chosen = critic(state, action, torch.tensor([3, 1]))
    torch.testing.assert_close(chosen, every[[3, 1]])
    every[2].sum().backward()
    assert critic.first.weight.grad[2].abs().sum() > 0
    assert critic.first.weight.grad[[0, 1, 3, 4]].abs().sum() == 0


def test_saved_and_loaded_agents_act_alike(policy, tmp_path):
    agent = replace(SMALL, critic_only=0).build(policy)
    replay = filled(agent)
    for _ in range(20):
        agent.update(replay)
    save_agent(agent, tmp_path / "agent.pt")
    loaded = load_agent(tmp_path / "agent.pt")
    assert isinstance(loaded, Residual) and loaded.config == agent.config
    for explore in (False, True):
        first, second = (rollout(ToyEnv(), a, explore=explore, seed=3) for a in (agent, loaded))
        np.testing.assert_array_equal(first.action, second.action)
    assert agent.update(replay) == loaded.update(replay)


def test_impossible_settings_are_named(policy):
    for config, words in [(replace(SMALL, execute=9), "horizon"), (replace(SMALL, heads=1), "heads is 1")]:
        with pytest.raises(RobotRLError, match=words):
            config.build(policy)


def test_refinement_solves_the_toy_world(toy_demos, toy_policy, policy, tmp_path):
    """From about half to at least 85 of 100 start states that were never practised."""
    before = evaluate(ToyEnv, partial(load_agent, toy_policy, 4), episodes=100)["summary"]["successes"]
    config = DEMOS["toy"].refine
    file = refine(
        tmp_path / "run", [toy_demos], ToyEnv, partial(SMALL.build, policy), config, {"agent": SMALL}, save_agent
    )
    after = evaluate(ToyEnv, partial(load_agent, file), episodes=100)["summary"]["successes"]
    assert 20 <= before <= 75
    assert after >= 85
    assert len(EpisodeStore.open(tmp_path / "run" / "episodes")) > 60
