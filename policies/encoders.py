"""Small encoders of pictures: convolutions with a spatial softmax, and a shallow vision transformer.

An encoder maps pictures (N, C, H, W), normalised, three channels of colour or one of depth, to `features` numbers each.
ResNet-18 has a file of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_rl.types import RobotRLError


@dataclass(frozen=True)
class ConvConfig:
    """A few convolutions, then a spatial softmax: what a CPU can train within the hour."""

    channels: tuple[int, ...] = (32, 64, 64)
    """of each convolution"""
    strides: tuple[int, ...] = (4, 2, 1)
    """of each convolution; the kernel of the first is twice its stride, at least 3, that of the others 3"""
    features: int = 64
    """numbers that come out"""

    def build(self, height: int, width: int, inlet: int = 3) -> nn.Module:
        """The encoder of pictures of that size and so many channels."""
        if len(self.channels) != len(self.strides) or not self.channels or min(self.channels + self.strides) < 1:
            raise RobotRLError(f"every convolution needs channels and a stride of at least 1: {self}")
        layers: list[nn.Module] = []
        inlets = (inlet, *self.channels[:-1])
        for i, (into, outlet, stride) in enumerate(zip(inlets, self.channels, self.strides, strict=True)):
            kernel = max(2 * stride, 3) if i == 0 else 3
            layers += [nn.Conv2d(into, outlet, kernel, stride, padding=1), group_norm(outlet), nn.ReLU()]
        trunk = nn.Sequential(*layers)
        require_size(height, width, max(2 * self.strides[0], 3))
        return nn.Sequential(trunk, SpatialSoftmax(), nn.Linear(2 * self.channels[-1], self.features))


@dataclass(frozen=True)
class VitConfig:
    """A shallow vision transformer behind a stem of two convolutions (ResFiT, 2509.19301)."""

    width: int = 128
    """size of a token; a picture of 84 pixels has 81 tokens"""
    depth: int = 1
    """layers"""
    heads: int = 4
    """attention heads; must divide the width"""
    features: int = 64
    """numbers that come out"""

    def build(self, height: int, width: int, inlet: int = 3) -> nn.Module:
        """The encoder of pictures of that size and so many channels."""
        if self.width % self.heads:
            raise RobotRLError(f"the width {self.width} of a ViT is no multiple of its {self.heads} heads; change one")
        require_size(height, width, 16)
        return Vit(self, height, width, inlet)


class Vit(nn.Module):
    """Pictures in, features out; every token has its own weights at the outlet, so that places are told apart."""

    def __init__(self, config: VitConfig, height: int, width: int, inlet: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(inlet, config.width, 8, stride=4), nn.ReLU(), nn.Conv2d(config.width, config.width, 3, stride=2)
        )
        tokens = math.prod(self.stem(torch.zeros(1, inlet, height, width)).shape[2:])
        self.position = nn.Parameter(0.02 * torch.randn(tokens, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, 0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.outlet = nn.Sequential(
            nn.LayerNorm(config.width), nn.Flatten(), nn.Linear(tokens * config.width, config.features)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, features)."""
        return self.outlet(self.layers(self.stem(x).flatten(2).mT + self.position))


class SpatialSoftmax(nn.Module):
    """Where each channel fires: the expected place under a softmax over the picture (Finn et al. 2015, 1509.06113)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to places (N, 2 * C) in [-1, 1], rows then columns."""
        share = x.flatten(2).softmax(-1).view_as(x)
        rows, columns = (torch.linspace(-1.0, 1.0, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
        return torch.cat([share.sum(3) @ rows, share.sum(2) @ columns], -1)


def group_norm(channels: int) -> nn.GroupNorm:
    """In place of batch normalisation: groups of 16 channels, as in Diffusion Policy (2303.04137)."""
    return nn.GroupNorm(max(channels // 16, 1), channels)


def require_size(height: int, width: int, least: int) -> None:
    """Raise where a picture is too small for its encoder."""
    if min(height, width) < least:
        raise RobotRLError(f"pictures of {height} x {width} pixels are too small for this encoder: {least} at least")
