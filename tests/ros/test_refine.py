"""Practice on the simulated robot over DDS: `refine --robot`, whose episodes are played by the arm's node."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from drivers.robot_file import load
from robot_rl.checkpoints import load_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.types import Episode
from tests.ros.test_deploy import CLI, ROBOT
from tests.terminal import help_once

pytestmark = pytest.mark.timeout(180)
STEPS, LENGTH = 50, 20


@pytest.fixture
def robot(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(ROBOT.read_text().replace("max_steps: 100", f"max_steps: {LENGTH}"))
    return file


@pytest.fixture
def demos(tmp_path, robot):
    """Two that end in success."""
    spec, random = load(robot).spec(), np.random.default_rng(0)
    low, high = (np.array([getattr(c, end) for c in spec.state]) for end in ("low", "high"))
    last = np.arange(LENGTH) == LENGTH - 1
    with EpisodeStore.create(tmp_path / "demos", spec) as store:
        for _ in range(2):
            state = random.uniform(0.4 * low, 0.4 * high, (LENGTH + 1, len(low))).astype(np.float32)
            store.append(
                Episode(
                    obs={"state": state, "stamp/state": np.arange(LENGTH + 1) / spec.rate},
                    action=random.uniform(-0.2, 0.2, (LENGTH, len(spec.action))).astype(np.float32),
                    reward=last.astype(np.float32),
                    score=last.astype(np.float32),
                    intervened=np.zeros(LENGTH, bool),
                    terminated=True,
                    truncated=False,
                    extras={},
                    meta={},
                )
            )
    return tmp_path / "demos"


def test_episodes_are_played_stored_and_learned_from_and_the_arm_is_given_back_between_them(
    spawn,
    robot,
    demos,
    lift_policy,
    tmp_path,
    wait_until,
):
    out = tmp_path / "run"
    spawn(*CLI, "simulate", "--robot", robot)
    arm = spawn("-m", "drivers.arm_node", "--robot", robot)
    refine = spawn(
        *CLI, "refine", "--robot", robot, "--policy", lift_policy, "--demos", demos, "--out", out, "--evaluate", "0",
        *("--steps", STEPS, "--base-steps", LENGTH, "--first-updates", "3", "--utd", "0.2", "--hopeless", "0"),
        *("agent:residual", "--agent.execute", "4", "--agent.width", "16", "--agent.batch", "8"),
    )  # fmt: skip
    assert refine.wait(150) == 0
    episodes = list(EpisodeStore.open(out / "episodes"))
    steps = [len(episode) for episode in episodes]
    assert sum(steps) >= STEPS > sum(steps[:-1])
    assert not any(episode.terminated for episode in episodes) and max(steps) == LENGTH
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["length"] for line in logged if "length" in line] == steps
    assert logged[-1]["step"] == sum(steps)
    assert load_agent(out / "agent.pt").updates == 3 + int(0.2 * (sum(steps) - LENGTH))
    told = arm.log.read_text()
    assert len(re.findall(r"policy/arm: \d+", told)) == len(steps)
    for episode in episodes:
        assert (np.diff(episode.obs["stamp/state"]) >= 0).all()
        assert 0.001 < np.abs(np.diff(episode.obs["state"][:, :3], axis=0)).sum() < 1.0
    wait_until(lambda: told.count("'policy' let go of it") >= len(steps) - 1, 1)


def test_a_person_helps_practice_on_the_robot(spawn, robot, demos, lift_policy, tmp_path):
    out = tmp_path / "run"
    robot.write_text(robot.read_text().replace(f"max_steps: {LENGTH}", "max_steps: 60"))
    spawn(*CLI, "simulate", "--robot", robot)
    arm = spawn("-m", "drivers.arm_node", "--robot", robot)
    words = ("--steps", 70, "--base-steps", 60, "--first-updates", 3, "--utd", 0.2, "--hopeless", 0, "--evaluate", 0)
    help_once("refine", "--out", out, "--robot", robot, "--policy", lift_policy, "--demos", demos, *words)
    assert len(re.findall(r"policy/arm: \d+", arm.log.read_text())) == len(EpisodeStore.open(out / "episodes"))
