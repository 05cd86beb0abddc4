"""The loop. Simulation, evaluation, training and deployment all go through `play`.

It is written as a generator that asks for what it needs, a decision or a step of the world, so that the same lines
drive one world (`rollout`) and many worlds whose decisions are made together (`vector.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np

from robot_rl.types import Decision, Env, Episode, Obs, Player, RobotRLError, Step

Loop = Generator[Obs | np.ndarray, Any, Episode]


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
    loop = play(env.reset(seed), agent.n_obs, min(max_steps or env.spec.max_steps, env.spec.max_steps), {"seed": seed})
    wish = next(loop)
    try:
        while True:
            if isinstance(wish, dict):
                wish = loop.send(agent.decide(wish, explore=explore))
                continue
            if video is not None:
                video.append(env.render())
            wish = loop.send(env.step(wish))
    except StopIteration as end:
        episode: Episode = end.value
        return episode


def play(first: Obs, n_obs: int, limit: int, meta: dict[str, Any]) -> Loop:
    """One episode from its first observation on, at most `limit` steps.

    Yields an observation history, each entry (n_obs, ...), where it wants a `Decision` sent, and an action (A,) where
    it wants the `Step` that the world answers. Returns the episode. The history's "intervened" says whether a human
    made the last step: what the agent had planned before is then stale.
    """
    observations, steps, extras = [first], list[Step](), list[dict[str, np.ndarray]]()
    history = deque(observations * n_obs, maxlen=n_obs)
    queue: deque[tuple[np.ndarray, dict[str, np.ndarray]]] = deque()
    while not steps or not (steps[-1].terminated or steps[-1].truncated or len(steps) == limit):
        if not queue or (steps and steps[-1].intervened):  # a human hand makes the rest of the chunk stale
            queue = _rows((yield _seen(history, steps)))
        action, remembered = queue.popleft()
        step: Step = yield action
        steps.append(step)
        extras.append(remembered)
        observations.append(step.obs)
        history.append(step.obs)
    # A time-out bootstraps from the last observation, so what the agent would remember there is kept too.
    stale = not queue or steps[-1].intervened
    extras.append(_rows((yield _seen(history, steps)))[0][1] if stale else queue[0][1])
    return _episode(observations, steps, extras, meta)


def _rows(decision: Decision) -> deque[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """A decision as one (action, extras) pair a control step."""
    if decision.actions.ndim != 2 or len(decision.actions) == 0:
        raise RobotRLError(
            f"the agent decided actions of shape {decision.actions.shape}; it must be (h, A) with h >= 1"
        )
    return deque((a, {k: v[i] for k, v in decision.extras.items()}) for i, a in enumerate(decision.actions))


def _seen(history: deque[Obs], steps: list[Step]) -> Obs:
    last = {"intervened": np.array(bool(steps) and steps[-1].intervened)}
    return {**_stack(history), **last, **({"executed": steps[-1].action} if steps else {})}


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
