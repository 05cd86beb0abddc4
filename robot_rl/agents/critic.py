"""What off-policy learners share: a vectorised ensemble of LayerNorm critics, a LayerNorm MLP, and the gradient step.

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


class CriticEnsemble(nn.Module):
    """Q(s, a) of every head: ReLU MLPs of two hidden layers with LayerNorm.

    The norms have no gains of their own: the next layer's weights do as well, at two thirds of the time on a CPU.
    """

    def __init__(self, heads: int, inlet: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.first, self.second = EnsembleLinear(heads, inlet, width), EnsembleLinear(heads, width, width)
        self.last = EnsembleLinear(heads, width, 1)

    def forward(self, state: Tensor, action: Tensor, heads: Tensor | slice = ALL) -> Tensor:
        """(B, S), (B, A) to (E, B), or (n, B) for the n given `heads`."""
        x = torch.cat([state, action], -1)
        n = self.heads if isinstance(heads, slice) else len(heads)
        x = x.expand(n, -1, -1)
        for layer in (self.first, self.second):
            x = functional.relu(functional.layer_norm(layer(x, heads), [self.width]))
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


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down `loss`, with gradients of at most norm 1, for the optimiser's own weights and no others."""
    weights = optimizer.param_groups[0]["params"]
    optimizer.zero_grad()
    loss.backward(inputs=weights)  # an actor's loss passes through the critic without touching its gradients
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
