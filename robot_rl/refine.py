"""The verb `refine`: an agent practises, and learns from its own episodes beside the demonstrations.

The loop: play an episode, store it, learn from all of them, save. Everything is fixed by the seed, and an episode is
stored before it is learned from, so a run that was killed continues as if it had not been, and loses none.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_rl import fingerprints, fitting, memory, outputs, ranges
from robot_rl.agents.frozen import looked_along
from robot_rl.episodes import EpisodeStore
from robot_rl.prior import CONVENTION, labelled, named, sparse, used_of
from robot_rl.progress import progress
from robot_rl.replay import Replay
from robot_rl.rollout import rollout
from robot_rl.runs import Run
from robot_rl.seeds import episode_seed
from robot_rl.types import Agent, Env, Episode, Metrics, RobotRLError, Spec
from robot_rl.workers import Losses, MakeEnv, Worker, WorkerLostError


@dataclass(frozen=True)
class RefineConfig:
    """How an agent practises. Steps are control steps of the world."""

    steps: int = 20_000
    """control steps in all, warm-up included"""
    base_steps: int = 2_000
    """control steps of the base alone before anything is learned from practice; after enough `offline_updates` it is
    the agent who plays them, as the demonstrations taught it"""
    offline_updates: int = 0
    """gradient steps on the demonstrations alone, before anything is played"""
    first_updates: int = 2_000
    """gradient steps right after the base's steps, before practice goes on"""
    utd: float = 4.0
    """update-to-data ratio: gradient steps for each control step"""
    threads: int = 2
    """CPU threads of learning; the result depends on it in the last bits"""
    overlap: bool = False
    """play the next episode in a second process while learning from the last: it acts as learned one episode earlier"""
    hopeless: int = 20
    """so many episodes without a single success, and practice stops with an error; 0: never"""
    lead: int = 1_000
    """with actor and learner apart: control steps that the actor may be ahead of what its weights have learned from"""
    snapshot_every: int = 0
    """keep the agent as it is after every so many steps, to be compared at the end; 0: only the last"""
    seed: int = 0
    """of the start states, the exploration, the initial weights and the batches"""


def refine(
    out: Path,
    demos: Sequence[Path],
    make_env: Callable[[], Env],
    make_agent: Callable[[], Agent],
    config: RefineConfig,
    about: dict[str, Any],
    save: Callable[[Any, Path], None],
    made_of: Sequence[Path] = (),
) -> Path:
    """Practise into the folder `out`, or resume it; returns the agent's file.

    `demos` are stores to learn from beside practice: demonstrations, or the practice of other agents. `about` describes
    the agent and what it was made of, for `config.json`; `made_of` are the files among that. `save` writes an agent to
    a file.
    """
    require_possible(config)
    torch.set_num_threads(config.threads)
    with run_of(out, demos, config, about) as run, closing(make_env()) as env:
        torch.manual_seed(config.seed)
        agent = make_agent()
        require_world(agent, env.spec)
        used = used_of(run, agent, demos)
        prior = labelled(agent, demos, [n for _, n in used])
        require_memory(agent, config, prior)
        run.begin(fingerprints.of_stores(used) | fingerprints.of_files(made_of))
        with EpisodeStore.create(run.path / "episodes", env.spec) as store, ExitStack() as stack:
            practice = Practice(env, Learning(agent, config, prior), store)
            if config.overlap:
                practice.ahead = stack.enter_context(closing(Ahead(make_env, make_agent)))
            practice.snapshot = lambda steps: save(agent, snapshot_file(run.path, steps))
            practice.resume(run)
            practice.go(run)
        save(agent, run.path / "agent.pt")
    return run.path / "agent.pt"


FREE = ("refine.hopeless", "refine.lead", "refine.snapshot_every", "refine.threads")  # may change on resuming
GROWS = ("refine.steps",)


def run_of(
    out: Path, demos: Sequence[Path], config: RefineConfig, about: dict[str, Any], parts: Sequence[str] = outputs.WHOLE
) -> Run:
    """The run in the folder `out`, of which an actor or a learner holds only a part."""
    described = {"demos": named(demos), "refine": config, **about}
    return Run(out, "refine", described, free=FREE, grows=GROWS, parts=parts)


def require_world(agent: Agent, spec: Spec) -> None:
    """Raise unless the agent's policy is of the world of `spec`."""
    blind = not agent.policy.sees_images
    agent.policy.spec.require(spec, "the policy", "the world", state_only=blind, any_limit=True)


