"""A base policy that goes on imitating while an agent acts with it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.agents.engine import adamw, descend, follow
from robot_rl.replay import Batch

SHARE = 0.2  # of all steps so far: the average reaches back over no more, so that what was learned first is forgotten


class Student(nn.Module):
    """Two copies of a policy: `trained` takes the gradient steps, `averaged` is its moving average and acts."""

    def __init__(self, policy: Any, learning_rate: float, decay: float) -> None:
        super().__init__()
        self.trained = deepcopy(policy).requires_grad_(True).train()
        self.averaged = deepcopy(policy).requires_grad_(False).eval()
        self.optimizer, self._decay = adamw(self.trained, learning_rate), decay
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def step(self, windows: Batch, random: torch.Generator) -> float:
        """One imitation step; returns the loss. `random` fixes the noise that the loss draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=random)))
            loss = self.trained.loss(windows)
        descend(self.optimizer, loss)
        self.steps += 1
        follow(self.averaged, self.trained, max(1 - self._decay, 1 / (1 + SHARE * self.steps.item())))
        return loss.item()
