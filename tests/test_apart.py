"""Actor and learner in two processes: whatever is killed, no episode is lost or doubled, and bad weights never play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import checkpoint
from robot_rl import apart, sealed
from robot_rl.apart import Inbox, digest, publish, require_sound
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.evaluate import evaluate
from robot_rl.refine import RefineConfig, practice_seed
from robot_rl.rollout import rollout
from robot_rl.runs import Run
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv
from tests.test_agents import AGENTS
from tests.test_dsrl import replay_of

ROOT = Path(__file__).parents[1]
KILLS = 10
CONFIG = RefineConfig(steps=3000, base_steps=500, first_updates=300, utd=2, threads=1, lead=100)
RUN = """
import sys
from functools import partial
from pathlib import Path
from policies import checkpoint
from robot_rl import apart
from robot_rl.checkpoints import save_agent
from robot_rl.cli import DEMOS
from sim.toy import ToyEnv
from tests.test_apart import CONFIG, built
role, out, demos, base = sys.argv[1], *map(Path, sys.argv[2:])
about = {"agent": DEMOS["toy"].agent}
if role == "actor":
    apart.act(out, [demos], ToyEnv, partial(built, base), CONFIG, about)
else:
    apart.learn(out, [demos], partial(built, base), CONFIG, about, save_agent)
"""


def built(base):
    from robot_rl.cli import DEMOS

    return DEMOS["toy"].agent.build(checkpoint.load(base))


def start(role, *places):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, role, *map(str, places)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def test_killed_ten_times_the_run_completes_and_no_episode_is_lost_or_doubled(toy_demos, toy_policy, tmp_path):
    out, rng, kills = tmp_path / "run", np.random.default_rng(0), 0
    processes = {role: start(role, out, toy_demos, toy_policy) for role in ("actor", "learner")}
    deadline = time.monotonic() + 500
    while (running := [r for r, p in processes.items() if p.poll() is None]) and time.monotonic() < deadline:
        time.sleep(rng.uniform(1.5, 3.5) if kills < KILLS else 0.5)
        if kills < KILLS:
            victim = running[rng.integers(len(running))]
            if processes[victim].poll() is None:
                processes[victim].kill()
                processes[victim].wait()
                processes[victim] = start(victim, out, toy_demos, toy_policy)
                kills += 1
    assert [p.wait() for p in processes.values()] == [0, 0] and kills == KILLS
    store = EpisodeStore.open(out / "episodes")
    assert [e.meta["seed"] for e in store] == [practice_seed(CONFIG, i) for i in range(len(store))]
    told = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in told if "episode" in row] == list(range(len(store)))
    learned = torch.load(out / "checkpoint.pt", weights_only=True)
    steps = sum(len(e) for e in store)
    assert learned["episodes"] == len(store) and learned["steps"] == steps >= CONFIG.steps
    assert learned["updates"] == CONFIG.first_updates + CONFIG.utd * (steps - CONFIG.base_steps)
    after = evaluate(ToyEnv, partial(load_agent, out / "agent.pt"), episodes=100)["summary"]["successes"]
    assert after >= 85  # as without: test_residual.py


def played(out, demos, base, config):
    """A folder in which an actor has played all of its episodes."""
    apart.act(out, [demos], ToyEnv, partial(built, base), replace(config, lead=config.steps), {})
    return EpisodeStore.open(out / "episodes")


def learn(out, demos, base, config):
    apart.learn(out, [demos], partial(built, base), replace(config, lead=config.steps), {}, save_agent)


def test_a_late_learner_takes_each_snapshot_at_its_own_steps_and_a_killed_one_those_it_missed(
    toy_demos, toy_policy, tmp_path, monkeypatch
):
    config = RefineConfig(steps=400, base_steps=60, first_updates=20, utd=1, threads=1, snapshot_every=100)
    store = played(tmp_path, toy_demos, toy_policy, config)
    ends = np.cumsum([len(episode) for episode in store])
    due = {mark: 20 + int(ends[ends >= mark][0]) - 60 for mark in (100, 200, 300, 400)}
    real, taken = apart.snapshot_file, []

    def killed(path, steps):
        if steps == 200 and len(taken) < 4:  # asked whether it is there, then where to put it
            taken.append(steps)
            raise KeyboardInterrupt
        return real(path, steps)

    monkeypatch.setattr(apart, "snapshot_file", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            learn(tmp_path, toy_demos, toy_policy, config)
    taken += [0] * 4
    learn(tmp_path, toy_demos, toy_policy, config)
    made = {int(f.stem): load_agent(f).updates for f in (tmp_path / "snapshots").iterdir()}
    assert made == due
    assert load_agent(tmp_path / "agent.pt").updates == due[400]


def test_what_demonstrations_teach_is_learned_before_anything_is_played(toy_demos, toy_policy, tmp_path, monkeypatch):
    config = replace(CONFIG, steps=60, base_steps=0, first_updates=0, utd=0, offline_updates=30)
    waits = []

    def give_up(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            raise TimeoutError

    monkeypatch.setattr(apart.time, "sleep", give_up)
    with pytest.raises(TimeoutError):
        played(tmp_path, toy_demos, toy_policy, config)
    assert len(EpisodeStore.open(tmp_path / "episodes")) == 0, "no weights, no play"
    agent = built(toy_policy)
    seen = []
    monkeypatch.setattr(type(agent), "update", lambda self, replay: seen.append(len(replay.online)) or {})
    with EpisodeStore.create(tmp_path / "episodes", ToyEnv().spec) as store:  # as if it had played all the same
        while sum(map(len, store)) < config.steps:
            store.append(rollout(ToyEnv(), agent, explore=True, seed=len(store)))
    learn(tmp_path, toy_demos, toy_policy, config)
    assert seen == [0] * 30


@pytest.fixture
def published(toy_policy, tmp_path):
    """An agent that has learned, its weights as published, and another that waits for them."""
    torch.manual_seed(0)
    agent, actor = (AGENTS["residual"].build(checkpoint.load(toy_policy)) for _ in range(2))
    replay = replay_of(agent)
    for _ in range(10):
        agent.update(replay)
    with Run(tmp_path / "run", "refine", {}) as run:
        publish(agent, run, steps=77)
    return agent, actor, tmp_path / "run" / apart.WEIGHTS


def test_weights_that_were_published_play_as_they_did(published):
    agent, actor, file = published
    inbox = Inbox(file, actor)
    assert inbox.look() and inbox.steps == 77 and not inbox.look()
    mine, its = (rollout(ToyEnv(), a, explore=False, seed=1).action for a in (agent, actor))
    np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("fault", ["nan", "shape", "hash", "torn", "other"])
def test_unsound_weights_are_refused_and_the_old_ones_play_on(published, fault):
    _, actor, file = published
    inbox = Inbox(file, actor)
    assert inbox.look()
    before, taken = rollout(ToyEnv(), actor, explore=False, seed=1).action, inbox.taken
    data = torch.load(file, weights_only=True)
    weight = data["agent"]["actor"]["0.weight"]
    if fault == "nan":
        weight[0, 0] = float("nan")
    if fault == "shape":
        data["agent"]["actor"]["0.weight"] = weight[:5].clone()
    data["hash"] = "0" if fault == "hash" else digest(data["agent"])
    sealed.write({"something": 1} if fault == "other" else data, file)
    if fault == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    assert not inbox.look() and inbox.refused and inbox.taken == taken
    assert {"nan": "finite", "shape": "0.weight", "hash": "hash", "torn": "no hash", "other": "something"}[fault] in (
        inbox.refused
    )
    np.testing.assert_array_equal(before, rollout(ToyEnv(), actor, explore=False, seed=1).action)


def test_a_learner_that_diverges_stops_and_says_so(toy_demos, toy_policy, tmp_path):
    from robot_rl.refine import Learning, labelled

    agent = built(toy_policy)
    learning = Learning(agent, CONFIG, labelled(agent, [toy_demos]))
    for seed in range(30):
        learning.take(rollout(ToyEnv(), agent, explore=True, seed=seed))
    agent.update = lambda replay: {"critic_loss": float("nan")}
    with pytest.raises(RobotRLError, match="critic_loss became nan"):
        learning.learn()


def test_sound_weights_pass():
    state = {"net": {"w": torch.ones(2)}, "optimizer": {}, "updates": 3}
    require_sound({"agent": state, "hash": digest(state), "steps": 0}, state)
