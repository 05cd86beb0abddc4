"""What may change between two calls of a run, and what may not; and that what is refused leaves no run behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import checkpoint
from policies.flow import FlowConfig
from policies.vision import VisionConfig
from robot_rl import collect as collecting
from robot_rl import memory, sealed
from robot_rl.checkpoints import save_agent
from robot_rl.cli import main
from robot_rl.episodes import EpisodeStore
from robot_rl.pretrain import PretrainConfig, pretrain
from robot_rl.refine import RefineConfig, refine
from robot_rl.types import RobotRLError
from sim.operators import operator_for
from sim.toy import ToyEnv, ToyOperator
from tests.conftest import TINY
from tests.test_refine import AGENT, built, same

CONFIG = RefineConfig(steps=300, base_steps=100, first_updates=20, utd=0.5, threads=1)
TRAIN = PretrainConfig(steps=20, batch=8, warmup=5, save_every=5)


def practise(out, demos, policy, config=CONFIG, made_of=()):
    return refine(out, [demos], ToyEnv, partial(built, policy), config, {"agent": AGENT}, save_agent, made_of)


def config_of(run):
    return json.loads((run / "config.json").read_text())


def call(*words):
    return main([str(word) for word in words])


def test_practice_that_goes_on_longer_equals_the_straight_longer_run(toy_demos, toy_policy, tmp_path):
    config = CONFIG
    practise(tmp_path / "straight", toy_demos, toy_policy, config)
    practise(tmp_path / "grown", toy_demos, toy_policy, replace(config, steps=160, hopeless=30))
    practise(tmp_path / "grown", toy_demos, toy_policy, replace(config, snapshot_every=0))
    straight, grown = tmp_path / "straight", tmp_path / "grown"
    assert (straight / "metrics.jsonl").read_text() == (grown / "metrics.jsonl").read_text()
    ends = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (straight, grown)]
    assert same(*ends)
    about = config_of(grown)
    assert about["config"] == config_of(straight)["config"]
    assert about["resumed"][0]["changed"] == ["refine.steps: 300 here, 160 there", "refine.hopeless: 20 here, 30 there"]
    with pytest.raises(RobotRLError, match="refine.steps 300, which may grow on resuming and not fall to 200"):
        practise(grown, toy_demos, toy_policy, replace(config, steps=200))
    with pytest.raises(RobotRLError, match="refine.utd: 3 here, 0.5 there"):
        practise(grown, toy_demos, toy_policy, replace(config, utd=3))


def test_training_that_goes_on_longer_is_on_the_longer_schedule(toy_demos, tmp_path):
    run = tmp_path / "run"
    pretrain(run, toy_demos, TINY, TRAIN, checkpoint.save)
    pretrain(run, toy_demos, TINY, replace(TRAIN, steps=40, save_every=10), checkpoint.save)
    pretrain(tmp_path / "straight", toy_demos, TINY, replace(TRAIN, steps=40, save_every=10), checkpoint.save)
    rates = [
        {row["step"]: row["learning_rate"] for row in map(json.loads, (r / "metrics.jsonl").read_text().splitlines())}
        for r in (run, tmp_path / "straight")
    ]
    assert list(rates[0]) == [5, 10, 15, 20, 30, 40] and rates[0][20] == 0 and rates[0][30] == rates[1][30] > 0
    with pytest.raises(RobotRLError, match="may grow on resuming and not fall to 20"):
        pretrain(run, toy_demos, TINY, TRAIN, checkpoint.save)


MISTAKES = {
    "refine": [
        ("--demos", "{demos}z"), ("--policy", "{policy}z"), ("--demos", "{failures}"), ("--utd", "-1"),
        ("--steps", "1000000000"), ("--robot", "nowhere.yaml"), ("agent:residual", "--agent.execute", "9"),
    ],
    "pretrain": [("--batch", "0"), ("--store", "{demos}z"), ("--device", "warp"), ("--store", "{unbuilt}"),
                 ("policy:flow", "policy.vision:vision-config")],
    "distil": [("--demos", "{demos}z"), ("--agent", "{policy}z"), ("--demos", "{unbuilt}")],
    "reward": [("--store", "{demos}z"), ("--negatives", "{demos}z"), ("--store", "{failures}")],
}  # fmt: skip
WORDS = {
    "refine": ("--policy", "{policy}", "--demos", "{demos}"),
    "pretrain": ("--store", "{demos}", "--evaluate", "2", "--steps", "3"),
    "distil": ("--agent", "{policy}", "--demos", "{demos}"),
    "reward": ("--store", "{demos}"),
}


@pytest.fixture(scope="module")
def places(toy_demos, toy_policy, tmp_path_factory):
    """Stores that somebody may name by mistake."""
    folder = tmp_path_factory.mktemp("places")
    spec = EpisodeStore.open(toy_demos).spec
    failed, unbuilt = folder / "failed", folder / "unbuilt"
    for path, world in ((failed, "toy"), (unbuilt, "robomimic:Lift")):
        with EpisodeStore.create(path, replace(spec, world=world)) as store:
            for episode in list(EpisodeStore.open(toy_demos))[:3]:
                store.append(replace(episode, reward=0 * episode.reward) if path == failed else episode)
    return {"demos": toy_demos, "policy": toy_policy, "failures": failed, "unbuilt": unbuilt}


@pytest.mark.parametrize("verb", MISTAKES)
def test_what_is_refused_leaves_no_run_behind(verb, places, tmp_path, capsys):
    for wrong in MISTAKES[verb]:
        words = [*WORDS[verb], *wrong]
        if wrong[0] in WORDS[verb]:
            at = words.index(wrong[0])
            words = [*words[:at], *words[at + 2 :]]
        assert call(verb, "--out", tmp_path / "deep" / "run", *(word.format(**places) for word in words)) == 2, wrong
        said = capsys.readouterr().err
        assert said.startswith("robot-rl: ") and "Traceback" not in said
        assert not list(tmp_path.iterdir()), (wrong, said)


def test_practice_and_training_say_why(places, tmp_path, capsys):
    refine = ("refine", "--out", tmp_path / "r", "--policy", places["policy"], "--demos")
    assert call(*refine, places["failures"]) == 2
    said = capsys.readouterr().err
    assert "none of the 3 episodes" in said and "another goal" in said and "robot-rl reward" in said
    assert call(*refine, places["demos"], "--steps", 10**9) == 2
    assert "the replay of 1,000,000,000 steps would need" in (said := capsys.readouterr().err) and "GiB" in said
    unbuilt = ("pretrain", "--out", tmp_path / "p", "--store", places["unbuilt"], "--steps", 1, "--evaluate")
    assert call(*unbuilt, 2) == 2
    assert "unknown world 'robomimic:Lift'" in (said := capsys.readouterr().err) and "--evaluate 0" in said
    assert call(*unbuilt, 0) == 0, "it can be trained on all the same"
    assert call("pretrain", "--out", tmp_path / "f", "--store", places["failures"], "--steps", 1) == 0
    assert "none of 3 episodes is a success, and refiners need some" in capsys.readouterr().err


def copied(store, place):
    shutil.copytree(store, place)
    return place


def test_a_resume_whose_data_or_base_is_another_is_refused(toy_demos, toy_policy, tmp_path):
    demos, policy = copied(toy_demos, tmp_path / "demos"), shutil.copy(toy_policy, tmp_path / "policy.pt")
    pretrain(tmp_path / "p", demos, TINY, TRAIN, checkpoint.save)
    practise(tmp_path / "r", demos, policy, replace(CONFIG, steps=150), [policy])
    with EpisodeStore.create(demos, EpisodeStore.open(demos).spec) as store:
        first = store[0]
        store.append(first)
    with pytest.raises(RobotRLError, match=r"demos is not what the run .* began with \(60 episodes, .* 61 episodes, "):
        pretrain(tmp_path / "p", demos, TINY, replace(TRAIN, steps=30), checkpoint.save)
    practise(tmp_path / "r", demos, policy, made_of=[policy])  # practice of others may have grown: its beginning counts
    practise(tmp_path / "straight", toy_demos, toy_policy)
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == (tmp_path / "straight" / "metrics.jsonl").read_text()
    shutil.rmtree(demos)
    with EpisodeStore.create(demos, EpisodeStore.open(toy_demos).spec) as store:
        for episode in EpisodeStore.open(toy_demos):
            store.append(replace(episode, action=-episode.action))
    with pytest.raises(RobotRLError, match="demos is not what the run"):
        practise(tmp_path / "r", demos, policy, replace(CONFIG, steps=400), [policy])
    shutil.rmtree(demos)
    copied(toy_demos, demos)
    sealed.write(sealed.read(Path(policy)) | {"more": 1}, Path(policy))
    with pytest.raises(RobotRLError, match="policy.pt is not what the run"):
        practise(tmp_path / "r", demos, policy, replace(CONFIG, steps=400), [policy])


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    seen = partial(ToyEnv, image=True)
    demos = collecting.collect(tmp_path / "demos", seen().spec, seen, partial(ToyOperator, 1.0), episodes=3)
    monkeypatch.setattr(memory, "available", lambda: 2**14)
    eyes = replace(TINY, vision=VisionConfig())
    with pytest.raises(RobotRLError, match=r"pictures each of top of 32 x 32 pixels would need .* GiB .*--image-size"):
        pretrain(tmp_path / "run", demos, eyes, TRAIN, checkpoint.save)
    pretrain(tmp_path / "blind", demos, TINY, TRAIN, checkpoint.save)
    assert call("reward", "--out", tmp_path / "reward", "--store", demos) == 2
    assert not (tmp_path / "run").exists() and not (tmp_path / "reward").exists()


def test_what_is_available_is_what_the_machine_and_its_container_have(tmp_path, monkeypatch):
    whole = memory.available()
    assert 2**26 < whole < 2**46
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available() == 2000
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 500\n")
    assert memory.available() == 2500, "the idle page cache is given back"
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() > 2**26


def test_attempts_are_told_beside_successes(tmp_path, capsys):
    assert (
        call("collect", "--out", tmp_path / "d", "--world", "toy", "--episodes", 5, "--skill", 0.1, "--workers", 1) == 0
    )
    attempts = 1 + max(e.meta["attempt"] for e in EpisodeStore.open(tmp_path / "d"))
    assert attempts > 5 and f"5 successes in {attempts} attempts" in capsys.readouterr().out


def test_an_arm_that_cannot_is_refused_by_name_before_anything_is_played(tmp_path, capsys):
    assert call("collect", "--out", tmp_path / "d", "--arm", "Sawyer", "--episodes", 1) == 2
    assert "nobody can demonstrate with Sawyer" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_slow_fingers_hold_before_the_hand_is_raised():
    """A Jaco's take two seconds: 4 of 279 attempts succeeded as long as the hand did not wait for them."""
    from robot_rl.rollout import rollout
    from sim.robosuite_env import RobosuiteConfig

    env = RobosuiteConfig("Lift", "Jaco").build()
    operator = operator_for(env.spec, 1.0)
    episodes = [rollout(env, operator, explore=False, seed=seed) for seed in range(4)]
    env.close()
    assert sum(e.success for e in episodes) >= 3
    assert all(np.isin(e.action[:, 6], (-1, 0, 1)).all() for e in episodes)


def test_a_policy_of_another_kind_is_another_run(toy_demos, tmp_path):
    pretrain(tmp_path / "run", toy_demos, TINY, TRAIN, checkpoint.save)
    with pytest.raises(RobotRLError, match="policy.horizon: 16 here, 8 there"):
        pretrain(tmp_path / "run", toy_demos, FlowConfig(), TRAIN, checkpoint.save)
