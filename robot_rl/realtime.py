"""An agent plays one chunk while it plans the next in the background: real-time chunking (2506.07339).

The loop asks for one action a control period and is never kept waiting; what is due comes from a `Track` (`chunks.py`).
Planning takes as long as it takes: how long is read off the stamps of the observations, so that a chunk goes on where
the arm is, not where it was when the plan began. Two exceptions. The first plan of an episode is waited for: the arm
stands still, and time on the track with it. And where a plan is later than the actions last, the arm holds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from robot_rl import control
from robot_rl.chunks import ROUNDING, Seam, Track
from robot_rl.types import Agent, Channel, Decision, Metrics, Obs, RobotRLError

Told = Callable[[float, np.ndarray, Callable[[], float]], None]  # of a plan: its observation's stamp [s], (h, A), value
LEFT = 2  # actions of a chunk while which the next is planned, where nothing else is said
SETTLING = 0.1  # share of a stamp's jitter by which the grid of ticks follows: in time it runs through the middle


@dataclass(frozen=True)
class RealtimeConfig:
    """Playing one chunk while the next is planned."""

    blend: int = 0
    """control periods over which a new chunk is mixed with the one before it"""
    inpaint: bool = True
    """tell the policy which actions are still ahead, so that its next chunk begins with them"""
    replan: int | None = None
    """start the next plan when so many actions of the present chunk are past; None: all but two. What is left must last
    for as long as a plan takes, and a chunk for twice that, or the arm holds meanwhile"""


class Realtime:
    """Implements `Player` around an agent. Of an agent that corrects single steps the base plans in the background.

    `told` hears of each plan, in the background too. What a critic expects of it is worked out if it asks, as the plan
    waits meanwhile; NaN where the agent has no critic of chunks.
    """

    def __init__(
        self, agent: Agent, config: RealtimeConfig, executor: Executor | None = None, told: Told | None = None
    ) -> None:
        if config.replan is not None and config.replan < 1:
            raise RobotRLError(f"replan must be 1 action at least, not {config.replan}")
        self.agent: Any = agent
        self.config, self.n_obs, self._spec = config, agent.n_obs, agent.policy.spec
        self._corrects_steps = bool(getattr(agent, "corrects_steps", False))
        self._told = told
        self._track = Track(1.0 / self._spec.rate, config.blend)
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._plan: _Plan | None = None  # in flight
        self._forgotten: Future[Decision] | None = None  # a plan that nobody wants, perhaps still being made
        self._chunk: Decision | None = None  # the newest on the track, as it was decided
        self._chunk_start = self._origin = 0.0
        self._given = self._starved = self._too_late = 0
        self._last = np.zeros(len(self._spec.action), np.float32)  # the last action given out
        self._seams: deque[Seam] = deque(maxlen=1000)

    def reset(self, seed: int | None = None) -> None:
        """Start an episode; waits until no plan of the last one uses the agent any more."""
        self._drop(wait=True)
        self.agent.reset(seed)
        self._track.clear(-math.inf)
        self._given = 0

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """The one action (1, A) that is due at `obs["stamp/state"][-1]` [s], with its extras.

        Raises what planning raised, and `RobotRLError` where observations have no finite stamp or the agent plans
        single actions.
        """
        now, first = self._now(obs), self._given == 0
        if obs.get("intervened") and not first:
            self._drop()  # and none is started: it must see what came of the hand-over
            self._track.clear(now)
        else:
            self._take(now)
            self._start(obs, now, explore)
            if self._track.at(now) is None:
                self._take(now, wait=first)
        decision = self._decision(obs, now, explore)
        self._given, self._last = self._given + 1, decision.actions[0]
        return decision

    def seams(self) -> Metrics:
        """Of all episodes so far: how chunks joined, and for how many ticks there was nothing to play.

        "seams" and "too_late" count the plans that took over and those that came after their last action; delays [s]
        are from an observation to the tick at which its plan arrived; jumps are the largest difference between the old
        chunk's action and the new one's at a seam, over the channels in metres and in radians.
        """
        delays = [seam.delay for seam in self._seams] or [0.0]
        return {
            "seams": float(len(self._seams)),
            "delay_median": float(np.median(delays)),
            "delay_p99": float(np.quantile(delays, 0.99)),
            "jump_mm": 1000.0 * _largest_jump(self._seams, self._spec.action, "m"),
            "jump_rad": _largest_jump(self._seams, self._spec.action, "rad"),
            "starved": float(self._starved),
            "too_late": float(self._too_late),
        }

    def close(self) -> None:
        """Wait for a plan in flight and end the thread."""
        self._drop(wait=True)
        self._executor.shutdown(wait=True)

    def _now(self, obs: Obs) -> float:
        """The moment of `obs` on the track [s]: whole periods since the episode began, however ticks and stamps jitter.

        While the first plan was waited for, time stood still: its second action is due at the second observation.
        """
        stamp = float(obs["stamp/state"][-1]) if "stamp/state" in obs else math.nan
        if not math.isfinite(stamp):
            raise RobotRLError('playing in real time needs observations with a finite "stamp/state" [s]')
        period = self._track.period
        if self._given < 2:
            self._origin = stamp - self._given * period
        now = round((stamp - self._origin) / period) * period
        self._origin += SETTLING * (stamp - self._origin - now)
        return now

    def _start(self, obs: Obs, now: float, explore: bool) -> None:
        """Start to plan from `obs` if it is time to, and no plan is in flight."""
        rows = 0 if self._chunk is None else len(self._chunk.actions)
        rest = max(rows - (self.config.replan or max(rows - LEFT, 1)), 0) * self._track.period
        if self._plan is not None or self._track.left(now) > rest + ROUNDING * self._track.period:
            return
        ahead = self._track.ahead(now, rows)
        if self.config.inpaint and len(ahead):
            obs = {**obs, "committed": ahead.astype(np.float32)}
        self._plan = _Plan(now, self._executor.submit(self._planned, obs, explore))

    def _planned(self, obs: Obs, explore: bool) -> Decision:
        """In the background: a chunk (h, A), of an agent that corrects single steps its base's."""
        if self._corrects_steps:
            plan = Decision(self.agent.plan(obs, explore=explore))
        else:
            plan = self.agent.decide(obs, explore=explore)
        if self._told is not None:
            judged = hasattr(self.agent, "value")
            value = partial(self.agent.value, obs, plan.actions) if judged else lambda: math.nan
            self._told(float(obs["stamp/state"][-1]), plan.actions, value)
        return plan

    def _take(self, now: float, wait: bool = False) -> None:
        """Splice in the plan in flight, if it is there."""
        plan = self._plan
        if plan is None or not (wait or plan.future.done()):
            return
        self._plan = None
        chunk = plan.future.result()
        if len(chunk.actions) < 2:
            raise RobotRLError("the agent plans single actions: there is nothing to play while it plans the next")
        if not self._track.add(plan.start, chunk.actions, now):
            self._too_late += 1
            return
        self._chunk, self._chunk_start = chunk, plan.start
        if self._given:
            self._seams.append(self._track.seams[-1])

    def _drop(self, wait: bool = False) -> None:
        """Forget the plan in flight; `wait` until its thread has let go of the agent, whatever came of it."""
        plan, self._plan = self._plan, None
        if plan is not None and not plan.future.cancel():
            self._forgotten = plan.future
        if wait and self._forgotten is not None:
            self._forgotten.exception()

    def _decision(self, obs: Obs, now: float, explore: bool) -> Decision:
        due = self._track.at(now)
        if due is None:
            self._starved += not obs.get("intervened")
            action = control.hold(self._spec.action, obs.get("executed", self._last))
        else:
            action = due.astype(np.float32)
        if not self._corrects_steps:
            return Decision(action[None], self._extras(now, due is None))
        decision: Decision = self.agent.correct(obs, action, explore=explore)
        return decision if due is not None else replace(decision, actions=action[None])

    def _extras(self, now: float, holding: bool) -> dict[str, np.ndarray]:
        """What the newest chunk remembers beside the action due `now`; beside a hold, zeros of the same shapes."""
        if self._chunk is None:
            return {}
        row = 0 if holding else round((now - self._chunk_start) / self._track.period)
        return {k: np.zeros_like(v[:1]) if holding else v[row : row + 1] for k, v in self._chunk.extras.items()}


@dataclass(frozen=True)
class _Plan:
    start: float  # the moment of its observation, on the track [s]
    future: Future[Decision]


def _largest_jump(seams: Iterable[Seam], channels: Sequence[Channel], unit: str) -> float:
    """Over the channels of one unit together, in that unit."""
    low, high = control.bounds(channels)
    scale = np.array([c.unit == unit for c in channels]) * 0.5 * (high - low)
    return max((float(np.linalg.norm(seam.jump * scale)) for seam in seams), default=0.0)
