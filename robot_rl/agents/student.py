"""A base policy that goes on imitating while an agent acts with it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from robot_rl.agents.engine import adamw, descend, follow
from robot_rl.replay import Batch


class Student(nn.Module):
    """Two copies of a policy: `trained` takes the gradient steps, `averaged` is its moving average and acts."""

    def __init__(self, policy: Any, learning_rate: float, decay: float) -> None:
        super().__init__()
        self.trained = deepcopy(policy).requires_grad_(True).train()
        self.averaged = deepcopy(policy).requires_grad_(False).eval()
        self.optimizer, self._decay = adamw(self.trained, learning_rate), decay

    def step(self, windows: Batch, random: torch.Generator) -> float:
        """One imitation step; returns the loss. `random` fixes the noise that the loss draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=random)))
            loss = self.trained.loss(windows)
        descend(self.optimizer, loss)
        follow(self.averaged, self.trained, 1 - self._decay)
        return loss.item()
