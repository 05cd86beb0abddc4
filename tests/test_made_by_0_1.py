"""Files that robot-rl 0.1 (commit dea8bec) wrote: refused by name, then, vouched for, they act as they did.

`tests/data/made_by_0.1.tar.xz`: a store of 12 toy episodes (`collect --world toy --episodes 12 --skill 0.6`), a flow
and a diffusion policy (`pretrain --steps 200`, MLP of width 32), an agent of each refiner (`refine --steps 500
--base-steps 100`, width 16), and the actions that each took from four starts, 25 steps long, with
one thread (two are played here).
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from robot_rl import cli
from robot_rl.checkpoints import load_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.rollout import rollout
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv

PLAYERS = ["flow/policy.pt", "diffusion/policy.pt"]
PLAYERS += [f"run_{kind}/agent.pt" for kind in ("residual", "dsrl", "rlpd", "corrections", "expo")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made_by_0.1")
    with tarfile.open(Path(__file__).parent / "data/made_by_0.1.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_what_0_1_learned_is_refused_until_somebody_vouches_for_it_and_acts_the_same_then(made):
    actions = np.load(made / "actions.npz")
    for name in PLAYERS:
        with pytest.raises(RobotRLError, match="robot-rl 0.1.*robot_rl.sealed"):
            load_agent(made / name)
    vouch = [sys.executable, "-m", "robot_rl.sealed", *(str(made / name) for name in PLAYERS)]
    assert subprocess.run(vouch, capture_output=True).returncode == 0
    for name in PLAYERS:
        agent = load_agent(made / name)
        for seed in range(2):
            played = rollout(ToyEnv(), agent, explore=False, seed=seed, max_steps=25)
            before = actions[f"{Path(name).parent}/{seed}"]
            np.testing.assert_allclose(played.action, before, atol=1e-4, err_msg=f"{name}, seed {seed}")


def test_a_store_of_0_1_is_refused_until_it_is_repaired_and_holds_the_same_then(made):
    with pytest.raises(RobotRLError, match="version 1 .*inspect --repair"):
        EpisodeStore.open(made / "demos")
    assert cli.main(["inspect", "--store", str(made / "demos"), "--repair"]) == 0
    store, before = EpisodeStore.open(made / "demos"), np.load(made / "actions.npz")
    assert len(store) == 12
    for i in range(12):
        episode = store[i]
        np.testing.assert_array_equal(episode.action, before[f"demos/{i}"])
        np.testing.assert_array_equal(episode.obs["state"], before[f"demos/{i}/state"])
        np.testing.assert_array_equal(episode.reward, before[f"demos/{i}/reward"])
