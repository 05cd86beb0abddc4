"""The frozen agent: plays a policy as it is, `execute` actions of each chunk, then looks again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robot_rl.replay import Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy, RobotRLError


@dataclass(frozen=True)
class FrozenConfig:
    """Plays a policy without learning."""

    execute: int = 8
    """actions of each chunk that are executed before the policy is asked again"""

    def build(self, policy: Policy) -> Frozen:
        """The agent that plays `policy`."""
        return Frozen(policy, self)


class Frozen:
    """Implements `Agent`; it never changes."""

    def __init__(self, policy: Policy, config: FrozenConfig) -> None:
        if not 1 <= config.execute <= policy.horizon:
            raise RobotRLError(f"execute must lie in 1..{policy.horizon}, the policy's horizon, not {config.execute}")
        self.policy, self.config, self.n_obs = policy, config, policy.n_obs
        self._random = torch.Generator()

    def reset(self, seed: int | None = None) -> None:
        """Seed the noise of the episode."""
        self._random.seed() if seed is None else self._random.manual_seed(seed)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """A fresh chunk, cut to (execute, A). `explore` changes nothing here."""
        state = torch.from_numpy(obs["state"])[None]
        return Decision(self.plan(state)[0].numpy())

    def plan(self, state: torch.Tensor) -> torch.Tensor:
        """Chunks (B, execute, A) for histories (B, To, S), with the next noise of this episode."""
        noise = torch.randn(len(state), self.policy.horizon, len(self.policy.spec.action), generator=self._random)
        return self.policy.sample({"state": state}, noise)[:, : self.config.execute]

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """It remembers nothing."""
        return {}

    def update(self, replay: Replay) -> Metrics:
        """Nothing to learn."""
        raise RobotRLError("the frozen agent does not learn; refine with `residual`")

    def state_dict(self) -> dict[str, Any]:
        """Empty: nothing changes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accepts what `state_dict` gave."""
