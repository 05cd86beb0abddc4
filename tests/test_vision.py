"""Policies that see: laws of encoders and augmentation, and the whole path from pictures to practice."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from policies import checkpoint
from policies.chunk_net import chosen
from policies.diffusion import DiffusionConfig
from policies.encoders import ConvConfig, SpatialSoftmax, VitConfig
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.resnet import Resnet, ResnetConfig
from policies.vision import VisionConfig, jittered
from robot_rl.checkpoints import load_agent
from robot_rl.collect import collect
from robot_rl.episodes import EpisodeStore
from robot_rl.evaluate import evaluate
from robot_rl.pretrain import PretrainConfig, Trainer, pretrain
from robot_rl.types import CameraSpec, RobotRLError
from robot_rl.vector import episodes
from robot_rl.windows import Windows
from sim.toy import ToyEnv, ToyOperator

SMALL = ConvConfig(channels=(8, 8), strides=(2, 2), features=6)
ENCODERS = [SMALL, VitConfig(width=16, heads=2, features=6), ResnetConfig(width=8, features=6)]
SEEING = VisionConfig(SMALL, shift=2)
TINY = FlowConfig(horizon=8, backbone=MlpConfig(width=64, depth=2), vision=SEEING, state=("x", "y"))
SPEC = ToyEnv(image=True).spec
LARGE = replace(SPEC, cameras=(CameraSpec("top", 40, 40),))
TWO_EYES = replace(SPEC, cameras=(CameraSpec("top", 32, 32), CameraSpec("side", 40, 36)))
see_toy = partial(ToyEnv, image=True)


def built(config, spec=SPEC):
    torch.manual_seed(0)
    policy = config.build(spec)
    rng = np.random.default_rng(0)
    policy.fit(rng.uniform(-1, 1, (50, 4)), rng.uniform(-0.8, 0.8, (50, 2)))
    return policy.eval()


def some_obs(n=3, n_obs=2, spec=SPEC, seed=1):
    random = torch.Generator().manual_seed(seed)
    obs = {"state": torch.rand(n, n_obs, 4, generator=random) * 2 - 1}
    for c in spec.cameras:
        shape = (n, n_obs, c.height, c.width, 3)
        obs[f"image/{c.name}"] = torch.randint(256, shape, dtype=torch.uint8, generator=random)
    return obs


# ------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", [FlowConfig, DiffusionConfig])
def test_same_noise_and_pictures_same_chunk_and_saving_changes_nothing(kind, encoder, tmp_path):
    config = kind(horizon=8, backbone=MlpConfig(32, 1), vision=VisionConfig(encoder, crop=36, jitter=0.2))
    policy, obs, noise = built(config, LARGE), some_obs(spec=LARGE), torch.randn(3, 8, 2)
    chunk = policy.sample(obs, noise)
    assert torch.equal(chunk, policy.sample(obs, noise))
    other = obs | {"image/top": 255 - obs["image/top"]}
    assert not torch.equal(chunk, policy.sample(other, noise))
    one = {key: value[1:2] for key, value in obs.items()}
    torch.testing.assert_close(policy.sample(one, noise[1:2]), chunk[1:2], atol=1e-4, rtol=1e-3)
    checkpoint.save(policy, tmp_path / "policy.pt")
    loaded = checkpoint.load(tmp_path / "policy.pt")
    assert loaded.config == config and loaded.spec == LARGE
    assert torch.equal(loaded.sample(obs, noise), chunk)


def test_rows_stand_for_state_and_pictures():
    policy, obs, noise = built(TINY), some_obs(), torch.randn(3, 8, 2)
    rows = policy.look(obs)
    assert rows.shape == (3, 2, 4 + SMALL.features)
    assert policy.normalise(rows).shape == (3, 2, policy.n_seen) and policy.n_seen == 2 + SMALL.features
    assert torch.equal(policy.sample({"state": rows}, noise), policy.sample(obs, noise))


def test_only_the_chosen_channels_are_seen():
    policy, obs, noise = built(replace(TINY, vision=None)), some_obs(), torch.randn(3, 8, 2)
    hidden, shown = obs["state"].clone(), obs["state"].clone()
    hidden[..., 2:] = 0.7
    shown[..., 0] = 0.7
    chunk = policy.sample(obs, noise)
    assert torch.equal(policy.sample({"state": hidden}, noise), chunk)
    assert not torch.equal(policy.sample({"state": shown}, noise), chunk)
    assert chosen(SPEC.state, ("goal", "x")) == [0, 2, 3]
    with pytest.raises(RobotRLError, match="'cube'.* goal_x"):
        replace(TINY, state=("cube",)).build(SPEC)


def test_every_camera_has_an_encoder_of_its_own_and_counts():
    config = replace(TINY, vision=VisionConfig(SMALL))
    policy, obs, noise = built(config, TWO_EYES), some_obs(spec=TWO_EYES), torch.randn(3, 8, 2)
    assert policy.n_seen == 2 + 2 * SMALL.features
    for camera in ("top", "side"):
        other = obs | {f"image/{camera}": 255 - obs[f"image/{camera}"]}
        assert not torch.equal(policy.sample(obs, noise), policy.sample(other, noise))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 6), st.integers(20, 32), st.integers(0, 2**31))
def test_a_window_is_the_same_over_a_history_and_shows_what_is_there(n, n_obs, shift, crop, seed):
    torch.manual_seed(seed)
    vision = VisionConfig(SMALL, crop=crop, shift=shift).build(SPEC.cameras).train()
    places = torch.stack(torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij"), -1)
    pictures = functional.pad(places, (0, 1)).to(torch.uint8).expand(n, n_obs, 32, 32, 3)
    seen = vision.windowed(pictures)
    assert seen.shape == (n, n_obs, crop, crop, 3) and seen.dtype == torch.uint8
    assert torch.equal(seen, seen[:, :1].expand_as(seen))
    rows, columns = seen[:, 0, :, 0, 0].int(), seen[:, 0, 0, :, 1].int()
    for line in (rows, columns):
        steps = line.diff(dim=1)
        assert ((steps == 1) | (steps == 0) & ((line[:, 1:] == 0) | (line[:, 1:] == 31))).all()
        assert (steps == 0).sum(1).le(shift).all()
    expected = torch.cat(torch.broadcast_tensors(rows[:, :, None, None], columns[:, None, :, None]), -1)
    assert torch.equal(seen[:, 0, ..., :2].int(), expected)


def test_a_shift_of_zero_is_the_identity_and_play_is_deterministic():
    pictures = some_obs(spec=SPEC)["image/top"]
    assert VisionConfig(SMALL, shift=0).build(SPEC.cameras).train().windowed(pictures) is pictures
    vision = VisionConfig(SMALL, shift=4, crop=20, jitter=0.5).build(SPEC.cameras)
    assert torch.equal(vision.eval().windowed(pictures), pictures[:, :, 6:26, 6:26])
    obs = {"image/top": pictures}
    assert torch.equal(vision(obs), vision(obs))
    vision.train()
    assert not torch.equal(vision(obs), vision(obs))


def test_jitter_is_the_same_over_a_history_and_none_is_the_identity():
    x = torch.rand(3, 1, 3, 8, 8).expand(3, 2, 3, 8, 8).reshape(6, 3, 8, 8)
    torch.testing.assert_close(jittered(x, 0.0, 2), x)
    torch.manual_seed(0)
    y = jittered(x, 0.4, 2)
    assert torch.equal(y[::2], y[1::2]) and not torch.equal(y, x)
    assert y.min() >= 0 and y.max() <= 1
    grey = torch.full((2, 3, 8, 8), 0.4)  # of one colour and one brightness: only that can change
    flat = jittered(grey, 0.4, 1)
    torch.testing.assert_close(flat, flat[:, :1, :1, :1].expand_as(flat))


def test_spatial_softmax_finds_a_peak():
    x = torch.zeros(1, 2, 5, 9)
    x[0, 0, 4, 0] = x[0, 1, 2, 6] = 100.0
    torch.testing.assert_close(SpatialSoftmax()(x), torch.tensor([[1.0, 0.0, -1.0, 0.5]]))


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_training_reaches_every_weight_of_an_encoder(encoder):
    policy = built(replace(TINY, vision=VisionConfig(encoder)), LARGE).train()
    policy.loss({**some_obs(8, spec=LARGE), "action": torch.rand(8, 8, 2)}).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.net.vision.parameters())


# ------------------------------------------------------------------------------------------------ pretrained weights


class Torchvisions(nn.Module):
    """ResNet-18's first layers with batch normalisation, named as torchvision names them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)

    def forward(self, x):
        return self.bn1(self.conv1(x))


