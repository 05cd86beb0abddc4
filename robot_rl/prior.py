"""What a refiner learns from beside practice: stores of demonstrations, or of other agents' practice."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from robot_rl import joint, memory
from robot_rl.episodes import EpisodeStore
from robot_rl.runs import Run
from robot_rl.types import Agent, Episode, RobotRLError


def used_of(run: Run, agent: Agent, demos: Sequence[Path]) -> list[tuple[EpisodeStore, int]]:
    """The stores `demos`, each with how many of its episodes the run has used from its beginning; raises where one does
    not fit.

    A store may have grown since, such as that of another agent that still practises: what is new is left out.
    """
    used, stores = [], [EpisodeStore.open(path) for path in demos]
    joint.require_distinct(stores)
    for path, store in zip(demos, stores, strict=True):
        for warning in _expressed(store, agent):
            print(f"WARNING  {warning}", file=sys.stderr)
        begun = run.sources.get(str(store.path.resolve()), {}).get("episodes", len(store))
        if begun < len(store):
            print(f"{path} has grown to {len(store)} episodes; this run goes on with its first {begun}")
        used.append((store, begun))
    return used


def _expressed(store: EpisodeStore, agent: Agent) -> list[str]:
    """Let `store` give its episodes in the ranges of the agent's policy; see `joint.express_for`."""
    return joint.express_for(store, agent.policy.spec, "the policy", state_only=not agent.policy.sees_images)


def named(stores: Sequence[Path]) -> list[str]:
    """For `config.json`."""
    return [str(Path(store).resolve()) for store in stores]


def labelled(agent: Agent, stores: Sequence[Path], firsts: Sequence[int] | None = None) -> list[Episode]:
    """The episodes of `stores`, with what the agent would have remembered along them; raises where one does not fit.

    With `firsts`, only so many first ones of each store.
    """
    counts: Sequence[int | None] = [None] * len(stores) if firsts is None else firsts
    prior = [demo for path, n in zip(stores, counts, strict=True) for demo in _fitting(path, n, agent)]
    if not any(demo.success for demo in prior):
        where = ", ".join(map(str, stores))
        raise RobotRLError(f"none of the {len(prior)} episodes of {where} shows a success, and {NO_SUCCESS}")
    for i, demo in enumerate(prior):
        if demo.meta.get("seed") is None:
            prior[i] = replace(demo, meta=demo.meta | {"seed": i})  # noise of its own
    return [replace(demo, extras=agent.label(demo)) for demo in prior]


NO_SUCCESS = (
    "a refiner learns what success is from demonstrations that end in one, with a reward of 1. Where they did succeed, "
    "the recording does not say so, or it was made for another goal than this world's: mark success in the recording "
    "and import it again, train a classifier of success (`robot-rl reward`), or add a store with successes to --demos"
)
CONVENTION = "a reward must be 0, or 1 at a success, which ends the episode"


def sparse(episode: Episode) -> bool:
    """Whether its rewards follow the convention."""
    only_last = np.isin(episode.reward, (0, 1)).all() and not episode.reward[:-1].any()
    return bool(only_last and (episode.terminated or not episode.success))


def _fitting(path: Path, n: int | None, agent: Agent) -> list[Episode]:
    store, sees = EpisodeStore.open(path), agent.policy.sees_images
    _expressed(store, agent)
    lengths = store.lengths(n)
    if sees:
        memory.require_pictures(store.spec.cameras, sum(lengths) + len(lengths))
    demos = [store.read(i, images=sees) for i in range(len(lengths))]
    if not demos:
        raise RobotRLError(f"{path} holds no demonstrations; `robot-rl collect` or `import` makes some")
    for i, demo in enumerate(demos):
        if not sparse(demo):
            raise RobotRLError(
                f"episode {i} of {path} has another reward convention: {CONVENTION}. Cut it at its success and store "
                "the reward so."
            )
    return demos
