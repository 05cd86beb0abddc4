"""The verb `refine`: an agent practises, and learns from its own episodes beside the demonstrations.

The loop: play an episode, store it, learn from all of them, save. Everything is fixed by the seed and written at the
end of each episode, so a run that was killed continues as if it had not been.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from robot_rl.episodes import EpisodeStore
from robot_rl.replay import Replay
from robot_rl.rollout import rollout
from robot_rl.runs import Run
from robot_rl.seeds import episode_seed
from robot_rl.types import Agent, Env, Episode, Metrics, RobotRLError
from robot_rl.workers import Losses, MakeEnv, Worker, WorkerLostError

HOPELESS = 20  # episodes of the base without a success


@dataclass(frozen=True)
class RefineConfig:
    """How an agent practises. Steps are control steps of the world."""

    steps: int = 20_000
    """control steps in all, warm-up included"""
    base_steps: int = 2_000
    """control steps of the base alone before anything is learned"""
    offline_updates: int = 0
    """gradient steps on the demonstrations alone, before anything is played"""
    first_updates: int = 2_000
    """gradient steps right after the base's steps, before practice goes on"""
    utd: int = 4
    """update-to-data ratio: gradient steps for each control step"""
    threads: int = 2
    """CPU threads of learning; the result depends on it in the last bits"""
    overlap: bool = False
    """play the next episode in a second process while learning from the last: it acts as learned one episode earlier"""
    snapshot_every: int = 0
    """keep the agent as it is after every so many steps, to be compared at the end; 0: only the last"""
    seed: int = 0
    """of the start states, the exploration, the initial weights and the batches"""


def refine(
    out: Path,
    demos: Path,
    make_env: Callable[[], Env],
    make_agent: Callable[[], Agent],
    config: RefineConfig,
    about: dict[str, Any],
    save: Callable[[Any, Path], None],
) -> Path:
    """Practise into the folder `out`, or resume it; returns the agent's file.

    `about` describes the agent and what it was made of, for `config.json`. `save` writes an agent to a file.
    """
    torch.set_num_threads(config.threads)
    with (
        Run(out, "refine", {"demos": str(Path(demos).resolve()), "refine": config, **about}) as run,
        closing(make_env()) as env,
    ):
        torch.manual_seed(config.seed)
        agent = make_agent()
        source = EpisodeStore.open(demos)
        source.spec.require(env.spec, f"the store {demos}", "the world", state_only=True)
        with EpisodeStore.create(run.path / "episodes", env.spec) as store, ExitStack() as stack:
            practice = Practice(env, agent, config, store, _labelled(agent, source))
            if config.overlap:
                practice.ahead = stack.enter_context(closing(Ahead(make_env, make_agent)))
            practice.snapshot = lambda steps: save(agent, snapshot_file(run.path, steps))
            practice.resume(run)
            practice.go(run)
        save(agent, run.path / "agent.pt")
    return run.path / "agent.pt"


def snapshot_file(out: Path, steps: int) -> Path:
    """Where the run in the folder `out` keeps its agent as it was after `steps`."""
    file = Path(out) / "snapshots" / f"{steps}.pt"
    file.parent.mkdir(exist_ok=True)
    return file


