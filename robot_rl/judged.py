"""A world whose success somebody else judges: a classifier of pictures, a program, a model of language and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from robot_rl.types import Env, Obs, RobotRLError, Spec, Step

Judge = Callable[[Obs], float]  # the reward of an observation: 1 at success, else 0


class Judged:
    """Implements `Env`: the world `env`, but success is what `judge` says. The world's own success is not looked at."""

    def __init__(self, env: Env, judge: Judge) -> None:
        self._env, self._judge = env, judge
        self.spec: Spec = env.spec

    def reset(self, seed: int | None = None) -> Obs:
        """A new episode of the world."""
        self._steps = 0
        return self._env.reset(seed)

    def step(self, action: np.ndarray) -> Step:
        """A step of the world. It ends where the judge sees success, where the world ends it as failed, or by time."""
        step = self._env.step(action)
        self._steps += 1
        reward = float(self._judge(step.obs))
        if reward not in (0.0, 1.0):
            raise RobotRLError(f"the judge said {reward}; a reward is 1 at success, else 0: compare with a threshold")
        over = reward > 0 or (step.terminated and step.reward == 0)
        late = step.truncated or self._steps >= self.spec.max_steps
        return replace(step, reward=reward, terminated=over, truncated=late and not over, score=reward)

    def render(self) -> np.ndarray:
        """The world's picture."""
        return self._env.render()

    def close(self) -> None:
        """Close the world."""
        self._env.close()
