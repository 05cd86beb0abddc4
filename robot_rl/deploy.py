"""The verb `deploy`: a policy or an agent on a robot, playing its chunks by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robot_rl.episodes import EpisodeStore
from robot_rl.realtime import Realtime, RealtimeConfig
from robot_rl.rollout import rollout
from robot_rl.statistics import wilson
from robot_rl.types import Env, Episode, Obs, Player, Spec

WARM_UP = 60  # ticks


class Robot(Env, Protocol):
    """An `Env` on a robot."""

    aborted: str  # why the last episode could not go on
    ticks: int
    late: int

    def planned(self, stamp: float, actions: np.ndarray, value: Callable[[], float]) -> None:
        """Show whoever watches what is planned; see `Realtime`."""


@dataclass(frozen=True)
class Plan:
    """What to play."""

    agent: Path
    config: RealtimeConfig
    episodes: int  # 0: until it is stopped
    seed: int | None  # further episodes count on
    execute: int | None
    out: Path | None  # store for the episodes


def load(plan: Plan, spec: Spec, load_agent: Callable[..., Any]) -> Callable[[Robot, Callable[[], bool]], None]:
    """Load and warm up; raises where the checkpoint was made with another robot. Returns what plays."""
    print(f"deploy: loading {plan.agent}", flush=True)
    agent = load_agent(plan.agent, plan.execute)
    blind = not agent.policy.sees_images
    agent.policy.spec.require(
        spec, f"the checkpoint {plan.agent}", "the robot's file", state_only=blind, any_limit=True
    )
    with _store(plan, spec) as store:  # one that cannot be written to is refused before anything moves
        if store is not None:
            store.forget()
    by_the_clock = not _decides_single_actions(agent)
    if by_the_clock:
        _warm_up(agent, plan.config)

    def play(env: Robot, ended: Callable[[], bool]) -> None:
        with _store(plan, spec) as store:
            if not by_the_clock:
                _play(plan, env, agent, store, ended)
                return
            with closing(Realtime(agent, plan.config, told=env.planned)) as player:
                _play(plan, env, player, store, ended)
                print(_in_words(player.seams()), flush=True)

    return play


def _decides_single_actions(agent: Any) -> bool:
    """Such an agent is asked at each tick, which waits for it; one whose base plans chunks plays by the clock too."""
    agent.reset(0)
    nothing = _nothing(agent.policy.spec, agent.n_obs, 0.0)
    decisions = [agent.decide(nothing, explore=False) for _ in range(WARM_UP)]
    return not getattr(agent, "corrects_steps", False) and len(decisions[-1].actions) == 1


def _store(plan: Plan, spec: Spec) -> AbstractContextManager[EpisodeStore | None]:
    return nullcontext() if plan.out is None else EpisodeStore.begun(plan.out, spec)


def _warm_up(agent: Any, config: RealtimeConfig) -> None:
    """Play to nobody: what is first used while the arm waits would come late."""
    player, spec = Realtime(agent, config), agent.policy.spec
    player.reset(0)
    for tick in range(WARM_UP):
        player.decide(_nothing(spec, agent.n_obs, tick / spec.rate), explore=False)
        time.sleep(0.1 / spec.rate)
    player.close()


def _play(plan: Plan, env: Robot, player: Player, store: EpisodeStore | None, ended: Callable[[], bool]) -> None:
    played, won = 0, 0
    while not ended() and not (plan.episodes and played == plan.episodes):
        seed = None if plan.seed is None else plan.seed + played
        begin = time.monotonic()
        episode = rollout(env, player, explore=False, seed=seed)
        episode.meta.update(agent=str(plan.agent), aborted=env.aborted)
        if store is not None:
            store.append(episode)
        played, won = played + 1, won + episode.success
        print(f"episode {played}: {_outcome(episode, env)}, {time.monotonic() - begin:.1f} s", flush=True)
    if played:
        low, high = wilson(won, played)
        print(f"{won} of {played} succeeded ({100 * low:.0f}-{100 * high:.0f} %)")
        print(f"{env.late} of {env.ticks} ticks late", flush=True)


def _outcome(episode: Episode, env: Robot) -> str:
    taken = f", taken over in {episode.intervened.sum()} of them" if episode.intervened.any() else ""
    if env.aborted:
        return f"aborted after {len(episode)} steps{taken}: {env.aborted}"
    return f"{'success' if episode.success else 'no success'} after {len(episode)} steps{taken}"


def _in_words(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


def _nothing(spec: Spec, n_obs: int, stamp: float) -> Obs:
    """A history in the middle of all ranges."""
    middle = np.array([(c.low + c.high) / 2 for c in spec.state], np.float32)
    obs: Obs = {"state": np.tile(middle, (n_obs, 1)), "stamp/state": np.full(n_obs, stamp)}
    for camera in spec.cameras:
        obs[f"image/{camera.name}"] = np.zeros((n_obs, *camera.shape), camera.dtype)
    return obs
