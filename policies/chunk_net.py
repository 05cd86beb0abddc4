"""What diffusion and flow share: a backbone over chunks, the observation it sees, and the normaliser inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from policies.mlp import MlpConfig
from policies.normalizer import Normalizer
from policies.transformer import TransformerConfig
from policies.unet import UnetConfig
from policies.vision import VisionConfig
from robot_rl.types import Channel, RobotRLError, Spec

MAX_GAIN = 10.0  # of `guided`: while the noise says little of the chunk yet, its estimate must not be pulled afar
MIN_ACTION_RANGE = 0.05  # as in ResFiT (2509.19301): 0.1 of the span of 2 that actions live in
BackboneConfig = UnetConfig | MlpConfig | TransformerConfig


class ChunkConfig(Protocol):
    """What the configs of diffusion and flow have in common."""

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""

    @property
    def n_obs(self) -> int:
        """Observations of history."""

    @property
    def backbone(self) -> BackboneConfig:
        """The network behind the eyes."""

    @property
    def vision(self) -> VisionConfig | None:
        """How pictures are seen; None: they are not."""

    @property
    def state(self) -> tuple[str, ...] | None:
        """Channels of the state that are seen; None: all."""


class ChunkNet(nn.Module):
    """Predicts something chunk-shaped from a noisy chunk, its time and the observation history."""

    def __init__(self, spec: Spec, config: ChunkConfig) -> None:
        super().__init__()
        horizon, n_obs = config.horizon, config.n_obs
        if horizon < 1 or n_obs < 1:
            raise RobotRLError(f"horizon and n_obs must be at least 1, not {horizon} and {n_obs}")
        self.spec, self.horizon, self.n_obs = spec, horizon, n_obs
        self.state, self.action = Normalizer(len(spec.state)), Normalizer(len(spec.action))
        self.vision = None if config.vision is None else config.vision.build(spec.cameras)
        self._chosen = None if config.state is None else chosen(spec.state, config.state)
        self.n_seen = len(spec.state) if self._chosen is None else len(self._chosen)
        self.n_seen += 0 if self.vision is None else self.vision.size
        self.backbone = config.backbone.build(horizon, len(spec.action), n_obs * self.n_seen)

    def fit(self, state: np.ndarray, action: np.ndarray) -> None:
        """Before training: set the normalisers from all states (N, S) and actions (N, A), and start the eyes."""
        if self.vision is not None:
            self.vision.start()
        self.state.fit(state, self.spec.state)
        unit = tuple(Channel(c.name, "1", -1.0, 1.0) for c in self.spec.action)
        self.action.fit(action, unit, min_range=MIN_ACTION_RANGE)

    def look(self, obs: dict[str, Tensor]) -> Tensor:
        """The rows (B, To, S + F) of an observation: its state, then the F features of its pictures, if it has eyes."""
        state = obs["state"]
        return state if self.vision is None else torch.cat([state, self.vision(obs)], -1)

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows (..., S + F) to what the policy goes by, (..., D): channels that it sees, normalised, and features."""
        S = len(self.spec.state)
        state = self.state(rows[..., :S])
        if self._chosen is not None:
            state = state[..., self._chosen]
        return state if self.vision is None else torch.cat([state, rows[..., S:]], -1)

    def condition(self, obs: dict[str, Tensor]) -> Tensor:
        """ "state" (B, To, S) and pictures, or in place of both their rows (B, To, S + F), to (B, To * D)."""
        rows, S = obs["state"], len(self.spec.state)
        F = 0 if self.vision is None else self.vision.size
        if rows.ndim != 3 or rows.shape[1] != self.n_obs or rows.shape[2] not in (S, S + F):
            raise RobotRLError(f"the policy sees states (B, {self.n_obs}, {S}), not {tuple(rows.shape)}")
        return self.normalise(self.look(obs) if rows.shape[2] == S else rows).flatten(1)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (B, H, A) normalised, t (B,) in [0, 1], cond (B, D) to (B, H, A)."""
        return self.backbone(x, t, cond)

    def noise_like(self, obs: dict[str, Tensor], noise: Tensor | None) -> Tensor:
        """`noise` checked, or standard normal noise (B, H, A) where None."""
        state = obs["state"]
        shape = (len(state), self.horizon, len(self.spec.action))
        if noise is None:
            return torch.randn(shape, device=state.device, dtype=state.dtype)
        if tuple(noise.shape) != shape:
            raise RobotRLError(f"the noise must be {shape}, not {tuple(noise.shape)}")
        return noise

    def committed_like(self, obs: dict[str, Tensor], committed: Tensor | None) -> Tensor | None:
        """`committed` (B, n, A) checked; None where there is none, or none of its actions."""
        if committed is None:
            return None
        size, actions = len(obs["state"]), len(self.spec.action)
        if committed.ndim != 3 or committed.shape[::2] != (size, actions) or committed.shape[1] > self.horizon:
            wanted = f"({size}, n, {actions}), n <= {self.horizon} (the horizon)"
            raise RobotRLError(f"the committed actions must be {wanted}, not {tuple(committed.shape)}")
        if not (committed.abs() <= 1.0).all():  # NaN too
            raise RobotRLError("the committed actions hold NaN or lie outside [-1, 1]; an arm can follow neither")
        return committed if committed.shape[1] else None

    def guided(self, estimate: Callable[[Tensor], Tensor], x: Tensor, committed: Tensor) -> Tensor:
        """The clean chunk (B, H, A), normalised, that `estimate` sees in the noisy `x`, given how it begins.

        Real-time chunking (2506.07339), equations 2 and 3: the error e of the estimate on `committed` (B, n, A) pulls
        the rest by a vector-Jacobian product, J^T e. What differs is its weight. Were all Gaussian, knowing the first n
        would move the expected rest by J^T J_nn^-1 e, J being the estimate's Jacobian (Tweedie moment projection,
        2310.06721); here the scalar e.e / e.J_nn e, which costs nothing more, stands for the inverse. It adapts to
        how spread the data are; the paper takes them for standard normal, and then a few actions pull too little. The
        committed part itself is taken as it is.
        """
        known = self.action(committed)
        n = known.shape[1]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = estimate(x)
            error = torch.cat([known - clean[:, :n].detach(), torch.zeros_like(clean[:, n:])], 1)
            (pull,) = torch.autograd.grad(clean, x, error)
        share = (pull * error).sum((1, 2)) / error.square().sum((1, 2)).clamp(min=1e-12)
        gain = 1.0 / share.clamp(min=1.0 / MAX_GAIN)
        return torch.cat([known, (clean.detach() + gain[:, None, None] * pull)[:, n:]], 1)

    def actions(self, x: Tensor) -> Tensor:
        """Normalised chunk to actions (B, H, A) in [-1, 1]."""
        return self.action.inverse(x).clamp(-1.0, 1.0)


def chosen(channels: Sequence[Channel], names: Sequence[str]) -> list[int]:
    """The places of the channels that bear one of `names`, or begin with it; raises where there is none."""
    for name in names:
        if not any(c.name.startswith(name) for c in channels):
            known = ", ".join(c.name for c in channels)
            raise RobotRLError(f"no channel of the state is called '{name}', or begins so; there are: {known}")
    return [i for i, c in enumerate(channels) if c.name.startswith(tuple(names))]


def begun(actions: Tensor, committed: Tensor | None) -> Tensor:
    """`actions` (B, H, A), of which the first are `committed` (B, n, A), free of rounding and of the data's range."""
    return actions if committed is None else torch.cat([committed, actions[:, committed.shape[1] :]], 1)
