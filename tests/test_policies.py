from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import checkpoint
from policies.diffusion import DiffusionConfig
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.normalizer import Normalizer
from policies.transformer import TransformerConfig
from policies.unet import ShortConv, UnetConfig
from robot_rl.rollout import rollout
from robot_rl.types import Channel, RobotRLError
from robot_rl.windows import Windows
from sim.toy import ToyEnv, ToyOperator

BACKBONES = [MlpConfig(32, 2), UnetConfig((8, 16), 3), TransformerConfig(16, 2, 2)]
CONFIGS = [kind(horizon=8, backbone=b) for kind in (FlowConfig, DiffusionConfig) for b in BACKBONES]
CONFIGS += [
    FlowConfig(horizon=8, solver="heun", steps=3, backbone=MlpConfig(32, 1, dropout=0.1)),
    DiffusionConfig(horizon=8, prediction="epsilon", backbone=MlpConfig(32, 1)),
    DiffusionConfig(horizon=8, prediction="v_prediction", train_steps=50, steps=7, backbone=MlpConfig(32, 1)),
    FlowConfig(horizon=5, n_obs=3, backbone=TransformerConfig(16, 1, 2, dropout=0.1)),
]
SPEC = ToyEnv().spec


def built(config):
    torch.manual_seed(0)
    policy = config.build(SPEC)
    rng = np.random.default_rng(0)
    policy.fit(rng.uniform(-1, 1, (50, 4)), rng.uniform(-0.8, 0.8, (50, 2)))
    return policy.eval()


