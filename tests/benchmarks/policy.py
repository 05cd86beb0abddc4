"""The U-Net policy against lerobot 0.4.4's DiffusionPolicy of the same size.

lerobot asks for an older torch and for torchvision, of which there is no build for this CPU torch. It runs with ours
nevertheless, from state observations; a stand-in takes torchvision's place. To set it up beside the tested versions:

    pip install --no-deps lerobot==0.4.4 && pip install draccus==0.10.0 einops accelerate imageio pyserial deepdiff \
        jsonlines "datasets<4" "pyarrow<18" --constraint constraints.txt
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from bench import Row, row, turns

from policies.diffusion import DiffusionConfig
from policies.unet import UnetConfig
from robot_rl.types import Channel, Spec

S, A, BATCH = 62, 7, 64


def rows() -> Iterator[Row]:
    """DDIM of 10 steps at batch 1, and a training step at batch 64, with one thread and with two."""
    if importlib.util.find_spec("lerobot") is None:
        print(f"lerobot is not installed: its part is left out. {__file__} says how to set it up.")
        return
    for threads in (1, 2):
        torch.set_num_threads(threads)
        (sample, train), (their_sample, their_train) = _ours(), _lerobots()
        times = turns({"ours": sample, "lerobot": their_sample}, rounds=7)
        yield row(f"U-Net of 4.6 M, DDIM 10 at batch 1, lerobot, {threads} threads", times["ours"], times["lerobot"])
        times = turns({"ours": train, "lerobot": their_train}, rounds=7)
        yield row(
            f"U-Net of 4.6 M, training step at batch 64, lerobot, {threads} threads", times["ours"], times["lerobot"]
        )


def _repeat(n: int, function: Callable[[], Any]) -> Callable[[], int]:
    return lambda: len([function() for _ in range(n)])


def _ours() -> tuple[Callable[[], int], Callable[[], int]]:
    state = tuple(Channel(f"s{i}", "1", -1.0, 1.0) for i in range(S))
    config = DiffusionConfig(prediction="epsilon", backbone=UnetConfig())
    policy = config.build(Spec("toy", "", state, state[:A], (), 20.0, 100))
    policy.fit(np.random.default_rng(0).normal(size=(100, S)), np.array([[-1.0], [1.0]]).repeat(A, 1))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, fused=True)
    batch = {"state": torch.randn(BATCH, 2, S), "action": torch.rand(BATCH, 16, A) * 2 - 1}

    def train() -> None:
        optimizer.zero_grad()
        policy.loss(batch).backward()
        optimizer.step()

    return _repeat(5, lambda: policy.sample({"state": batch["state"][:1]})), _repeat(3, train)


def _lerobots() -> tuple[Callable[[], int], Callable[[], int]]:
    sys.meta_path.insert(0, _Finder())
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as TheirConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    half = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
    config = TheirConfig(
        n_obs_steps=2,
        horizon=16,
        n_action_steps=8,
        down_dims=(64, 128, 256),
        noise_scheduler_type="DDIM",
        num_inference_steps=10,
        crop_shape=None,
        device="cpu",
        input_features={key: PolicyFeature(kind, (S // 2,)) for key, kind in half.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (A,))},
    )
    policy = DiffusionPolicy(config)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, fused=True)
    batch = {key: torch.randn(BATCH, 2, S // 2) for key in half}
    whole = {**batch, "action": torch.randn(BATCH, 16, A), "action_is_pad": torch.zeros(BATCH, 16, dtype=torch.bool)}
    first = {key: value[:1] for key, value in batch.items()}

    def train() -> None:
        optimizer.zero_grad()
        policy.forward(whole)[0].backward()
        optimizer.step()

    return _repeat(5, torch.no_grad()(lambda: policy.diffusion.generate_actions(first))), _repeat(3, train)


class _Module(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers to `import torchvision` and whatever is in it with empty classes."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        ours = name.split(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass
