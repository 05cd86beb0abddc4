"""Actor and learner as two processes, on one machine or on two that share a folder: `refine --role actor|learner`.

They exchange files alone, so that either may be killed and started again: the actor appends whole episodes to the
store, the learner reads what is new and publishes weights. An episode is in the store once or not at all, and its place
fixes its seed; weights are taken only if they are whole, finite and of the right shapes, else the old ones play on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from robot_rl import fingerprints, fitting, journal, outputs, sealed
from robot_rl.episodes import EpisodeStore
from robot_rl.progress import progress
from robot_rl.refine import (
    Learning,
    RefineConfig,
    described,
    labelled,
    practice_seed,
    remembered,
    require_memory,
    require_possible,
    require_world,
    run_of,
    snapshot_due,
    snapshot_file,
    used_of,
)
from robot_rl.rollout import rollout
from robot_rl.runs import Run
from robot_rl.types import Agent, Env, RobotRLError

POLL = 0.2  # between looks for new files [s]
PATIENCE = 30.0  # between complaints of waiting [s]
PUBLISH = 50  # gradient steps between weights (HIL-SERL's)
SAVE = 500  # gradient steps between the learner's checkpoints
WEIGHTS = "weights.pt"


def act(
    out: Path,
    demos: Sequence[Path],
    make_env: Callable[[], Env],
    make_agent: Callable[[], Agent],
    config: RefineConfig,
    about: dict[str, Any],
    made_of: Sequence[Path] = (),
) -> None:
    """Play practice episodes into the folder `out` until there are enough, always with the newest sound weights."""
    require_possible(config)
    torch.set_num_threads(1)
    with run_of(out, demos, config, about, (outputs.PLAY,)) as run, closing(make_env()) as env:
        torch.manual_seed(config.seed)
        agent = make_agent()
        require_world(agent, env.spec)
        used = used_of(run, agent, demos)
        run.begin(fingerprints.of_stores(used) | fingerprints.of_files(made_of))
        inbox = Inbox(run.path / WEIGHTS, agent)
        with EpisodeStore.create(run.path / "episodes", env.spec) as store:
            steps = sum(len(store.read(i, images=False)) for i in range(len(store)))
            shown = progress("act", config.steps, steps)
            while steps < config.steps:
                news = _wait_for_weights(inbox, steps, config)
                index = len(store)
                episode = rollout(env, agent, explore=True, seed=practice_seed(config, index))
                store.append(remembered(episode, agent))
                steps += len(episode)
                shown.update(len(episode))
                journal.append(run.path / "actor.jsonl", {"step": steps, **described(index, episode), **news})
            shown.close()


def _wait_for_weights(inbox: Inbox, steps: int, config: RefineConfig) -> dict[str, Any]:
    """Take what is new; wait for it where the actor is too far ahead. Returns what there is to say of it."""
    asked = time.monotonic()
    while True:
        inbox.look(steps)
        begun = inbox.taken or not config.offline_updates
        if begun and steps - max(inbox.steps, config.base_steps) <= config.lead:
            return {"weights": inbox.taken, "refused": inbox.refused}
        if time.monotonic() - asked > PATIENCE:
            tqdm.write(f"waiting for the learner: {steps} steps are played, weights have learned from {inbox.steps}")
            asked = time.monotonic()
        time.sleep(POLL)


def learn(
    out: Path,
    demos: Sequence[Path],
    make_agent: Callable[[], Agent],
    config: RefineConfig,
    about: dict[str, Any],
    save: Callable[[Any, Path], None],
    made_of: Sequence[Path] = (),
) -> Path:
    """Learn from the episodes that an actor plays into the folder `out`, until it is done; returns the agent's file."""
    require_possible(config)
    torch.set_num_threads(config.threads)
    with run_of(out, demos, config, about, (outputs.LEARN,)) as run:
        torch.manual_seed(config.seed)
        agent = make_agent()
        used = used_of(run, agent, demos)
        prior = labelled(agent, demos, [n for _, n in used])
        require_memory(agent, config, prior)
        run.begin(fingerprints.of_stores(used) | fingerprints.of_files(made_of))
        learning = Learning(agent, config, prior)
        store = _wait_for_store(run.path / "episodes")
        if (state := run.load()) is not None:
            learning.load_state_dict(state, store)
        run.rewind(learning.steps if state else -1)
        mark = _missing_snapshot(learning, run)  # to be taken once everything due was learned
        through = 0  # the step up to which everything due was learned and published
        while learning.steps < config.steps or learning.due or mark:
            if not mark and learning.updates >= config.offline_updates:
                mark = _take_new(learning, store, run)
            if learning.due:
                before = learning.updates
                metrics = learning.learn(PUBLISH)
                if not learning.due or learning.updates // SAVE > before // SAVE:
                    run.save(learning.state_dict())
                    run.log(learning.steps, metrics)
            if mark and not learning.due:
                save(agent, snapshot_file(run.path, mark))
                mark = 0
            if not learning.due and through == learning.steps:
                time.sleep(POLL)
                continue
            through = through if learning.due else learning.steps
            publish(agent, run, through)
        save(agent, run.path / "agent.pt")
    return run.path / "agent.pt"


