"""An actor plays on with the weights it has, whatever a share, a bug or an attacker puts in place of the next ones."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from policies import checkpoint
from robot_rl import sealed
from robot_rl.apart import Inbox, digest, publish
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.fitting import tensors
from robot_rl.refine import Learning, RefineConfig, labelled
from robot_rl.rollout import rollout
from robot_rl.runs import Run
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv
from tests.test_agents import AGENTS, practised
from tests.test_dsrl import replay_of


@pytest.fixture(scope="module")
def sent(toy_policy, tmp_path_factory):
    """What a learner publishes after some steps, and the agent."""
    torch.manual_seed(0)
    agent = AGENTS["residual"].build(checkpoint.load(toy_policy))
    replay = replay_of(agent)
    for _ in range(10):
        agent.update(replay)
    publish(agent, Run(tmp_path_factory.mktemp("run"), "refine", {}), steps=77)
    return agent, {"agent": agent.state_dict(), "hash": digest(agent.state_dict()), "steps": 77}


def setting(*path, to):
    def change(data):
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to(inner[path[-1]]) if callable(to) else to

    return change


def removing(*path):
    def change(data):
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


def huge(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[0] = 3e38
    return tensor


WEIGHT, OPTIMIZER = ("agent", "actor", "0.weight"), ("agent", "actor_optimizer")
FAULTS = {
    "steps of 1e18": (setting("steps", to=10**18), "steps"),
    "negative steps": (setting("steps", to=-1), "steps"),
    "steps that are true": (setting("steps", to=True), "steps"),
    "steps of text": (setting("steps", to="77"), "steps"),
    "more steps than were played": (setting("steps", to=1001), "of 1,000 that were played"),
    "weights of 3e38": (setting(*WEIGHT, to=huge), r"0\.weight reaches 3e\+38"),
    "weights of -1e9": (setting(*WEIGHT, to=lambda t: t - 1e9), r"0\.weight reaches 1e\+09"),
    "weights of bytes": (setting(*WEIGHT, to=lambda t: t.to(torch.uint8)), r"0\.weight"),
    "weights of doubles": (setting(*WEIGHT, to=lambda t: t.double()), r"0\.weight"),
    "a weight that is text": (setting(*WEIGHT, to="0"), r"0\.weight"),
    "a weight less": (removing(*WEIGHT), r"0\.weight is missing"),
    "a weight more": (setting("agent", "actor", to=lambda d: {**d, "more": torch.zeros(1)}), "more is unknown"),
    "a weight of 8 TiB": (setting(*WEIGHT, to=torch.zeros(1).expand(2**41)), "GiB"),
    "no agent": (setting("agent", to=[]), "the state is 0 values"),
    "an agent of numbers": (setting("agent", to=3), "the state is a int"),
    "an empty optimiser": (setting(*OPTIMIZER, to={}), "actor_optimizer"),
    "no optimiser": (removing(*OPTIMIZER), "actor_optimizer is missing"),
    "an optimiser of others": (setting(*OPTIMIZER, "param_groups", to=[]), "param_groups"),
    "an optimiser of garbage": (setting(*OPTIMIZER, "state", to={0: "x"}), r"state\.0"),
    "an optimiser of strangers": (setting(*OPTIMIZER, "state", to={999: {}}), r"state\.999"),
    "updates of 1e18": (setting("agent", "updates", to=10**18), "updates"),
    "updates of text": (setting("agent", "updates", to="3"), "updates"),
    "a random state cut short": (setting("agent", "random", to=lambda t: t[:9].clone()), "random"),
    "a random state of nonsense": (setting("agent", "random", to=lambda t: torch.full_like(t, 255)), "does not fit"),
    "no hash": (setting("hash", to=None), "hash"),
}


def actor_of(agent, file):
    """An actor that took sound weights from `file`."""
    actor = AGENTS["residual"].build(agent.policy)
    inbox = Inbox(file, actor)
    assert inbox.look(1000)
    return actor, inbox


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_f54_weights_that_are_no_weights_are_refused_and_the_old_ones_play_on(sent, tmp_path, fault):
    agent, data = sent
    file, (change, words) = tmp_path / "weights.pt", FAULTS[fault]
    sealed.write(data, file)
    actor, inbox = actor_of(agent, file)
    before = rollout(ToyEnv(), actor, explore=False, seed=1).action
    spoilt = deepcopy(data)
    change(spoilt)
    if fault not in ("no hash", "a weight of 8 TiB"):
        spoilt["hash"] = digest(spoilt["agent"]) if isinstance(spoilt["agent"], dict) else ""
    sealed.write(spoilt, file)
    with pytest.raises(RobotRLError, match=words):
        if not inbox.look(1000):
            raise RobotRLError(inbox.refused)
    assert inbox.steps == 77
    np.testing.assert_array_equal(before, rollout(ToyEnv(), actor, explore=False, seed=1).action)
    sealed.write({**data, "steps": 78}, file)  # and the next sound ones are taken
    assert inbox.look(1000) and inbox.steps == 78


def test_weights_of_a_learner_that_went_back_wait_until_it_has_caught_up(sent, tmp_path):
    agent, data = sent
    sealed.write(data, tmp_path / "weights.pt")
    _, inbox = actor_of(agent, tmp_path / "weights.pt")
    sealed.write({**data, "steps": 50}, tmp_path / "weights.pt")
    assert not inbox.look(1000) and "fewer steps" in inbox.refused and inbox.steps == 77
    sealed.write({**data, "steps": 77}, tmp_path / "weights.pt")
    assert inbox.look(1000)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_of_ours_passes_its_own_judgement(name, toy_policy, tmp_path):
    torch.manual_seed(0)
    first, second = (AGENTS[name].build(checkpoint.load(toy_policy)) for _ in range(2))
    replay = practised(first, 4)
    for _ in range(3):
        first.update(replay)
    publish(first, run := Run(tmp_path / "run", "refine", {}), steps=3)
    inbox = Inbox(run.path / "weights.pt", second)
    assert inbox.look(3), inbox.refused
    save_agent(first, tmp_path / "agent.pt")
    third = load_agent(tmp_path / "agent.pt")
    for other in (second, third):
        mine, its = dict(tensors(first.state_dict())), dict(tensors(other.state_dict()))
        assert mine.keys() == its.keys() and all(torch.equal(mine[key], its[key]) for key in mine)


AGENT_FILES = {
    "a width of 2e9": lambda d: d["config"].update(width=2 * 10**9),
    "a width of 60,000": lambda d: d["config"].update(width=60_000),
    "heads of 1e7": lambda d: d["config"].update(heads=10**7),
    "no policy": lambda d: d.pop("policy"),
    "no state": lambda d: d.update(learned={}),
    "a state of text": lambda d: d.update(learned="x"),
    "an empty optimiser": lambda d: d["learned"].update(actor_optimizer={}),
    "another width": lambda d: d["config"].update(width=33),
}


@pytest.mark.parametrize("case", AGENT_FILES)
def test_fault_f52_an_agent_whose_parts_do_not_fit_is_refused_before_it_is_built(sent, tmp_path, case):
    agent, _ = sent
    save_agent(agent, tmp_path / "agent.pt")
    data = sealed.read(tmp_path / "agent.pt")
    AGENT_FILES[case](data)
    sealed.write(data, tmp_path / "agent.pt")
    with pytest.raises(RobotRLError, match="agent.pt"):
        load_agent(tmp_path / "agent.pt")


@pytest.mark.parametrize("extras", [{}, {"base_action": np.zeros((1, 9), np.float32)}])
def test_fault_f54_an_episode_that_another_agent_played_is_not_learned_from(sent, toy_demos, extras):
    agent, _ = sent
    learning = Learning(agent, RefineConfig(), labelled(agent, [toy_demos]))
    episode = rollout(ToyEnv(), agent, explore=True, seed=1)
    learning.take(episode)
    before = learning.steps
    rows = {key: np.repeat(value, len(episode) + 1, 0) for key, value in extras.items()}
    with pytest.raises(RobotRLError, match="another agent played it"):
        learning.take(replace(episode, extras=rows))
    assert learning.steps == before and learning.replay.online.episodes == 1


CHECKPOINTS = {
    "nothing": {},
    "no agent": {"episodes": 0, "steps": 0, "updates": 0},
    "another agent": {"episodes": 0, "steps": 0, "updates": 0, "agent": {"actor": {}}},
    "text": {"episodes": "x", "steps": 0, "updates": 0, "agent": {}},
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_fault_f54_a_whole_checkpoint_of_another_run_is_named(sent, toy_demos, case):
    agent, _ = sent
    learning = Learning(agent, RefineConfig(), labelled(agent, [toy_demos]))
    with pytest.raises(RobotRLError, match="checkpoint does not fit"):
        learning.load_state_dict(CHECKPOINTS[case], EpisodeStore.open(toy_demos))
