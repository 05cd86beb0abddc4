"""The loop. Simulation, evaluation, training and deployment all call this one function."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from robot_rl.types import Decision, Env, Episode, Obs, Player, RobotRLError, Step


def rollout(
    env: Env,
    agent: Player,
    *,
    explore: bool,
    seed: int | None = None,
    max_steps: int | None = None,
    video: list[np.ndarray] | None = None,
) -> Episode:
    """Play one episode and return it whole.

    `seed` fixes both the start of the world and the noise of the agent. `max_steps` truncates earlier than the
    world itself would. Pictures of the world are appended to `video` where one is given.
    """
    agent.reset(seed)
    observations = [env.reset(seed)]
    history = deque(observations * agent.n_obs, maxlen=agent.n_obs)
    steps: list[Step] = []
    extras: list[dict[str, np.ndarray]] = []
    limit = min(max_steps or env.spec.max_steps, env.spec.max_steps)
    queue: deque[tuple[np.ndarray, dict[str, np.ndarray]]] = deque()
    while not steps or not (steps[-1].terminated or steps[-1].truncated or len(steps) == limit):
        if video is not None:
            video.append(env.render())
        if not queue or (steps and steps[-1].intervened):  # a human hand makes the rest of the chunk stale
            queue = _rows(agent.decide(_stack(history), explore=explore))
        action, remembered = queue.popleft()
        step = env.step(action)
        steps.append(step)
        extras.append(remembered)
        observations.append(step.obs)
        history.append(step.obs)
    # A time-out bootstraps from the last observation, so what the agent would remember there is kept too.
    extras.append(queue[0][1] if queue else _rows(agent.decide(_stack(history), explore=explore))[0][1])
    return _episode(observations, steps, extras, {"seed": seed})


def _rows(decision: Decision) -> deque[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """A decision as one (action, extras) pair a control step."""
    if decision.actions.ndim != 2 or len(decision.actions) == 0:
        raise RobotRLError(
            f"the agent decided actions of shape {decision.actions.shape}; it must be (h, A) with h >= 1"
        )
    return deque((a, {k: v[i] for k, v in decision.extras.items()}) for i, a in enumerate(decision.actions))


def _stack(rows: Any) -> Obs:
    rows = list(rows)
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _episode(
    observations: list[Obs], steps: list[Step], extras: list[dict[str, np.ndarray]], meta: dict[str, Any]
) -> Episode:
    last = steps[-1]
    return Episode(
        obs=_stack(observations),
        action=np.stack([s.action for s in steps]).astype(np.float32),
        reward=np.array([s.reward for s in steps], np.float32),
        score=np.array([s.score for s in steps], np.float32),
        intervened=np.array([s.intervened for s in steps], bool),
        terminated=last.terminated,
        truncated=not last.terminated,
        extras=_stack(extras),
        meta=meta,
    )