class Practice:
    """One agent practising in one world."""

    def __init__(self, env: Env, agent: Agent, config: RefineConfig, store: EpisodeStore, demos: list[Episode]) -> None:
        self.env, self.agent, self.config, self.store = env, agent, config, store
        self.replay, self.steps, self.updates = Replay(), 0, 0
        self.snapshot: Callable[[int], None] = lambda steps: None
        self.ahead: Ahead | None = None
        self.acting: dict[str, Any] | None = None  # with `ahead`: the agent that plays the next episode
        for demo in demos:
            self.replay.demos.add(demo)

    def resume(self, run: Run) -> None:
        """Go back to the last save: what was played after it is played again, and comes out the same."""
        state = run.load() or {"episodes": 0, "steps": 0, "updates": 0, "agent": None, "acting": None}
        if len(self.store) < state["episodes"]:
            raise RobotRLError(f"{self.store.path} has lost episodes: {state['episodes']} were saved. Start a new run.")
        self.store.truncate(state["episodes"])
        for i in range(state["episodes"]):
            self.replay.remember(self.store.read(i, images=False))
        self.steps, self.updates = state["steps"], state["updates"]
        if state["agent"] is not None:
            self.agent.load_state_dict(state["agent"])
        self.acting = state["acting"]
        run.rewind(self.steps)

    def go(self, run: Run) -> None:
        """Practise until the configured number of steps is reached."""
        if self.updates < self.config.offline_updates:
            run.log(self.steps, self._learn())
            run.save(self.state_dict())
        progress = tqdm(total=self.config.steps, initial=self.steps, desc="refine", disable=None)
        if self.ahead is not None:
            self.ahead.start(self.acting or self.agent.state_dict(), self._seed(len(self.store)))
        while self.steps < self.config.steps:
            index = len(self.store)
            if self.ahead is None:
                episode = rollout(self.env, self.agent, explore=True, seed=self._seed(index))
            else:
                episode = self.ahead.receive()
                self.acting = deepcopy(self.agent.state_dict())
                self.ahead.start(self.acting, self._seed(index + 1))
            if not episode.extras:  # an agent that remembers nothing while acting may have something to say afterwards
                episode = replace(episode, extras=self.agent.label(episode))
            self.store.append(episode)
            self.replay.remember(episode)
            self.steps += len(episode)
            run.log(self.steps, _described(index, episode) | self._learn())
            every = self.config.snapshot_every
            if every and self.steps // every > (self.steps - len(episode)) // every:
                self.snapshot(self.steps // every * every)
            run.save(self.state_dict())
            progress.update(len(episode))
        progress.close()

    def _seed(self, index: int) -> int:
        return episode_seed("refine", self.config.seed, index)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the episodes, which have their own store."""
        counters = {"episodes": len(self.store), "steps": self.steps, "updates": self.updates}
        return {**counters, "agent": self.agent.state_dict(), "acting": self.acting}

    def _learn(self) -> Metrics:
        """The gradient steps that the update-to-data ratio owes; the means of what they report."""
        c, owed = self.config, self.config.offline_updates
        if self.steps >= c.base_steps and len(self.store):
            self._require_some_success()
            owed += c.first_updates + int(c.utd * (self.steps - c.base_steps))
        seen: dict[str, list[float]] = defaultdict(list)
        for _ in range(owed - self.updates):
            for key, value in self.agent.update(self.replay).items():
                seen[key].append(value)
        self.updates = max(owed, self.updates)
        return {"updates": float(self.updates), **{key: float(np.mean(values)) for key, values in seen.items()}}

    def _require_some_success(self) -> None:
        """Raise where many episodes of the base brought not one success: no refiner here learns from that."""
        played = self.replay.online.episodes
        if played >= HOPELESS and not self.replay.online.count("success"):
            raise RobotRLError(
                f"none of the first {played} episodes succeeded, so there is nothing to refine. Give the base more "
                "demonstrations or train it longer; let somebody help (--human.skill); or play more --base-steps."
            )


def _described(index: int, episode: Episode) -> Metrics:
    """What `metrics.jsonl` says of an episode; "intervened" counts the human's steps."""
    return {
        "episode": float(index),
        "success": float(episode.success),
        "length": float(len(episode)),
        "intervened": float(episode.intervened.sum()),
    }


class Ahead:
    """A second process that plays while the first one learns."""

    def __init__(self, make_env: MakeEnv, make_agent: Callable[[], Agent]) -> None:
        self._replacement = partial(Worker, _play, make_env, make_agent)
        self._worker, self._losses = self._replacement(), Losses()
        self._asked: tuple[bytes, int] = (b"", 0)

    def start(self, acting: dict[str, Any], seed: int) -> None:
        """Begin the episode of `seed`, played by an agent in the state `acting`."""
        packed = io.BytesIO()  # a state sent as it is would be shared, and go on learning
        torch.save(acting, packed)
        self._asked = (packed.getvalue(), seed)
        self._worker.send(self._asked)

    def receive(self) -> Episode:
        """The episode; a lost process is replaced, and plays it again."""
        while True:
            try:
                episode: Episode = self._worker.receive()
                return episode
            except WorkerLostError as error:
                self._losses.note([self._asked[1]], error)
                self._worker.stop()
                self._worker = self._replacement()
                self._worker.send(self._asked)

    def close(self) -> None:
        """End the process."""
        self._worker.stop()


def _play(pipe: Connection, make_env: MakeEnv, make_agent: Callable[[], Agent]) -> None:
    torch.set_num_threads(1)
    agent = make_agent()
    with closing(make_env()) as env:
        while True:
            acting, seed = pipe.recv()
            agent.load_state_dict(torch.load(io.BytesIO(acting), weights_only=True))
            pipe.send(rollout(env, agent, explore=True, seed=seed))


def _labelled(agent: Agent, source: EpisodeStore) -> list[Episode]:
    """The demonstrations, with what the agent would have remembered along them."""
    demos = [source.read(i, images=False) for i in range(len(source))]
    if not demos:
        raise RobotRLError(f"{source.path} holds no demonstrations; `robot-rl collect` or `import` makes some")
    for i, demo in enumerate(demos):
        if not np.isin(demo.reward, (0, 1)).all() or demo.reward[:-1].any() or (demo.success and not demo.terminated):
            raise RobotRLError(
                f"episode {i} of {source.path} has another reward convention: a reward must be 0, or 1 at a success, "
                "which ends the episode. Cut it at its success and store the reward so."
            )
    return [replace(demo, extras=agent.label(demo)) for demo in demos]