def torchvision_file(path):
    torch.manual_seed(0)
    ours, weights = Resnet(ResnetConfig()), {}
    for name, value in ours.state_dict().items():
        if "outlet" in name or ("bn" not in name and "downsample.1" not in name and name.endswith("bias")):
            continue
        weights[name] = torch.randn_like(value) * 0.1
        if value.ndim == 1 and name.endswith("weight"):
            norm = name.removesuffix("weight")
            weights |= {
                f"{norm}running_mean": torch.randn_like(value),
                f"{norm}running_var": 1 + torch.rand_like(value),
            }
    torch.save(weights | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    return weights


def test_pretrained_weights_are_folded_as_batch_normalisation_would_normalise(tmp_path):
    weights = torchvision_file(tmp_path / "resnet18.pt")
    ours = Resnet(ResnetConfig(pretrained=str(tmp_path / "resnet18.pt")))
    assert not torch.equal(ours.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])  # not before training
    ours.start()
    theirs = Torchvisions().eval()
    theirs.load_state_dict({k: v for k, v in weights.items() if k.split(".")[0] in ("conv1", "bn1")}, strict=False)
    x = torch.randn(2, 3, 32, 32)
    gamma, beta = (weights[f"bn1.{part}"][:, None, None] for part in ("weight", "bias"))
    torch.testing.assert_close(ours.conv1(x) * gamma + beta, theirs(x), atol=1e-4, rtol=1e-4)
    assert torch.equal(ours.layer2[0].downsample[1].bias, weights["layer2.0.downsample.1.bias"])


