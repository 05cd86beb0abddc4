"""Chunks that begin with what is committed, exactly so, and go on from it: laws, then two modes, then agents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.diffusion import DiffusionConfig
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.transformer import TransformerConfig
from policies.unet import UnetConfig
from robot_rl.agents.corrections import CorrectionsConfig
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.expo import ExpoConfig
from robot_rl.agents.frozen import Frozen, FrozenConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.agents.taco import TacoConfig
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv

H, A, SPEC = 16, 2, ToyEnv().spec
SMALL = MlpConfig(128, 2)
BIMODAL = {"flow": FlowConfig(horizon=H, backbone=SMALL), "diffusion": DiffusionConfig(horizon=H, backbone=SMALL)}
OTHERS = [
    FlowConfig(horizon=H, solver="heun", steps=3, backbone=MlpConfig(16, 1)),
    FlowConfig(horizon=H, backbone=UnetConfig((8, 16), 3)),
    DiffusionConfig(horizon=H, prediction="epsilon", backbone=MlpConfig(16, 1)),
    DiffusionConfig(horizon=H, prediction="v_prediction", backbone=TransformerConfig(16, 1, 2)),
]


def left_or_right(n, seed):
    """States (n, 2, 4) that say nothing, and chunks (n, H, A) that go aside, as far and to the side they begin with."""
    g = torch.Generator().manual_seed(seed)
    side = torch.where(torch.rand(n, 1, generator=g) < 0.5, -1.0, 1.0) * (0.4 + 0.4 * torch.rand(n, 1, generator=g))
    aside = side * torch.sin(2.0 * torch.linspace(0.2, 1.0, H))
    ahead = (0.3 + 0.1 * torch.randn(n, 1, generator=g)).expand(n, H)
    chunks = torch.stack([aside, ahead], -1) + 0.01 * torch.randn(n, H, A, generator=g)
    return torch.rand(n, 2, 4, generator=g) * 2 - 1, chunks


def noise(n, seed=1):
    return torch.randn(n, H, A, generator=torch.Generator().manual_seed(seed))


def built(config):
    torch.manual_seed(0)
    policy, (states, chunks) = config.build(SPEC), left_or_right(2000, 0)
    policy.fit(states[:, 0].numpy(), chunks.flatten(0, 1).numpy())
    return policy.eval()


@pytest.fixture(scope="module")
def fitted():
    """Policies that go left or right, half and half, whatever they see."""
    policies, (states, chunks) = {name: built(config) for name, config in BIMODAL.items()}, left_or_right(2000, 0)
    for policy in policies.values():
        optimizer = torch.optim.Adam(policy.train().parameters(), 1e-3)
        for i in range(600):
            rows = torch.randint(2000, (256,), generator=torch.Generator().manual_seed(i))
            optimizer.zero_grad()
            policy.loss({"state": states[rows], "action": chunks[rows]}).backward()
            optimizer.step()
        policy.eval().zero_grad()
    return policies


@torch.no_grad()
def plainly(policy, obs, x):
    """The samplers as they were before anything could be committed."""
    cond = policy.net.condition(obs)
    if isinstance(policy.config, FlowConfig):
        for i in range(policy.config.steps):
            x = x + 1.0 / policy.config.steps * policy.net(x, torch.full((len(x),), i / policy.config.steps), cond)
        return policy.net.actions(x)
    policy.scheduler.set_timesteps(policy.config.steps)
    for k in policy.scheduler.timesteps:
        clean = policy.net(x, k.expand(len(x)).to(x) / policy.config.train_steps, cond)
        x = policy.scheduler.step(clean, k, x, eta=0.0).prev_sample
    return policy.net.actions(x)


@pytest.mark.parametrize("name", BIMODAL)
def test_with_nothing_committed_the_chunk_is_the_plain_one_bit_for_bit(fitted, name):
    policy, obs = fitted[name], {"state": left_or_right(5, 1)[0]}
    plain = plainly(policy, obs, noise(5))
    assert torch.equal(policy.sample(obs, noise(5)), plain)
    assert torch.equal(policy.sample(obs, noise(5), torch.zeros(5, 0, A)), plain)


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from(sorted(BIMODAL)), n=st.integers(1, H), seed=st.integers(0, 99), scale=st.floats(0.0, 1.0))
def test_a_chunk_begins_with_what_is_committed_whatever_that_is_and_the_same_each_time(fitted, name, n, seed, scale):
    policy, obs = fitted[name], {"state": left_or_right(3, seed)[0]}
    committed = scale * (2 * torch.rand(3, n, A, generator=torch.Generator().manual_seed(seed)) - 1)
    chunk = policy.sample(obs, noise(3, seed), committed)
    assert chunk.shape == (3, H, A) and torch.equal(chunk[:, :n], committed)
    assert chunk.abs().max() <= 1.0  # finite too
    assert torch.equal(policy.sample(obs, noise(3, seed), committed), chunk)
    alone = policy.sample({"state": obs["state"][1:2]}, noise(3, seed)[1:2], committed[1:2])
    torch.testing.assert_close(chunk[1:2], alone, atol=1e-3, rtol=0)
    assert all(weight.grad is None for weight in policy.parameters())


@pytest.mark.parametrize("config", OTHERS, ids=str)
def test_every_solver_prediction_and_backbone_can_be_told(config):
    policy, obs = built(config), {"state": left_or_right(3, 1)[0]}
    committed = left_or_right(3, 2)[1][:, :5]
    chunk = policy.sample(obs, noise(3), committed)
    assert torch.equal(chunk[:, :5], committed) and chunk.isfinite().all()
    assert torch.equal(policy.sample(obs, noise(3), committed), chunk)
    assert not torch.equal(policy.sample(obs, noise(3, 2), committed)[:, 5:], chunk[:, 5:])


@pytest.mark.parametrize("name", BIMODAL)
def test_a_chunk_told_to_begin_as_it_does_hardly_changes(fitted, name):
    policy, obs = fitted[name], {"state": left_or_right(200, 1)[0]}
    plain, others = policy.sample(obs, noise(200)), policy.sample(obs, noise(200, 2))
    change = (policy.sample(obs, noise(200), plain[:, :4]) - plain).abs()
    assert change.mean() < 0.03 and change.mean() < 0.1 * (others - plain).abs().mean()  # measured: 0.01 and 0.006


@pytest.mark.parametrize("name", BIMODAL)
@pytest.mark.parametrize(("n", "rate"), [(3, 0.92), (6, 0.98)])
def test_the_rest_of_the_chunk_stays_on_the_committed_side_and_is_no_jump_away(fitted, name, n, rate):
    """The point of it: a plan that begins left and goes on right is one that nobody demonstrated."""
    policy, (states, chunks) = fitted[name], left_or_right(400, 1)
    committed, side = chunks[:, :n], chunks[:, 0, 0].sign()

    def kept(chunk):
        return (chunk[:, n:, 0] * side[:, None] > 0).all(1).float().mean().item()

    def jump(chunk):
        return (chunk[:, n] - committed[:, -1]).abs().mean().item()

    plain, told = (policy.sample({"state": states}, noise(400), c) for c in (None, committed))
    print(
        f"{name}, {n} committed: kept {kept(plain):.3f} -> {kept(told):.3f}, jump {jump(plain):.3f} -> {jump(told):.3f}"
    )
    assert 0.4 < kept(plain) < 0.6 and kept(told) > rate
    assert jump(told) < 0.3 * jump(plain)


@pytest.mark.parametrize("name", BIMODAL)
def test_what_cannot_be_committed_is_named(fitted, name):
    policy, obs = fitted[name], {"state": torch.zeros(2, 2, 4)}
    for shape in ((2, H + 1, A), (2, 3, A + 1), (1, 3, A), (3, A)):
        with pytest.raises(RobotRLError, match=r"committed actions must be \(2, n, 2\), n <= 16"):
            policy.sample(obs, noise(2), torch.zeros(shape))
    for value in (float("nan"), float("inf"), 1.5):
        with pytest.raises(RobotRLError, match="committed actions hold NaN or lie outside"):
            policy.sample(obs, noise(2), torch.full((2, 3, A), value))


def seen(n=3):
    ahead = left_or_right(1, 3)[1][0, :n].numpy()
    return {"state": np.zeros((2, 4), np.float32), "committed": ahead}, ahead


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        FrozenConfig(8),
        CorrectionsConfig(execute=8),
        ResidualConfig(whole_chunks=True),
        DsrlConfig("na"),
        DsrlConfig("sac"),
        ExpoConfig(scale=0.5),
        TacoConfig(),
    ],
    ids=lambda c: type(c).__name__ + getattr(c, "variant", ""),
)
def test_an_agent_hands_on_what_is_committed(fitted, config, explore):
    obs, ahead = seen()
    agent = config.build(fitted["flow"])
    agent.updates = getattr(config, "critic_only", 0) + 1  # it is itself, not its base any more
    agent.reset(0)
    np.testing.assert_array_equal(agent.decide(obs, explore=explore).actions[:3], ahead)


def test_a_residual_plans_from_what_its_base_committed_also_with_several_candidates(fitted):
    obs, ahead = seen()
    agent = replace(ResidualConfig(), candidates=3, critic_only=0).build(fitted["flow"])
    agent.updates = 1
    agent.reset(0)
    np.testing.assert_array_equal(agent.plan(obs, explore=False)[:3], ahead)


@pytest.mark.parametrize("explore", [False, True])
def test_what_is_committed_was_corrected_already_and_only_the_rest_of_a_whole_chunk_is(fitted, explore):
    obs, ahead = seen()
    agent = ResidualConfig(whole_chunks=True, scale=0.5, exploration=0.05).build(fitted["flow"])
    torch.nn.init.normal_(agent.actor[-1].weight)
    agent.updates = agent.config.critic_only + 1
    agent.reset(0)
    chunk = agent.decide(obs, explore=explore).actions
    base = Frozen(fitted["flow"], FrozenConfig(8))
    base.reset(0)
    offset = chunk - base.decide(obs, explore=False).actions
    np.testing.assert_array_equal(chunk[:3], ahead)
    inside = np.abs(chunk[3:]) < 1.0  # not cut
    assert np.abs(offset[3:][inside]).min() > 1e-3
    spread = [np.ptp(column[keep]) for column, keep in zip(offset[3:].T, inside.T, strict=True) if keep.any()]
    assert spread and max(spread) < 1e-6, "one offset for all"


def test_players_that_decide_together_commit_to_nothing(fitted):
    players = [Frozen(fitted["flow"], FrozenConfig(4)) for _ in range(2)]
    with pytest.raises(RobotRLError, match="2 players decide together"):
        Frozen.decide_all(players, [seen()[0]] * 2, explore=False)
    alone = [Frozen.decide_all(players[:1], [seen()[0]], explore=False, rows=rows)[0].actions for rows in (1, 8)]
    assert all((actions[:3] == seen()[1]).all() for actions in alone)
