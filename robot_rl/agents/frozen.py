"""The frozen agent: plays a policy as it is, `execute` actions of each chunk, then looks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robot_rl.replay import Replay
from robot_rl.types import Decision, Episode, Metrics, Obs, Policy, RobotRLError

LOOKS = 32  # pictures of a camera that are encoded at once along an episode


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
        self.exploration = torch.Generator()  # of the agent that this is the base of

    def reset(self, seed: int | None = None) -> None:
        """Seed the noise of the episode, and the exploration of whoever acts through this."""
        for offset, random in enumerate((self._random, self.exploration)):
            random.seed() if seed is None else random.manual_seed(seed + offset)

    def twin(self) -> Frozen:
        """Another player of the same policy, with an episode of its own."""
        return Frozen(self.policy, self.config)

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """A fresh chunk, cut to (execute, A); it begins with `obs["committed"]` (n, A) where there is such.

        `explore` changes nothing here.
        """
        return self.decide_all([self], [obs], explore=explore)[0]

    @staticmethod
    def decide_all(players: Sequence[Frozen], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """What each of `players`, twins, decides on its own observation, in policy calls of `rows` rows each.

        No player's decision depends on who shares its call, not even by rounding.
        """
        first = players[0]
        rows_seen = looked(first.policy, obs, rows)
        noise = torch.cat([player.noise(1) for player in players])
        sample = first.policy.sample
        chunks = in_rows(lambda s, *given: sample({"state": s}, *given), rows, rows_seen, noise, *committed(obs))
        return [Decision(chunk) for chunk in chunks[:, : first.config.execute].numpy()]

    def noise(self, n: int) -> torch.Tensor:
        """The next (n, H, A) of this episode."""
        return torch.randn(n, self.policy.horizon, len(self.policy.spec.action), generator=self._random)

    def plan(self, state: torch.Tensor) -> torch.Tensor:
        """Chunks (B, execute, A) for rows (B, To, S + F) (see `Policy.look`), with the next noise of this episode."""
        return self.policy.sample({"state": state}, self.noise(len(state)))[:, : self.config.execute]

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """It remembers nothing."""
        return {}

    def update(self, replay: Replay) -> Metrics:
        """Nothing to learn."""
        raise RobotRLError("the frozen agent does not learn; refine with another")

    def state_dict(self) -> dict[str, Any]:
        """Empty: nothing changes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accepts what `state_dict` gave."""


def looked(policy: Policy, obs: Sequence[Obs], rows: int) -> torch.Tensor:
    """The rows (B, To, S + F) of many observations, looked at `rows` at a time; see `Policy.look`."""
    state = torch.from_numpy(np.stack([o["state"] for o in obs]))
    if not policy.sees_images:
        return state
    keys = [key for key in obs[0] if key.startswith("image/")]
    pictures = [torch.from_numpy(np.stack([o[key] for o in obs])) for key in keys]
    return in_rows(lambda s, *p: policy.look({"state": s, **dict(zip(keys, p, strict=True))}), rows, state, *pictures)


def looked_along(policy: Policy, episode: Episode) -> np.ndarray:
    """The rows (T + 1, S + F) of an episode: what learners keep of it in place of its pictures; see `Policy.look`."""
    seen = [{k: v[t : t + 1] for k, v in episode.obs.items()} for t in range(len(episode) + 1)]
    return looked(policy, seen, LOOKS)[:, 0].numpy() if policy.sees_images else episode.obs["state"]


def committed(obs: Sequence[Obs], candidates: int = 1) -> list[torch.Tensor]:
    """What the only player's chunks must begin with, (candidates, n, A); nothing where nothing is committed."""
    found = [o["committed"] for o in obs if "committed" in o]
    if found and len(obs) > 1:
        raise RobotRLError(f"{len(obs)} players decide together; committed actions are for one that decides alone")
    return [torch.from_numpy(np.asarray(actions, np.float32)).expand(candidates, -1, -1) for actions in found]


def in_rows(function: Callable[..., torch.Tensor], rows: int, *batches: torch.Tensor) -> torch.Tensor:
    """`function` of the batches (B, ...), called on `rows` rows at a time, the last call filled up with zeros.

    A matrix product rounds a row in the same way whatever the other rows hold, as long as their number stays: so the
    result of a row depends on that row and on `rows` alone.
    """
    n = len(batches[0])
    filled = [torch.cat([b, b.new_zeros(-n % rows, *b.shape[1:])]) for b in batches]
    calls = zip(*(b.split(rows) for b in filled), strict=True)
    return torch.cat([function(*call) for call in calls])[:n]
