"""A toy world in numpy: a point must come to rest inside a small goal. Every algorithm learns it within seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_rl import control
from robot_rl.types import CameraSpec, Channel, Decision, Obs, Spec, Step

SPEED = 0.1  # distance moved in one step by a full action [m]
RADIUS = 0.04  # the goal's [m]
CAMERA, IMAGE = "top", 32  # the camera, and the side of its pictures [pixels]


@dataclass
class ToyEnv:
    """A point in the unit square moves by `SPEED` times the action; it succeeds inside `RADIUS` of the goal, slow."""

    max_steps: int = 30
    image: bool = False  # observed from above too

    def __post_init__(self) -> None:
        state = tuple(Channel(name, "m", -1.0, 1.0) for name in ("x", "y", "goal_x", "goal_y"))
        action = tuple(Channel(name, "m", -SPEED, SPEED) for name in ("dx", "dy"))
        cameras = (CameraSpec(CAMERA, IMAGE, IMAGE),) if self.image else ()
        self.spec = Spec("toy", "", state, action, cameras, rate=10.0, max_steps=self.max_steps)
        self._point, self._goal, self._steps = np.zeros(2), np.zeros(2), 0

    def reset(self, seed: int | None = None) -> Obs:
        """Point and goal apart, anywhere in the square."""
        rng = np.random.default_rng(seed)
        self._point, self._goal = rng.uniform(-0.9, -0.3, 2), rng.uniform(0.1, 0.7, 2)
        self._steps = 0
        return self._obs()

    def step(self, action: np.ndarray) -> Step:
        """Move; the walls of the square stop the point."""
        action = control.checked(action, 2)
        self._point = np.clip(self._point + control.to_physical(action, self.spec.action), -1.0, 1.0)
        self._steps += 1
        distance = float(np.linalg.norm(self._point - self._goal))
        done = distance < RADIUS and float(np.linalg.norm(action)) < 0.5
        return Step(
            obs=self._obs(),
            action=action,
            reward=float(done),
            terminated=done,
            truncated=not done and self._steps >= self.max_steps,
            score=1.0 if done else float(np.clip(1.0 - distance / 2.0, 0.0, 0.99)),
        )

    def render(self) -> np.ndarray:
        """The square from above: goal green, point blue, 96 x 96."""
        return self._picture(96)

    def close(self) -> None:
        """Nothing is held."""

    def _obs(self) -> Obs:
        state = np.concatenate([self._point, self._goal]).astype(np.float32)
        stamp = np.array(self._steps / self.spec.rate)
        obs: Obs = {"state": state, "stamp/state": stamp}
        if self.image:
            obs |= {f"image/{CAMERA}": self._picture(IMAGE), f"stamp/image/{CAMERA}": stamp}
        return obs

    def _picture(self, side: int) -> np.ndarray:
        picture, half = np.full((side, side, 3), 255, np.uint8), side // 32
        for centre, colour in ((self._goal, (40, 160, 60)), (self._point, (40, 80, 220))):
            col, row = ((centre * [1, -1] + 1) * 0.5 * (side - 4) + 2).astype(int)
            picture[max(row - half, 0) : row + half, max(col - half, 0) : col + half] = colour
        return picture


class ToyOperator:
    """Goes to the goal; the less skilled, the more it aims beside it and the more its hand shakes."""

    n_obs = 1

    def __init__(self, skill: float = 1.0) -> None:
        self.skill = skill

    def reset(self, seed: int | None = None) -> None:
        """Draw this episode's aim and pace."""
        self._rng = np.random.default_rng(None if seed is None else [seed, 1])
        self._miss = self._rng.normal(0.0, 0.06 * (1 - self.skill), 2)
        self._gain = self._rng.uniform(0.4, 0.9)

    def take_over(self) -> None:
        """It looks at every step anyway."""

    def to_go(self, obs: Obs) -> float:
        """From the point to its goal [m]."""
        x, y, goal_x, goal_y = obs["state"]
        return float(np.hypot(goal_x - x, goal_y - y))

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """A proportional step towards the aim, with tremor."""
        x, y, goal_x, goal_y = obs["state"][-1]
        error = np.array([goal_x - x, goal_y - y]) + self._miss
        action = self._gain * error / SPEED
        tremor = self._rng.normal(0.0, 0.1 * (1 - self.skill), 2)
        return Decision(np.clip(action / max(1.0, np.abs(action).max()) + tremor, -1, 1).astype(np.float32)[None])