def _wait_for_store(path: Path) -> EpisodeStore:
    if not (path / ".zattrs").exists():
        tqdm.write(f"waiting for an actor to make {path}")
    while not (path / ".zattrs").exists():  # the actor makes it
        time.sleep(POLL)
    return EpisodeStore.open(path)


def _take_new(learning: Learning, store: EpisodeStore, run: Run) -> int:
    """See the episodes that came since, as far as the next one that passes a snapshot's mark; that mark, or 0."""
    store.refresh()
    for i in range(learning.replay.online.episodes, len(store)):
        episode = store.read(i, images=learning.agent.policy.sees_images)
        learning.take(episode)
        run.log(learning.steps, described(i, episode))
        if mark := snapshot_due(learning.config, learning.steps, len(episode)):
            return mark
    return 0


def _missing_snapshot(learning: Learning, run: Run) -> int:
    """The mark that was passed last, where the learner was stopped before its snapshot was taken; else 0."""
    mark = snapshot_due(learning.config, learning.steps, learning.steps)
    return mark if mark and not snapshot_file(run.path, mark).exists() else 0


def publish(agent: Agent, run: Run, steps: int) -> None:
    """Write the weights, their hash, and the step up to which everything due was learned."""
    state = agent.state_dict()
    run.save({"agent": state, "hash": digest(state), "steps": steps}, WEIGHTS)


class Inbox:
    """Where an actor finds weights: `look` takes new ones if they are sound."""

    def __init__(self, path: Path, agent: Agent) -> None:
        self.path, self.agent = path, agent
        self.steps, self.taken, self.refused = 0, "", ""  # hash of what plays; why the newest does not
        self._seen: tuple[int, int] | None = None

    def look(self, most: int = fitting.MOST_COUNTED) -> bool:
        """Whether new weights were taken; why not is in `refused`, and printed once.

        They cannot have learned from more than `most` steps, which were played, nor from fewer than those that play.
        """
        if not self.path.exists():
            return False
        stat = self.path.stat()
        if (stat.st_mtime_ns, stat.st_ino) == self._seen:
            return False
        try:
            data = sealed.read(self.path)
            require_sound(data, self.agent.state_dict(), self.steps, most)
            fitting.loaded(self.agent, data["agent"], "the state of the agent")
        except RobotRLError as error:  # it is looked at again: a share may show a file before it is whole
            if str(error) != self.refused:
                tqdm.write(f"weights refused, the old ones play on: {error}")
            self.refused = str(error)
            return False
        self._seen = stat.st_mtime_ns, stat.st_ino
        self.steps, self.taken, self.refused = data["steps"], data["hash"], ""
        return True


def require_sound(data: dict[str, Any], like: dict[str, Any], least: int = 0, most: int = fitting.MOST_COUNTED) -> None:
    """Raise unless published weights are whole, finite, plausible, and of the form of the agent's own state `like`.

    The steps that they learned from lie in [`least`, `most`].
    """
    if not {"agent", "hash", "steps"} <= set(data):
        raise RobotRLError(f"these are no published weights; they hold {sorted(data)}")
    try:
        fitting.require_like(data["agent"], like)
    except RobotRLError as error:
        raise RobotRLError(f"learner and actor differ in --agent: {error}") from error
    if not isinstance(data["hash"], str) or digest(data["agent"]) != data["hash"]:
        raise RobotRLError("the weights are not those that were published: their hash differs")
    sealed.require_finite(data["agent"], "the weights")
    fitting.require_quiet(data["agent"], like)
    if type(data["steps"]) is not int or not 0 <= data["steps"] <= most:
        raise RobotRLError(
            f"the weights say that they learned from {data['steps']!r:.40} steps, of {most:,} that were played"
        )
    if data["steps"] < least:  # of a learner that goes on from its last save, and catches up
        raise RobotRLError(f"the weights learned from fewer steps than those that play, which saw {least:,}")


def digest(state: dict[str, Any]) -> str:
    """SHA-256 of every tensor and its name."""
    sha = hashlib.sha256()
    for name, tensor in fitting.tensors(state):
        sha.update(name.encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