def require_memory(agent: Agent, config: RefineConfig, prior: Sequence[Episode]) -> None:
    """Raise unless so much practice as `config` asks for, beside the demonstrations, fits into memory."""
    pictures = getattr(agent, "learns_from_images", False)
    held = [v for e in prior for k, v in e.obs.items() if pictures or not k.startswith("image/")]
    held += [v for e in prior for v in (e.action, *e.extras.values())]
    row = sum(v.nbytes for v in held) / sum(len(e) + 1 for e in prior)
    remedy = "practise for fewer --steps" + (", with fewer cameras or a smaller --image-size" if pictures else "")
    memory.require(2 * row * config.steps, f"the replay of {config.steps:,} steps", remedy)  # it doubles as it grows


def require_possible(config: RefineConfig) -> None:
    """Raise where a number makes no sense."""
    ranges.require(config)
    if config.base_steps > config.steps > 0 and not config.offline_updates:
        raise RobotRLError(
            f"of {config.steps} steps the base alone would play all, as base_steps is {config.base_steps}, and nothing "
            "be learned: practise longer, or lower --base-steps"
        )


def snapshot_file(out: Path, steps: int) -> Path:
    """Where the run in the folder `out` keeps its agent as it was after `steps`."""
    file = Path(out) / "snapshots" / f"{steps}.pt"
    file.parent.mkdir(exist_ok=True)
    return file


