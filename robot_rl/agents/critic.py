"""The networks of off-policy learners: a vectorised ensemble of LayerNorm critics, and a LayerNorm MLP.

REDQ (Chen et al. 2021, 2101.05982) draws a random pair of heads for each target; LayerNorm bounds the extrapolation
of the values (RLPD, 2302.02948).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


ALL = slice(None)


class EnsembleLinear(nn.Module):
    """E linear layers as one batched product: (E, B, I) to (E, B, O)."""

    def __init__(self, heads: int, inlet: int, outlet: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inlet)
        self.weight = nn.Parameter(torch.empty(heads, inlet, outlet).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, 1, outlet).uniform_(-bound, bound))

    def forward(self, x: Tensor, heads: Tensor | slice = ALL) -> Tensor:
        """(E, B, I) to (E, B, O), by the given heads only."""
        return torch.baddbmm(self.bias[heads], x, self.weight[heads])


class EnsembleLayerNorm(nn.Module):
    """LayerNorm over features with a gain and a shift of each head's own."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(heads, 1, size))
        self.shift = nn.Parameter(torch.zeros(heads, 1, size))

    def forward(self, x: Tensor, heads: Tensor | slice = ALL) -> Tensor:
        """(E, B, F) to (E, B, F), by the given heads only."""
        return torch.addcmul(self.shift[heads], functional.layer_norm(x, x.shape[-1:]), self.gain[heads])


class CriticEnsemble(nn.Module):
    """Q(s, a) of every head: ReLU MLPs of two hidden layers with LayerNorm."""

    def __init__(self, heads: int, inlet: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = EnsembleLinear(heads, inlet, width), EnsembleLinear(heads, width, width)
        self.norms = nn.ModuleList([EnsembleLayerNorm(heads, width) for _ in range(2)])
        self.last = EnsembleLinear(heads, width, 1)

    def forward(self, state: Tensor, action: Tensor, heads: Tensor | slice = ALL) -> Tensor:
        """(B, S), (B, A) to (E, B), or (n, B) for the n given `heads`."""
        x = torch.cat([state, action], -1)
        n = self.heads if isinstance(heads, slice) else len(heads)
        x = x.expand(n, -1, -1)
        for layer, norm in zip((self.first, self.second), self.norms, strict=True):
            x = functional.relu(norm(layer(x, heads), heads))
        return self.last(x, heads)[..., 0]


def layer_norm_mlp(inlet: int, width: int, outlet: int) -> nn.Sequential:
    """Two hidden ReLU layers with LayerNorm, and a last layer of zeros: its output starts at exactly 0."""
    last = nn.Linear(width, outlet)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(inlet, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        last,
    )
