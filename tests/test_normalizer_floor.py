"""A range that was only seen is no floor: a still or jittering channel is not stretched, and no loss is NaN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.diffusion import DiffusionConfig
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.normalizer import LEAST, LEAST_UNKNOWN, MIN_RANGE, Normalizer, least_range
from robot_rl.types import Channel, Spec

units = st.sampled_from([*LEAST, "", "furlong"])


def seen(values: np.ndarray, unit: str = "") -> tuple[Channel, ...]:
    """Channels as an importer makes them: the range is the one in the data, be it empty."""
    return tuple(
        Channel(f"c{i}", unit, float(a), float(b), seen=True)
        for i, (a, b) in enumerate(zip(values.min(0), values.max(0), strict=True))
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3), st.floats(-1e4, 1e4), units, st.booleans())
def test_every_half_range_is_above_zero_and_the_data_lie_in_the_unit_box(seed, spread, offset, unit, declared):
    data = (offset + spread * np.random.default_rng(seed).uniform(-1, 1, (30, 2))).astype(np.float32)
    data[:, 1] = np.float32(offset)
    channels = (Channel("a", unit, offset, offset),) * 2 if declared else seen(data, unit)
    norm = Normalizer(2)
    norm.fit(data, channels)
    assert (norm.half_range > 0).all() and (norm.half_range >= least_range(channels[0]) / 2 * (1 - 1e-6)).all()
    out = norm(torch.as_tensor(data))
    rounding = np.finfo(np.float32).eps * abs(data).max() / norm.half_range.min().item()
    assert torch.isfinite(out).all() and out.abs().max() <= 1 + 1e-6 + 2 * rounding
    assert torch.equal(out[:, 1], torch.zeros(30)), "a constant normalises to 0"


def test_a_joint_that_jitters_by_a_millionth_is_not_blown_up():
    data = np.stack([0.3 + 1e-6 * np.random.default_rng(0).uniform(-1, 1, 200), np.linspace(-1, 1, 200)], 1)
    norm = Normalizer(2)
    norm.fit(data.astype(np.float32), seen(data))
    assert norm(torch.tensor([[0.301, 0.0]])).abs().max() < 1, "a millimetre off is not 1002 ranges"
    old = Channel("a", "", data[:, 0].min(), data[:, 0].max())  # a store of before the range was marked as seen
    norm.fit(data.astype(np.float32), (old, old))
    assert norm(torch.tensor([[0.301, 0.0]])).abs().max() < 1


def test_a_large_number_that_float32_cannot_tell_from_its_neighbours_is_not_stretched():
    data = np.full((10, 1), 4e6, np.float32) + np.arange(10, dtype=np.float32)[:, None] % 2 * 0.5
    norm = Normalizer(1)
    norm.fit(data, seen(data))
    assert norm(torch.as_tensor(data + 1.0)).abs().max() < 1


def test_declared_ranges_give_the_floor_that_they_always_gave():
    for channel in (
        Channel("x", "m", -2, 2),
        Channel("r", "1", -1, 1),
        Channel("q", "rad", -2.9, 2.9),
        Channel("p", "px", 0, 512),
    ):
        assert least_range(channel) == MIN_RANGE * (channel.high - channel.low)
    assert least_range(Channel("x", "", -100, 100, seen=True)) == LEAST_UNKNOWN
    assert least_range(Channel("x", "1", -np.inf, np.inf)) == LEAST["1"]


@pytest.mark.parametrize(
    "config", [FlowConfig(horizon=4, backbone=MlpConfig(8, 1)), DiffusionConfig(horizon=4, backbone=MlpConfig(8, 1))]
)
def test_constant_states_and_actions_train_to_a_finite_loss(config):
    state, action = np.full((40, 3), 0.82, np.float32), np.full((40, 2), 0.5, np.float32)
    spec = Spec("robomimic:Lift", "", seen(state), seen(action), (), 20.0, 40)
    policy = config.build(spec)
    policy.fit(state, action)
    batch = {
        "state": torch.as_tensor(state[: config.n_obs])[None].expand(8, -1, -1),
        "action": torch.full((8, 4, 2), 0.5),
    }
    assert torch.isfinite(policy.loss(batch))
