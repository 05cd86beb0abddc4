"""Somebody who watches an episode and takes the controls where it stalls or goes wrong, and lets go when it is mended.

A world is wrapped: what the agent asks for goes in, what was executed comes out, and `Step.intervened` says whose it
was. That is the path of a real teleoperator too, so no agent knows the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robot_rl.types import Env, Obs, Player, RobotRLError, Spec, Step


@dataclass(frozen=True)
class HumanConfig:
    """A simulated human beside the robot."""

    skill: float | None = None
    """of the human who watches, 0 (clumsy) to 1 (fast and clean); nobody does where not given"""
    patience: int = 20
    """steps without progress after which the human takes over"""
    alarm: float = 0.2
    """so much farther from done than it was already [m]: something was lost, the human takes over at once"""
    help: float = 0.4
    """so much nearer to done [m], and the human lets go"""
    longest: int = 100
    """steps after which the human lets go anyway"""
    rate: float = 1.0
    """share of the episodes that are watched"""


class Operator(Player, Protocol):
    """Who can help: knows what is left to do, and can begin in the middle."""

    def to_go(self, obs: Obs) -> float:
        """How far from done [m]; the first call of an episode sees its start."""

    def take_over(self) -> None:
        """Plan anew from what is there."""


PROGRESS = 0.01  # nearer to done by so much is progress [m]


class Watched:
    """Implements `Env`: the world `env` with a human beside it."""

    def __init__(self, env: Env, human: HumanConfig, operator: Operator) -> None:
        if not 0 <= human.rate <= 1 or min(human.patience, human.longest) < 1 or min(human.alarm, human.help) <= 0:
            raise RobotRLError(f"a human needs a rate in [0, 1], patience, longest, alarm and help above 0: {human}")
        self._env, self._human, self._operator = env, human, operator
        self.spec: Spec = env.spec

    def reset(self, seed: int | None = None) -> Obs:
        """A new episode; the seed fixes too whether it is watched, and how the human moves."""
        self._obs = self._env.reset(seed)
        rng = np.random.default_rng(None if seed is None else [seed, 2])
        self._watching = rng.random() < self._human.rate
        self._operator.reset(None if seed is None else seed + 1)
        self._acting, self._since, self._nearest = False, -1, self._operator.to_go(self._obs)  # no step is made yet
        return self._obs

    def step(self, action: np.ndarray) -> Step:
        """Execute `action`, or what the human does instead."""
        if self._watching:
            self._watch()
        if self._acting:
            history = {key: value[None] for key, value in self._obs.items()}
            action = self._operator.decide(history, explore=False).actions[0]
        step = self._env.step(action)
        self._obs = step.obs
        return Step(step.obs, step.action, step.reward, step.terminated, step.truncated, self._acting, step.score)

    def render(self) -> np.ndarray:
        """The world's picture."""
        return self._env.render()

    def close(self) -> None:
        """Release the world."""
        self._env.close()

    def _watch(self) -> None:
        """Take over, or let go."""
        h, left = self._human, self._operator.to_go(self._obs)
        self._since += 1
        if self._acting:
            if left < self._nearest - h.help or self._since >= h.longest:
                self._acting, self._since, self._nearest = False, 0, left
        elif left < self._nearest - PROGRESS:
            self._since, self._nearest = 0, left
        elif self._since >= h.patience or left > self._nearest + h.alarm:
            self._acting, self._since, self._nearest = True, 0, left
            self._operator.take_over()