class Learning:
    """An agent, what it has seen, and how many gradient steps that makes due."""

    def __init__(self, agent: Agent, config: RefineConfig, demos: Sequence[Episode]) -> None:
        look = partial(looked_along, agent.policy) if agent.policy.sees_images else None
        self.agent, self.config, self.replay = agent, config, Replay(getattr(agent, "learns_from_images", False), look)
        self.steps = self.updates = 0
        self._remembered = _form(demos[0].extras) if demos else {}
        for demo in demos:
            self.replay.demos.add(demo)

    def take(self, episode: Episode) -> None:
        """See one more episode of practice; raises where its rewards are of another convention."""
        if not sparse(episode):
            raise RobotRLError(
                f"practice gave the rewards {np.unique(episode.reward)[:5]}, but {CONVENTION}: mend the world, or who "
                "judges it. Nothing was learned from this episode."
            )
        self._require_remembered(episode)
        self.replay.remember(episode)
        self.steps += len(episode)

    def _require_remembered(self, episode: Episode) -> None:
        """Raise where an episode lacks what this agent remembers while it acts, as one of another agent does."""
        form = _form(episode.extras)
        if wrong := [key for key, shape in self._remembered.items() if form.get(key) != shape]:
            raise RobotRLError(
                f"an episode of practice remembers {form or 'nothing'}, and this agent needs {', '.join(wrong)} as "
                f"{self._remembered}: another agent played it. Nothing was learned from it; begin a new run"
            )

    @property
    def due(self) -> int:
        """Gradient steps that are still to be made for what was seen."""
        c, owed = self.config, self.config.offline_updates
        if self.steps >= c.base_steps and self.replay.online.episodes:
            owed += c.first_updates + int(c.utd * (self.steps - c.base_steps))
        return max(owed - self.updates, 0)

    def learn(self, most: int | None = None) -> Metrics:
        """The gradient steps that are due, `most` of them at most; the means of what they report."""
        self._require_some_success()
        seen: dict[str, list[float]] = defaultdict(list)
        for _ in range(self.due if most is None else min(self.due, most)):
            for key, value in self.agent.update(self.replay).items():
                seen[key].append(value)
            self.updates += 1
        means = {key: float(np.mean(values)) for key, values in seen.items()}
        if wrong := [key for key, mean in means.items() if not np.isfinite(mean)]:
            raise RobotRLError(
                f"{', '.join(wrong)} became {means[wrong[0]]} near gradient step {self.updates}; what was saved before "
                "is kept. Lower the learning rates in a new run."
            )
        return {"updates": float(self.updates), **means}

    def _require_some_success(self) -> None:
        """Raise where many episodes of the base brought not one success: no refiner here learns from that."""
        played, hopeless = self.replay.online.episodes, self.config.hopeless
        if hopeless and self.due and played >= hopeless and not self.replay.online.successes:
            raise RobotRLError(
                f"none of the first {played} episodes succeeded, so there is nothing to refine. Give the base more "
                "demonstrations or train it longer, let somebody help (--human.skill), or go on all the same with "
                "--hopeless 0."
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the episodes, which have their own store."""
        counters = {"episodes": self.replay.online.episodes, "steps": self.steps, "updates": self.updates}
        return {**counters, "agent": self.agent.state_dict()}

    @fitting.restores
    def load_state_dict(self, state: dict[str, Any], store: EpisodeStore) -> None:
        """Go on where `state_dict` was taken; the episodes are those of `store`."""
        if len(store) < state["episodes"]:
            raise RobotRLError(f"{store.path} has lost episodes: {state['episodes']} were saved. Start a new run.")
        for i in range(state["episodes"]):
            self.take(store.read(i, images=self.agent.policy.sees_images))
        self.updates = state["updates"]
        self.agent.load_state_dict(state["agent"])


class Practice:
    """One agent that plays and learns in turn."""

    def __init__(self, env: Env, learning: Learning, store: EpisodeStore) -> None:
        self.env, self.learning, self.store = env, learning, store
        self.snapshot: Callable[[int], None] = lambda steps: None
        self.ahead: Ahead | None = None
        self.acting: dict[str, Any] | None = None  # with `ahead`: the agent that plays the next episode

    def resume(self, run: Run) -> None:
        """Go back to the last save, or the one before. What was stored since, two at most, is learned from first."""
        state = run.load()
        if state is not None and "acting" in state:
            self.learning.load_state_dict(state, self.store)
            self.acting = state["acting"]
        since = len(self.store) - self.learning.replay.online.episodes
        if since > 2 or (state is not None and "acting" not in state):
            raise RobotRLError(f"actor and learner practised in {run.path}; go on with --role actor and learner")
        run.rewind(self.learning.steps if state else -1)

    def go(self, run: Run) -> None:
        """Practise until the configured number of steps is reached."""
        learning, config = self.learning, self.learning.config
        if learning.updates < config.offline_updates:
            run.log(learning.steps, learning.learn())
            run.save(self.state_dict())
        shown = progress("refine", config.steps, learning.steps)
        while learning.steps < config.steps:
            index = learning.replay.online.episodes
            episode = self._stored(index) if index < len(self.store) else self._played(index)
            learning.take(episode)
            run.log(learning.steps, described(index, episode) | learning.learn())
            if mark := snapshot_due(config, learning.steps, len(episode)):
                self.snapshot(mark)
            run.save(self.state_dict())
            shown.update(len(episode))
        shown.close()

    def _stored(self, index: int) -> Episode:
        """The episode that was stored before the run was stopped, and not learned from any more."""
        if self.ahead is not None:
            self._start_ahead(index + 1)
        return self.store.read(index, images=self.learning.agent.policy.sees_images)

    def _played(self, index: int) -> Episode:
        """Play an episode, and store it before anything else is done with it."""
        config, agent = self.learning.config, self.learning.agent
        if self.ahead is None:
            episode = rollout(self.env, agent, explore=True, seed=practice_seed(config, index))
        else:
            if not self.ahead.playing:
                self.ahead.start(self.acting or agent.state_dict(), practice_seed(config, index))
            episode = self.ahead.receive()
            self._start_ahead(index + 1)
        episode = remembered(episode, agent)
        self.store.append(episode)
        return episode

    def _start_ahead(self, index: int) -> None:
        """Let the agent play the episode `index` as it is now, before it learns from the last one."""
        assert self.ahead is not None
        self.acting = deepcopy(self.learning.agent.state_dict())
        if index >= len(self.store):  # else it is played already
            self.ahead.start(self.acting, practice_seed(self.learning.config, index))

    def state_dict(self) -> dict[str, Any]:
        """Everything but the episodes, which have their own store."""
        return {**self.learning.state_dict(), "acting": self.acting}


def _form(extras: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """What is remembered in a step, and its shape."""
    return {key: value.shape[1:] for key, value in extras.items()}


def practice_seed(config: RefineConfig, index: int) -> int:
    """Of the practice episode `index`."""
    return episode_seed("refine", config.seed, index)


def remembered(episode: Episode, agent: Agent) -> Episode:
    """The episode, with what the agent has to say of it afterwards where it remembered nothing while acting."""
    return episode if episode.extras else replace(episode, extras=agent.label(episode))


def snapshot_due(config: RefineConfig, steps: int, length: int) -> int:
    """The mark that the last episode, of `length`, passed on the way to `steps`; 0: none."""
    every = config.snapshot_every
    return steps // every * every if every and steps // every > (steps - length) // every else 0


def described(index: int, episode: Episode) -> Metrics:
    """What `metrics.jsonl` says of an episode; "intervened" counts the human's steps."""
    return {
        "episode": float(index),
        "success": float(episode.success),
        "length": float(len(episode)),
        "intervened": float(episode.intervened.sum()),
        "intervention_rate": float(episode.intervened.mean()),
    }


class Ahead:
    """A second process that plays while the first one learns."""

    def __init__(self, make_env: MakeEnv, make_agent: Callable[[], Agent]) -> None:
        self._replacement = partial(Worker, _play, make_env, make_agent)
        self._worker, self._losses = self._replacement(), Losses()
        self._asked: tuple[bytes, int] = (b"", 0)
        self.playing = False

    def start(self, acting: dict[str, Any], seed: int) -> None:
        """Begin the episode of `seed`, played by an agent in the state `acting`."""
        packed = io.BytesIO()  # a state sent as it is would be shared, and go on learning
        torch.save(acting, packed)
        self._asked, self.playing = (packed.getvalue(), seed), True
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
