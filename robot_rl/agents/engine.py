"""What the refiners share: critics, a squashed Gaussian actor, the temperature, gradient steps, and what is saved.

REDQ (Chen et al. 2021, 2101.05982) draws a random pair of heads for each target; LayerNorm bounds the extrapolation
of the values (RLPD, 2302.02948); HL-Gauss learns a value as a histogram (Farebrother et al. 2024, 2403.03950).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robot_rl.types import Channel, Policy, RobotRLError

ALL = slice(None)
SPREAD = 0.75  # standard deviation of HL-Gauss's smear, in bins
LOG_STD = (-5.0, 1.0)  # of a squashed Gaussian before it is squashed
LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


class Eyes(nn.Module):
    """Eyes of their own for actor and critics: they begin as the base's, and the critic's loss alone trains them.

    As in ResFiT (2509.19301), where they begin from nothing. Current and next pictures are shifted at random (DrQ-v2,
    2107.09645), and both are seen with the same weights.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        if policy.vision is None:
            raise RobotRLError(
                "eyes are 'own', but the base sees no pictures; train one with policy.vision, or leave it"
            )
        self.vision = deepcopy(policy.vision).requires_grad_(True).eval()

    def forward(self, seen: Tensor, pictures: dict[str, Tensor]) -> Tensor:
        """What the base sees (B, D), with features of "image/<camera>" (B, H, W, 3) uint8 in place of the base's."""
        features = self.vision({key: value[:, None] for key, value in pictures.items()})[:, 0]
        return torch.cat([seen[:, : -self.vision.size], features], -1)

    def look(self, batch: dict[str, Tensor], random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Of a batch of the replay what is seen now, with gradients, and next, without; `random` fixes the shifts."""
        now, then = (
            {k.removeprefix(p): v for k, v in batch.items() if k.startswith(f"{p}image/")} for p in ("", "next/")
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=random)))
            self.vision.train()
            seen = self(batch["state"], now)
            with torch.no_grad():
                following = self(batch["next/state"], then)
            self.vision.eval()
        return seen, following


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

    With `bins` each head gives a histogram over the values in `bounds`, with 3 bins more on each side, so that a value
    at a bound is not pulled inwards. The norms have no gains of their own: the next layer's weights do as well, at two
    thirds of the time on a CPU.
    """

    def __init__(
        self, heads: int, inlet: int, width: int, bins: int = 0, bounds: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        self.heads, self.width, self.bins, self.bounds = heads, width, bins, bounds
        self.first, self.second = EnsembleLinear(heads, inlet, width), EnsembleLinear(heads, width, width)
        self.last = EnsembleLinear(heads, width, bins + 6 if bins else 1)
        edges = torch.arange(-3, bins + 4) * ((bounds[1] - bounds[0]) / max(bins, 1)) + bounds[0]
        self.edges: Tensor
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, state: Tensor, action: Tensor, heads: Tensor | slice = ALL) -> Tensor:
        """(B, S), (B, A) to values (E, B), or (n, B) for the n given `heads`."""
        out = self._out(state, action, heads)
        return out.softmax(-1) @ (self.edges[1:] + self.edges[:-1]) / 2 if self.bins else out[..., 0]

    def loss(self, state: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """The mean over heads and batch of the squared error, or of the cross-entropy to the smeared target (B,)."""
        out = self._out(state, action, ALL)
        if not self.bins:
            return (out[..., 0] - target).square().mean()
        return -(self.smeared(target) * out.log_softmax(-1)).sum(-1).mean()

    def smeared(self, target: Tensor) -> Tensor:
        """(B, bins + 6): the share of a Gaussian about each target (B,) that falls into each bin."""
        width = SPREAD * (self.edges[1] - self.edges[0])
        below = torch.special.ndtr((self.edges - target.clamp(*self.bounds)[:, None]) / width)
        return (below[:, 1:] - below[:, :-1]) / (below[:, -1:] - below[:, :1])

    def lowest(self, state: Tensor, action: Tensor, random: torch.Generator) -> Tensor:
        """(B,): the lower value of a random pair of heads."""
        return self(state, action, torch.randperm(self.heads, generator=random)[:2]).amin(0)

    def _out(self, state: Tensor, action: Tensor, heads: Tensor | slice) -> Tensor:
        x = torch.cat([state, action], -1)
        n = self.heads if isinstance(heads, slice) else len(heads)
        x = x.expand(n, -1, -1)
        for layer in (self.first, self.second):
            x = functional.relu(functional.layer_norm(layer(x, heads), [self.width]))
        return self.last(x, heads)


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


class SquashedGaussian(nn.Module):
    """SAC's actor (1801.01290): bound * tanh of a Gaussian; it begins at bound * tanh(N(0, 1)) wherever it is."""

    def __init__(self, inlet: int, width: int, outlet: int, bound: float | Tensor) -> None:
        super().__init__()
        self.net, self.outlet = layer_norm_mlp(inlet, width, 2 * outlet), outlet
        self.register_buffer("bound", torch.as_tensor(bound), persistent=False)

    def forward(self, seen: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, A) for standard normal `draws` (B, A), and their log densities (B,) in units of the bound."""
        mean, log_std = self.net(seen).chunk(2, -1)
        log_std = log_std.clamp(*LOG_STD)
        raw = mean + log_std.exp() * draws
        normal = -0.5 * draws.square() - log_std - LOG_ROOT_TAU
        squash = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))  # log(1 - tanh(raw)^2), without cancellation
        return self.bound * raw.tanh(), (normal - squash).sum(-1)


class Temperature(nn.Module):
    """The weight of the entropy, tuned towards a target (SAC, 1812.05905, section 5)."""

    def __init__(self, initial: float, target_entropy: float) -> None:
        super().__init__()
        self.log, self.target_entropy = nn.Parameter(torch.tensor(math.log(initial))), target_entropy

    def forward(self) -> Tensor:
        """The weight, without a gradient."""
        return self.log.detach().exp()

    def loss(self, log_density: Tensor) -> Tensor:
        """Falls when the weight rises while the entropy is too low."""
        return self.log.exp() * (-log_density.detach().mean() - self.target_entropy)


def scales(config: Any, channels: Sequence[Channel]) -> Tensor:
    """(A,): the largest correction of each action dimension; a gripper's has a setting of its own."""
    return torch.tensor([config.gripper_scale if "gripper" in c.name else config.scale for c in channels])


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down `loss`, with gradients of at most norm 1, for the optimiser's own weights and no others."""
    weights = optimizer.param_groups[0]["params"]
    optimizer.zero_grad()
    loss.backward(inputs=weights)  # an actor's loss passes through the critic without touching its gradients
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move the weights of `target` a share `tau` towards those of `source`."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


def adamw(module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of every network here."""
    return torch.optim.AdamW(module.parameters(), lr=learning_rate, fused=True)


def generator() -> torch.Generator:
    """A random generator that follows `torch.manual_seed`, and afterwards nothing else."""
    return torch.Generator().manual_seed(
        int(torch.randint(2**31, (), device="cpu"))
    )  # also while a net is only measured


def learned(agent: Any, names: Sequence[str]) -> dict[str, Any]:
    """The states of an agent's networks and optimisers `names`, its counter and its random generator."""
    parts = {name: getattr(agent, name).state_dict() for name in names}
    return {**parts, "updates": agent.updates, "random": agent._random.get_state()}


def restore(agent: Any, names: Sequence[str], state: dict[str, Any]) -> None:
    """The inverse of `learned`."""
    for name in names:
        getattr(agent, name).load_state_dict(state[name])
    agent.updates = state["updates"]
    agent._random.set_state(state["random"])
