"""The 1-D conditional U-Net of Diffusion Policy (Chi et al. 2023, 2303.04137): convolutions along the chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.mlp import TIME_DIM, time_features
from robot_rl.types import RobotRLError

GROUPS = 8  # of the group normalisation


@dataclass(frozen=True)
class UnetConfig:
    """1-D convolutional U-Net along the chunk, FiLM-conditioned."""

    channels: tuple[int, ...] = (64, 128, 256)
    """channels of each level; each level but the last halves the time axis"""
    kernel: int = 5
    """width of the convolutions, odd"""

    def build(self, horizon: int, action_dim: int, cond_dim: int) -> Unet:
        """The network for chunks (B, horizon, action_dim) under a condition (B, cond_dim)."""
        multiple = 2 ** (len(self.channels) - 1)
        if horizon % multiple:
            raise RobotRLError(
                f"a U-Net of {len(self.channels)} levels needs a horizon that {multiple} divides, not {horizon}"
            )
        if any(c % GROUPS for c in self.channels) or self.kernel % 2 == 0:
            raise RobotRLError(
                f"a U-Net needs channels that {GROUPS} divides and an odd kernel, not {self.channels}, {self.kernel}"
            )
        return Unet(self, action_dim, cond_dim)


class Unet(nn.Module):
    """Chunk, time and condition in; chunk-shaped prediction out."""

    def __init__(self, config: UnetConfig, action_dim: int, cond_dim: int) -> None:
        super().__init__()
        levels, kernel = config.channels, config.kernel
        self.time = nn.Sequential(nn.Linear(TIME_DIM, 4 * TIME_DIM), nn.Mish(), nn.Linear(4 * TIME_DIM, TIME_DIM))
        film = cond_dim + TIME_DIM
        pairs = list(zip((action_dim, *levels[:-1]), levels, strict=True))
        self.down = nn.ModuleList([TwoBlocks(i, o, film, kernel) for i, o in pairs])
        self.shrink = nn.ModuleList([nn.Conv1d(c, c, 3, stride=2, padding=1) for c in levels[:-1]])
        self.middle = TwoBlocks(levels[-1], levels[-1], film, kernel)
        climbs = list(zip(levels[:0:-1], levels[-2::-1], strict=True))
        self.up = nn.ModuleList([TwoBlocks(2 * i, o, film, kernel) for i, o in climbs])
        self.grow = nn.ModuleList([nn.ConvTranspose1d(o, o, 4, stride=2, padding=1) for _, o in climbs])
        self.last = nn.Sequential(Conv(2 * levels[0], levels[0], kernel), nn.Conv1d(levels[0], action_dim, 1))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (B, H, A), t (B,) in [0, 1], cond (B, D) to (B, H, A)."""
        film = torch.cat([cond, self.time(time_features(t))], -1)
        h, skips = x.transpose(1, 2), []  # (B, A, H)
        for level, blocks in enumerate(self.down):
            h = blocks(h, film)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(h, film)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            h = grow(blocks(torch.cat([h, skips.pop()], 1), film))
        return self.last(torch.cat([h, skips.pop()], 1)).transpose(1, 2)


class Conv(nn.Sequential):
    """Convolution along time, group norm, Mish."""

    def __init__(self, inlet: int, outlet: int, kernel: int) -> None:
        super().__init__(ShortConv(inlet, outlet, kernel), nn.GroupNorm(GROUPS, outlet), nn.Mish())


class ShortConv(nn.Module):
    """A convolution that keeps the length, quicker on a CPU where the series is not much longer than the kernel."""

    def __init__(self, inlet: int, outlet: int, kernel: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inlet * kernel)  # as nn.Conv1d begins
        self.weight = nn.Parameter(torch.empty(kernel, inlet, outlet).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outlet).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inlet, T) to (B, outlet, T)."""
        kernel, T = len(self.weight), x.shape[-1]
        if x.is_cuda or 2 * kernel <= T:
            return functional.conv1d(x, self.weight.permute(2, 1, 0), self.bias, padding=kernel // 2)
        if x.requires_grad:
            y: Tensor = ByTaps.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return y
        padded = functional.pad(x, (kernel // 2, kernel // 2)).permute(2, 0, 1)
        taps = torch.cat([padded[tap : tap + T] for tap in range(kernel)], -1)  # (T, B, kernel * inlet)
        return functional.linear(taps, self.weight.flatten(0, 1).t(), self.bias).permute(1, 2, 0).contiguous()


class ByTaps(torch.autograd.Function):
    """One matrix product for each tap of the kernel, over the steps where that tap does not fall into the padding.

    PyTorch's CPU convolution multiplies the padding too: three tenths of the work for 4 steps under a kernel of 5.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        """x (B, I, T), weight (K, I, O), bias (O,) to (B, O, T)."""
        B, _, T = x.shape
        rows = x.permute(2, 0, 1).flatten(0, 1)  # time-major: what a tap reads or writes is one block
        y = bias.expand(T * B, -1).contiguous()
        for tap, to, source in _taps(T, B, len(weight)):
            y[to].addmm_(rows[source], weight[tap])
        ctx.save_for_backward(rows, weight)
        return y.view(T, B, -1).permute(1, 2, 0).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Of x, weight and bias."""
        rows, weight = ctx.saved_tensors
        B, _, T = grad.shape
        grad = grad.permute(2, 0, 1).flatten(0, 1)
        grad_rows, grad_weight = torch.zeros_like(rows), [torch.zeros_like(weight[0])] * len(weight)
        for tap, to, source in _taps(T, B, len(weight)):
            grad_rows[source].addmm_(grad[to], weight[tap].t())
            grad_weight[tap] = rows[source].t() @ grad[to]
        return grad_rows.view(T, B, -1).permute(1, 2, 0).contiguous(), torch.stack(grad_weight), grad.sum(0)


def _taps(T: int, B: int, kernel: int) -> Iterator[tuple[int, slice, slice]]:
    """Of each tap: the rows, time-major, that it adds to, and those it reads."""
    for tap in range(kernel):
        shift = tap - kernel // 2
        start, end = max(0, -shift), min(T, T - shift)
        if start < end:
            yield tap, slice(start * B, end * B), slice((start + shift) * B, (end + shift) * B)


class FilmBlock(nn.Module):
    """Two convolutions with a scale and shift from the condition between them, and a residual path."""

    def __init__(self, inlet: int, outlet: int, film: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = Conv(inlet, outlet, kernel), Conv(outlet, outlet, kernel)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(film, 2 * outlet))
        self.skip = nn.Conv1d(inlet, outlet, 1) if inlet != outlet else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """x (B, inlet, T), film (B, film) to (B, outlet, T)."""
        scale, shift = self.film(film)[..., None].chunk(2, 1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.skip(x)


class TwoBlocks(nn.Module):
    """One level of the U: two FiLM blocks."""

    def __init__(self, inlet: int, outlet: int, film: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = FilmBlock(inlet, outlet, film, kernel), FilmBlock(outlet, outlet, film, kernel)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """x (B, inlet, T), film (B, film) to (B, outlet, T)."""
        return self.second(self.first(x, film), film)