def some_obs(config, n=3):
    return {"state": torch.rand(n, config.n_obs, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_same_noise_same_chunk_and_another_noise_another_chunk(config):
    policy, obs = built(config), some_obs(config)
    noise, other = torch.randn(2, 3, config.horizon, 2)
    first, again = policy.sample(obs, noise), policy.sample(obs, noise)
    assert first.shape == (3, config.horizon, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, policy.sample(obs, other))
    assert not torch.equal(policy.sample(obs), policy.sample(obs))  # without noise, fresh noise


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_chunk_does_not_depend_on_what_else_is_in_the_batch(config):
    policy, obs = built(config), some_obs(config)
    noise = torch.randn(3, config.horizon, 2)
    alone = policy.sample({"state": obs["state"][1:2]}, noise[1:2])
    torch.testing.assert_close(policy.sample(obs, noise)[1:2], alone, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_saved_policy_gives_identical_actions(config, tmp_path):
    policy, obs = built(config), some_obs(config)
    noise = torch.randn(3, config.horizon, 2)
    checkpoint.save(policy, tmp_path / "policy.pt")
    loaded = checkpoint.load(tmp_path / "policy.pt")
    assert loaded.spec == SPEC and loaded.config == config
    assert torch.equal(loaded.sample(obs, noise), policy.sample(obs, noise))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_training_lowers_the_loss_and_reaches_every_weight(config):
    episodes = [rollout(ToyEnv(), ToyOperator(1.0), explore=False, seed=i) for i in range(20)]
    windows = Windows(episodes, config.horizon, config.n_obs)
    policy = built(config).train()
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        loss = policy.loss(windows.batch(torch.randint(len(windows), (64,))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:5])


def test_heun_integrates_a_known_field_better_than_euler():
    def error(solver, steps):
        policy = built(FlowConfig(horizon=1, solver=solver, steps=steps, backbone=MlpConfig(8, 1)))
        policy.net.forward = lambda x, t, cond: x  # dx/dt = x: the exact end is e x_0
        policy.net.actions = lambda x: x
        x = torch.full((1, 1, 2), 0.3)
        return (policy.sample(some_obs(policy.config, 1), x) - torch.e * x).abs().max().item()

    assert error("heun", 10) < 0.1 * error("euler", 10)
    assert error("euler", 20) < 0.6 * error("euler", 10)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 24), st.sampled_from([1, 3, 5, 7]))
@settings(max_examples=60, deadline=None)
def test_the_short_convolution_is_pytorchs_with_its_gradients(batch, inlet, outlet, length, kernel):
    conv = ShortConv(inlet, outlet, kernel).double()
    x = torch.randn(batch, inlet, length, dtype=torch.float64)
    theirs = torch.nn.functional.conv1d(x, conv.weight.permute(2, 1, 0), conv.bias, padding=kernel // 2)
    torch.testing.assert_close(conv(x), theirs)  # as in sampling
    torch.testing.assert_close(conv(x.clone().requires_grad_()), theirs)  # as in training
    x.requires_grad_()
    weights, direction = (x, conv.weight, conv.bias), torch.randn_like(theirs)
    mine = torch.autograd.grad(conv(x), weights, direction)
    theirs = torch.nn.functional.conv1d(x, conv.weight.permute(2, 1, 0), conv.bias, padding=kernel // 2)
    torch.testing.assert_close(mine, torch.autograd.grad(theirs, weights, direction))


def test_ddim_recovers_a_single_possible_chunk():
    """A network that knows the clean chunk must be led to it exactly, whatever the noise."""
    policy = built(DiffusionConfig(horizon=4, prediction="sample", backbone=MlpConfig(8, 1)))
    clean = torch.full((2, 4, 2), 0.25)
    policy.net.forward = lambda x, t, cond: clean
    policy.net.actions = lambda x: x
    torch.testing.assert_close(policy.sample(some_obs(policy.config, 2)), clean, atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_normaliser_inverts_and_maps_the_data_into_the_unit_box(seed, scale):
    channels = tuple(Channel(f"c{i}", "m", -2 * scale, 2 * scale) for i in range(3))
    data = np.random.default_rng(seed).uniform(-scale, scale, (20, 3))
    norm = Normalizer(3)
    norm.fit(data, channels)
    x = torch.as_tensor(data, dtype=torch.float32)
    assert norm(x).abs().max() <= 1 + 1e-4
    torch.testing.assert_close(norm.inverse(norm(x)), x, rtol=1e-4, atol=1e-4 * scale)


def test_a_channel_that_never_moved_maps_to_zero_and_does_not_blow_up_noise():
    norm = Normalizer(2)
    norm.fit(np.full((10, 2), 0.7), (Channel("a", "m", -1, 1), Channel("b", "m", -1, 1)))
    assert norm(torch.full((1, 2), 0.7)).abs().max() < 1e-4
    assert norm(torch.full((1, 2), 0.701)).abs().max() < 1


def test_nan_in_the_data_names_the_channel():
    data = np.zeros((5, 4))
    data[2, 3] = np.nan
    with pytest.raises(RobotRLError, match="goal_y"):
        FlowConfig(backbone=MlpConfig(8, 1)).build(SPEC).fit(data, np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (FlowConfig(horizon=6, backbone=UnetConfig((8, 16, 32))), "4 divides"),
        (FlowConfig(backbone=UnetConfig((9, 16))), "channels"),
        (FlowConfig(backbone=TransformerConfig(width=10, heads=4)), "multiple"),
        (FlowConfig(steps=0), "at least 1"),
        (DiffusionConfig(steps=101), "1..100"),
        (FlowConfig(horizon=0), "at least 1"),
    ],
)
def test_impossible_settings_are_named(config, words):
    with pytest.raises(RobotRLError, match=words):
        config.build(SPEC)


def test_wrong_history_and_wrong_noise_are_named():
    policy = built(CONFIGS[0])
    with pytest.raises(RobotRLError, match="sees states"):
        policy.sample({"state": torch.zeros(1, 1, 4)})
    with pytest.raises(RobotRLError, match="noise must be"):
        policy.sample(some_obs(CONFIGS[0]), torch.zeros(3, 7, 2))


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "other"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "policy.pt"
    checkpoint.save(built(CONFIGS[0]), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "missing":
        path.unlink()
    elif damage == "other":
        torch.save({"weights": {}}, path)
    else:
        path.write_text("hello" if damage == "text" else "")
    with pytest.raises(RobotRLError, match="policy.pt"):
        checkpoint.load(path)


def test_a_checkpoint_with_an_unknown_field_or_other_weights_is_named(tmp_path):
    policy = built(CONFIGS[0])
    data = checkpoint.to_data(policy)
    with pytest.raises(RobotRLError, match="did you mean 'steps'"):
        checkpoint.from_data({**data, "config": {**data["config"], "step": 3}}, "x")
    wider = checkpoint.to_data(built(replace(CONFIGS[0], backbone=MlpConfig(64, 2))))
    with pytest.raises(RobotRLError, match=r"^x: weights\..* is .*, not .*other settings"):
        checkpoint.from_data({**data, "weights": wider["weights"]}, "x")
