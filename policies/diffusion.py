"""Diffusion policy (Chi et al. 2023, 2303.04137): denoise a chunk of actions under the observation history.

Training is DDPM's on a squared-cosine schedule: minimise |eps - eps_theta(x_k, k)|^2 (Ho et al. 2020, 2006.11239,
equation 14), or the same for the clean chunk or the velocity (Salimans and Ho 2022, 2202.00512). Sampling is DDIM's
with eta 0 (Song et al. 2020, 2010.02502, equation 12), which adds no noise of its own: the initial noise determines
the chunk. Where its beginning is committed already, the estimate of the clean chunk is guided by that at each step
(real-time chunking, 2506.07339; see `ChunkNet.guided`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from policies.chunk_net import BackboneConfig, ChunkNet, begun
from policies.mlp import MlpConfig
from policies.vision import VisionConfig
from robot_rl.types import RobotRLError, Spec


@dataclass(frozen=True)
class DiffusionConfig:
    """Diffusion policy: DDPM in training, deterministic DDIM in sampling."""

    horizon: int = 16
    """actions in a chunk"""
    n_obs: int = 2
    """observations of history it sees"""
    train_steps: int = 100
    """noise levels"""
    steps: int = 10
    """DDIM steps of a sample"""
    prediction: Literal["epsilon", "sample", "v_prediction"] = "sample"
    """what the network predicts: the noise, the clean chunk, or the velocity; an MLP cannot pass the noise through, and
    does far better on the chunk"""
    backbone: BackboneConfig = field(default_factory=MlpConfig)
    """denoising network"""
    vision: VisionConfig | None = None
    """how it sees the pictures of all cameras; None: it goes by the state alone"""
    state: tuple[str, ...] | None = None
    """channels of the state that it sees, each by its name or the beginning of it; None: all"""

    def build(self, spec: Spec) -> DiffusionPolicy:
        """An untrained policy for the worlds of `spec`."""
        return DiffusionPolicy(spec, self)


class DiffusionPolicy(nn.Module):
    """See the module's docstring; implements `Policy`."""

    def __init__(self, spec: Spec, config: DiffusionConfig) -> None:
        super().__init__()
        if not 1 <= config.steps <= config.train_steps:
            raise RobotRLError(f"DDIM steps must lie in 1..{config.train_steps} (train_steps), not {config.steps}")
        self.spec, self.config, self.horizon, self.n_obs = spec, config, config.horizon, config.n_obs
        self.net = ChunkNet(spec, config)
        self.n_seen, self.sees_images = self.net.n_seen, self.net.vision is not None
        from diffusers import DDIMScheduler  # here, because it takes two seconds that other policies need not wait

        ddim = partial(
            DDIMScheduler,
            config.train_steps,
            beta_schedule="squaredcos_cap_v2",
            clip_sample=True,
            clip_sample_range=1.0,
            set_alpha_to_one=True,
            timestep_spacing="trailing",  # start at the noisiest level: that is what pure noise looks like (2305.08891)
        )
        self.scheduler: Any = ddim(prediction_type=config.prediction)  # its methods are made at run time
        self.from_clean: Any = ddim(prediction_type="sample")

    @property
    def vision(self) -> nn.Module | None:
        """Its eyes, "image/<camera>" (B, To, H, W, 3) to features (B, To, F); None: it sees the state alone."""
        return self.net.vision

    def fit(self, state: np.ndarray, action: np.ndarray) -> None:
        """Set the normalisers from all states (N, S) and actions (N, A) of the data."""
        self.net.fit(state, action)

    def look(self, obs: dict[str, Tensor]) -> Tensor:
        """Rows (B, To, S + F) that can stand for "state" and pictures wherever the policy is asked or trained again."""
        return self.net.look(obs)

    def normalise(self, state: Tensor) -> Tensor:
        """Rows (..., S + F) as the policy goes by them, (..., D); what refines the policy does so too."""
        return self.net.normalise(state)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean squared denoising error of an observation (see `sample`) and "action" (B, H, A)."""
        data = self.net.action(batch["action"])
        noise = torch.randn_like(data)
        k = torch.randint(self.config.train_steps, (len(data),), device=data.device)
        x = self.scheduler.add_noise(data, noise, k)
        targets = {"epsilon": lambda: noise, "sample": lambda: data}
        target = targets.get(self.config.prediction, lambda: self.scheduler.get_velocity(data, noise, k))()
        return (self._denoise(x, k, self.net.condition(batch)) - target).square().mean()

    @torch.no_grad()
    def sample(self, obs: dict[str, Tensor], noise: Tensor | None = None, committed: Tensor | None = None) -> Tensor:
        """Actions (B, H, A) in [-1, 1] for "state" (B, To, S) and pictures; the same noise gives the same chunk.

        It begins with `committed` (B, n, A) in [-1, 1], n <= H, where given, and goes on from it. Raises `RobotRLError`
        where a shape is wrong, or the committed actions are not finite.
        """
        cond, x = self.net.condition(obs), self.net.noise_like(obs, noise)
        committed = self.net.committed_like(obs, committed)
        for scheduler in (self.scheduler, self.from_clean):
            scheduler.set_timesteps(self.config.steps)
        for k in self.scheduler.timesteps:
            x = self._step(x, k, cond).prev_sample if committed is None else self._guided_step(x, k, cond, committed)
        return begun(self.net.actions(x), committed)

    def _step(self, x: Tensor, k: Tensor, cond: Tensor) -> Any:
        return self.scheduler.step(self._denoise(x, k.expand(len(x)), cond), k, x, eta=0.0)

    def _guided_step(self, x: Tensor, k: Tensor, cond: Tensor, committed: Tensor) -> Tensor:
        clean = self.net.guided(lambda x: self._step(x, k, cond).pred_original_sample, x, committed)
        return self.from_clean.step(clean, k, x, eta=0.0).prev_sample

    def _denoise(self, x: Tensor, k: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, k.to(x) / self.config.train_steps, cond)