def test_pretrained_weights_that_do_not_fit_are_named(tmp_path):
    file = tmp_path / "resnet18.pt"
    weights = torchvision_file(file)
    start = lambda: Resnet(ResnetConfig(pretrained=str(file))).start()  # noqa: E731
    for name, wrong in {"layer3.0.conv1.weight": torch.zeros(2), "bn1.running_mean": torch.full((64,), np.nan)}.items():
        torch.save(weights | {name: wrong}, file)
        with pytest.raises(RobotRLError, match=f"resnet18.pt.*{name}"):
            start()
    torch.save({"conv1.weight": weights["conv1.weight"]}, file)
    with pytest.raises(RobotRLError, match="'bn1.running_mean' must be .*it has none"):
        start()
    file.unlink()
    with pytest.raises(RobotRLError, match="no checkpoint"):
        start()


# ------------------------------------------------------------------------------------------------------- named errors


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        (VisionConfig(SMALL, crop=33), "crop is 33; camera 'top' gives 32 x 32"),
        (VisionConfig(SMALL, shift=-1), "shift"),
        (VisionConfig(SMALL, jitter=1.0), "jitter"),
        (VisionConfig(ConvConfig((8,), (2, 2))), "stride"),
        (VisionConfig(VitConfig(width=10, heads=4)), "multiple"),
        (VisionConfig(ResnetConfig(width=20)), "width"),
        (VisionConfig(ResnetConfig(width=16, pretrained="x.pt")), "64, not 16"),
        (VisionConfig(VitConfig(width=16, heads=2), crop=12), "too small"),
    ],
)
def test_impossible_eyes_are_named(vision, words):
    with pytest.raises(RobotRLError, match=words):
        replace(TINY, vision=vision).build(SPEC)


def test_wrong_pictures_are_named():
    policy, obs = built(TINY), some_obs()
    with pytest.raises(RobotRLError, match="needs a camera"):
        TINY.build(ToyEnv().spec)
    with pytest.raises(RobotRLError, match="camera 'top', and is shown no pictures"):
        policy.sample({"state": obs["state"]})
    with pytest.raises(RobotRLError, match=r"32, 32, 3\) uint8, not \(3, 2, 24, 32, 3\) uint8"):
        policy.sample(obs | {"image/top": obs["image/top"][:, :, :24]})
    with pytest.raises(RobotRLError, match="not .* float32"):
        policy.sample(obs | {"image/top": obs["image/top"] / 255})


# ------------------------------------------------------------------------------------------------------ the whole path


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    out = tmp_path_factory.mktemp("seen") / "demos"
    return collect(out, SPEC, see_toy, partial(ToyOperator, 0.5), episodes=25)


SHORT = PretrainConfig(steps=4, warmup=2, batch=16, save_every=2)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory, demos):
    """It has the point's place, and must see the goal."""
    config = PretrainConfig(steps=400, warmup=20, batch=48, save_every=400)
    return pretrain(tmp_path_factory.mktemp("seen") / "base", demos, replace(TINY, n_obs=1), config, checkpoint.save)


def test_a_policy_learns_to_find_what_only_the_picture_shows(seeing):
    result = evaluate(see_toy, partial(load_agent, seeing), episodes=40)["summary"]
    blind = replace(SPEC, cameras=())
    assert result["mean_best_score"] > 0.9, result
    with pytest.raises(RobotRLError, match="cameras: the policy has 1 entries"):
        checkpoint.load(seeing).spec.require(blind, "the policy", "the world", any_limit=True)


def test_played_by_workers_and_beside_others_episodes_are_the_same(seeing):
    make = partial(load_agent, seeing)
    alone = [next(episodes(see_toy, make, [seed], 1)) for seed in range(3)]
    for one, many in zip(alone, episodes(see_toy, make, range(3), 2), strict=True):
        np.testing.assert_array_equal(one.action, many.action)
        np.testing.assert_array_equal(one.obs["image/top"], many.obs["image/top"])


def test_windows_are_cut_from_bytes_and_repeat_the_first_picture(demos):
    store = EpisodeStore.open(demos)
    windows = Windows([store.read(i, images=False) for i in range(len(store))], 8, 3)
    windows.see(SPEC.cameras, store)
    second = len(store[0])
    batch = windows.batch(torch.tensor([0, 2, second, second + 1]))
    pictures = batch["image/top"]
    assert pictures.dtype == torch.uint8 and pictures.shape == (4, 3, 32, 32, 3)
    first, next_ = (torch.from_numpy(store[i].obs["image/top"]) for i in (0, 1))
    expected = [first[[0, 0, 0]], first[[0, 1, 2]], next_[[0, 0, 0]], next_[[0, 0, 1]]]
    assert torch.equal(pictures, torch.stack(expected))


def test_resumed_training_on_pictures_equals_straight(demos):
    store = EpisodeStore.open(demos)
    windows = Windows([store.read(i, images=False) for i in range(5)], 8, 2)
    windows.see(SPEC.cameras, (store[i] for i in range(5)))
    config = replace(TINY, vision=replace(SEEING, jitter=0.2, crop=28))
    straight = Trainer(config, SHORT, SPEC, windows)
    losses = [straight.train_step() for _ in range(4)]
    cut = Trainer(config, SHORT, SPEC, windows)
    again = [cut.train_step() for _ in range(2)]
    state = deepcopy(cut.state_dict())
    resumed = Trainer(config, SHORT, SPEC, windows)
    resumed.load_state_dict(state)
    again += [resumed.train_step() for _ in range(2)]
    assert losses == again
    ours, theirs = (trainer.averaged().state_dict() for trainer in (straight, resumed))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_checkpoints_from_before_vision_load_and_act_as_they_did():
    policy, noise = built(FlowConfig(horizon=8, backbone=MlpConfig(32, 1)), ToyEnv().spec), torch.randn(3, 8, 2)
    data = checkpoint.to_data(policy)
    for name in ("vision", "state"):
        del data["config"][name]
    loaded = checkpoint.from_data(data, "an old file")
    obs = {"state": some_obs()["state"]}
    assert torch.equal(loaded.sample(obs, noise), policy.sample(obs, noise))
