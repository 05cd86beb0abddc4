"""Laws of steering by noise: it begins as its base, stays in its box, and its targets are the closed form."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import checkpoint
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.evaluate import evaluate
from robot_rl.refine import RefineConfig, refine
from robot_rl.replay import Replay
from robot_rl.rollout import rollout
from robot_rl.types import Episode, RobotRLError
from sim.toy import ToyEnv

CONFIG = DsrlConfig(execute=4, heads=3, width=64, batch=64, critic_only=20)


@pytest.fixture
def policy(toy_policy):
    torch.manual_seed(0)
    return checkpoint.load(toy_policy)


def replay_of(agent, n=12) -> Replay:
    replay = Replay()
    for seed in range(n):
        episode = rollout(ToyEnv(), agent, explore=True, seed=seed)
        (replay.demos if seed % 2 else replay.online).add(episode)
    return replay


def trained(policy, steps, config=CONFIG):
    torch.manual_seed(0)
    agent = config.build(policy)
    replay = replay_of(agent)
    for _ in range(steps):
        agent.update(replay)
    return agent


def test_it_is_its_base_bit_for_bit_until_the_actor_moves(policy):
    base = FrozenConfig(4).build(policy)
    for steps in (0, CONFIG.critic_only):
        agent = trained(policy, steps)
        for seed in range(3):
            mine, its = (rollout(ToyEnv(), a, explore=True, seed=seed).action for a in (agent, base))
            np.testing.assert_array_equal(mine, its)
    moved = rollout(ToyEnv(), trained(policy, CONFIG.critic_only + 1), explore=False, seed=0).action
    assert not np.array_equal(moved, rollout(ToyEnv(), base, explore=False, seed=0).action)


@given(st.integers(0, 10_000), st.floats(0.1, 3.0), st.floats(0.1, 50.0))
@settings(max_examples=30, deadline=None)
def test_noise_stays_in_its_box_and_its_density_is_the_squashed_gaussians(seed, bound, size):
    policy = POLICY[0]
    torch.manual_seed(seed)
    agent = DsrlConfig(execute=4, heads=2, width=16, bound=bound).build(policy)
    torch.nn.init.normal_(agent.actor.net[-1].weight)
    seen = size * torch.randn(5, 2 * len(policy.spec.state))
    draws = torch.randn(5, agent._noise_dim)
    noise, log_density = agent.actor(seen, draws)
    assert noise.abs().max() <= bound * (1 + 1e-6)
    if noise.abs().max() < 0.99 * bound:  # beyond, atanh of a rounded number is no reference
        mean, log_std = agent.actor.net(seen).chunk(2, -1)
        normal = torch.distributions.Normal(mean.double(), log_std.double().clamp(-5, 1).exp())
        squashed = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform()])
        expected = squashed.log_prob(noise.double() / bound).sum(-1)
        torch.testing.assert_close(log_density.double(), expected, atol=1e-2, rtol=1e-3)


POLICY: list = []


@pytest.fixture(autouse=True)
def _share(policy):
    POLICY[:] = [policy]


def test_the_target_is_the_closed_form(policy):
    """Traps 1 and 2: gamma^m counts control steps; a time-out bootstraps, success does not."""
    agent = CONFIG.build(policy)
    state, action = np.zeros((7, 4), np.float32), np.zeros((6, 2), np.float32)
    for success in (True, False):
        reward = np.array([0, 0, 0, 0, 0, success], np.float32)
        replay = Replay()
        replay.online.add(Episode({"state": state}, action, reward, reward, reward.astype(bool), success, not success))
        batch = replay.sample(64, 0.0, 4, 0.9, torch.Generator().manual_seed(0), history=2)
        agent.target.forward = lambda *_: torch.full((2, 64), 0.5)
        target = agent._td_target(batch)
        for y, r, d in zip(target, batch["reward"], batch["discount"], strict=True):
            left = [m for m in range(1, 5) if abs(float(d) - 0.9**m) < 1e-5]
            if success and float(d) == 0.0:
                assert float(y) == pytest.approx(float(r)) and 0.9**3 - 1e-5 <= float(r) <= 1
            else:
                assert len(left) == 1 and float(y) == pytest.approx(0.5 * 0.9 ** left[0]) and float(r) == 0.0


def test_the_noise_critic_learns_what_the_chunk_critic_says(policy):
    agent = trained(policy, 0)
    replay = replay_of(agent)
    losses = []
    for _ in range(150):
        batch = replay.sample(64, 0.5, 4, 0.99, agent._random, history=2)
        losses.append(agent._noise_critic_step(batch)["noise_critic_loss"])
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:3])


def test_saved_and_loaded_it_acts_and_learns_the_same(policy, tmp_path):
    agent = trained(policy, 25)
    save_agent(agent, tmp_path / "agent.pt")
    again = load_agent(tmp_path / "agent.pt")
    for explore in (True, False):
        mine, its = (rollout(ToyEnv(), a, explore=explore, seed=5).action for a in (agent, again))
        np.testing.assert_array_equal(mine, its)
    again.load_state_dict(deepcopy(agent.state_dict()))
    replay = replay_of(agent)
    assert agent.update(replay) == again.update(replay)


def test_senseless_settings_are_named(policy):
    for wrong in ({"bound": 0.0}, {"temperature": 0.0}, {"heads": 1}, {"execute": 99}):
        with pytest.raises(RobotRLError):
            DsrlConfig(**wrong).build(policy)


def test_it_learns_in_the_toy_world(toy_demos, toy_policy, tmp_path):
    config = DsrlConfig(execute=4, heads=4, width=64, batch=128, critic_only=300, learning_rate=1e-3)
    practice = RefineConfig(steps=3000, base_steps=500, first_updates=300, utd=1, threads=1)
    torch.manual_seed(0)
    build = lambda: config.build(checkpoint.load(toy_policy))  # noqa: E731
    file = refine(tmp_path / "run", [toy_demos], ToyEnv, build, practice, {"agent": config}, save_agent)
    before = evaluate(ToyEnv, partial(load_agent, toy_policy, 4), episodes=100)["summary"]["successes"]
    after = evaluate(ToyEnv, partial(load_agent, file), episodes=100)["summary"]["successes"]
    assert before <= 65 and after >= before + 15, (before, after)
