"""A policy on another device than the rest of its agent: asked and answering in the CPU's memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robot_rl.types import RobotRLError


def move(policy: Any, name: str) -> None:
    """Let `policy` sample on the device `name`; whoever holds it notices nothing."""
    try:
        device = torch.device(name)
        policy.to(device)
    except (RuntimeError, AssertionError) as error:
        raise RobotRLError(f"the policy cannot be moved to the device '{name}': {error}") from error
    sample, look, normalise = policy.sample, policy.look, policy.normalise

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    def sample_there(obs: dict[str, Tensor], noise: Tensor | None = None, committed: Tensor | None = None) -> Tensor:
        return sample({key: value.to(device) for key, value in obs.items()}, moved(noise), moved(committed)).cpu()

    policy.sample = sample_there
    policy.look = lambda obs: look({key: value.to(device) for key, value in obs.items()}).cpu()
    policy.normalise = lambda rows: normalise(rows.to(device)).cpu()
