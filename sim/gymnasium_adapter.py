"""The edge to gymnasium, both ways: our worlds for their learners, their worlds for our agents."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces

from robot_rl import control
from robot_rl.types import Channel, Env, Obs, RobotRLError, Spec, Step


class AsGymnasium(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One of our worlds as a `gymnasium.Env`: a dictionary of observations, a box of actions in [-1, 1].

    `info` tells "action", what was really executed, "intervened" and "score".
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, env: Env) -> None:
        self.env = env
        self.render_mode = "rgb_array"
        self.metadata = {**self.metadata, "render_fps": round(env.spec.rate)}
        images = {
            f"image/{c.name}": spaces.Box(0, int(np.iinfo(c.dtype).max), c.shape, c.dtype.type)
            for c in env.spec.cameras
        }
        # Channels' ranges are what is usual; an arm that is pushed may leave them.
        state = spaces.Box(-np.inf, np.inf, (len(env.spec.state),), np.float32)
        self._seen = spaces.Dict({"state": state, **images})
        self.observation_space = cast("spaces.Space[dict[str, np.ndarray]]", self._seen)
        self.action_space = spaces.Box(-1.0, 1.0, (len(env.spec.action),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As gymnasium defines it: after one seeded reset, unseeded ones follow from that seed."""
        super().reset(seed=seed)
        start = seed if seed is not None else int(self.np_random.integers(2**31))
        return self._visible(self.env.reset(start)), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """As gymnasium defines it."""
        step = self.env.step(action)
        info = {"action": step.action, "intervened": step.intervened, "score": step.score}
        return self._visible(step.obs), float(step.reward), step.terminated, step.truncated, info

    def render(self) -> Any:
        """A picture (H, W, 3) uint8 RGB."""
        return self.env.render()

    def close(self) -> None:
        """Close the world."""
        self.env.close()

    def _visible(self, obs: Obs) -> dict[str, np.ndarray]:
        return {key: obs[key] for key in self._seen.spaces}


class FromGymnasium:
    """A gymnasium world with box observations and box actions as one of ours; implements `Env`.

    `name` becomes the world's name in the Spec and `rate` [Hz] its control rate. The reward is made sparse: 1 where the
    world's `info["is_success"]` (or "success") says so, or, where it says nothing, where it terminates with a reward
    above 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, rate: float, max_steps: int) -> None:
        observed, acted = env.observation_space, env.action_space
        if not (isinstance(observed, spaces.Box) and len(observed.shape) == 1):
            raise RobotRLError(f"{name} observes {observed}; only a one-dimensional Box can become a state")
        if not (isinstance(acted, spaces.Box) and len(acted.shape) == 1 and np.isfinite([acted.low, acted.high]).all()):
            raise RobotRLError(f"{name} takes {acted}; only a bounded one-dimensional Box of actions is supported")
        self._env, self._steps = env, 0
        self.spec = Spec(name, "", _channels("state", observed), _channels("action", acted), (), rate, max_steps)

    def reset(self, seed: int | None = None) -> Obs:
        """The same seed gives the same start, as far as the wrapped world keeps gymnasium's promise."""
        self._steps = 0
        return self._obs(self._env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> Step:
        """Execute `action` (A,) in [-1, 1], scaled to the world's own box."""
        action = control.checked(action, len(self.spec.action))
        space = self._env.action_space
        values = control.to_physical(action, self.spec.action).astype(space.dtype)
        observation, reward, terminated, truncated, info = self._env.step(values)
        self._steps += 1
        success = bool(info.get("is_success", info.get("success", terminated and float(reward) > 0)))
        over = terminated or success
        late = truncated or self._steps >= self.spec.max_steps
        return Step(self._obs(observation), action, float(success), over, not over and late, score=float(success))

    def render(self) -> np.ndarray:
        """A picture (H, W, 3) uint8 RGB; the world must have been made with render_mode="rgb_array"."""
        picture = self._env.render()
        if not isinstance(picture, np.ndarray):
            raise RobotRLError(f'{self.spec.world} renders nothing; make it with render_mode="rgb_array"')
        return picture

    def close(self) -> None:
        """Close the world."""
        self._env.close()

    def _obs(self, observation: Any) -> Obs:
        stamp = np.array(self._steps / self.spec.rate, np.float64)
        return {"state": np.asarray(observation, np.float32), "stamp/state": stamp}


def _channels(kind: str, box: spaces.Box) -> tuple[Channel, ...]:
    """A box's numbers as channels without a unit; an open end becomes 10."""
    low, high = np.nan_to_num(box.low, neginf=-10.0), np.nan_to_num(box.high, posinf=10.0)
    return tuple(
        Channel(f"{kind}_{i}", "1", float(lo), float(hi)) for i, (lo, hi) in enumerate(zip(low, high, strict=True))
    )
