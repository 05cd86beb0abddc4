"""What a new user meets: what a refusal leaves behind, what it says, and what is not worth a warning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl import cli, inspect, sealed
from robot_rl.episodes import EpisodeStore
from robot_rl.types import Channel, Episode, RobotRLError
from sim.toy import ToyEnv

SPEC = ToyEnv().spec
OTHER = replace(SPEC, rate=2 * SPEC.rate)


def episode() -> Episode:
    obs = {"state": np.zeros((3, len(SPEC.state)), np.float32), "stamp/state": np.arange(3) / SPEC.rate}
    none = np.zeros(2, np.float32)
    return Episode(obs, np.zeros((2, len(SPEC.action)), np.float32), none, none, np.zeros(2, bool), False, True)


@pytest.mark.parametrize("error", [RobotRLError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("there", [True, False])
def test_a_store_begun_in_vain_leaves_nothing(tmp_path, error, there):
    kept = tmp_path if there else tmp_path / "runs" / "mine"
    with pytest.raises(error), EpisodeStore.begun(kept, SPEC):
        raise error
    assert list(tmp_path.iterdir()) == []
    with EpisodeStore.begun(kept, OTHER) as store:
        assert store.spec == OTHER


@pytest.mark.parametrize("before", [True, False])
def test_a_store_with_an_episode_or_from_before_stays(tmp_path, before):
    if before:
        EpisodeStore.create(tmp_path, SPEC).close()
    with pytest.raises(RobotRLError), EpisodeStore.begun(tmp_path, SPEC) as store:
        if not before:
            store.append(episode())
        raise RobotRLError("x")
    assert len(EpisodeStore.open(tmp_path)) == (not before)
    with EpisodeStore.create(tmp_path, SPEC):  # and the lock is free
        pass


def test_a_store_without_episodes_takes_the_spec_of_whoever_writes(tmp_path):
    EpisodeStore.create(tmp_path, OTHER).close()
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(episode())
    assert EpisodeStore.open(tmp_path).spec == SPEC
    with pytest.raises(RobotRLError, match="(?s)do not describe.*rate"):
        EpisodeStore.create(tmp_path, OTHER)


@pytest.mark.parametrize("device", ["keyboard", "gamepad", "nothing"])
def test_a_device_that_is_not_there_leaves_no_store(tmp_path, capsys, monkeypatch, device):
    monkeypatch.setattr("drivers.devices.Terminal", refuses)  # pytest may have one
    monkeypatch.setattr("drivers.gamepad.Gamepad", refuses)
    words = ["collect", "--out", str(tmp_path / "k"), "--world", "toy", "--episodes", "1", "--device", device]
    assert cli.main(words) == 2 and not (tmp_path / "k").exists()


def refuses(*_given):
    raise RobotRLError("it is not there")


def test_a_policy_of_another_world_is_told_so(tmp_path, capsys):
    from sim.worlds import WorldConfig

    spec = replace(WorldConfig("pusht").build().spec, world="robosuite:Lift", arm="Panda")
    policy = FlowConfig(horizon=4, backbone=MlpConfig(width=8, depth=1)).build(spec)
    checkpoint.save(policy, tmp_path / "p.pt")
    assert cli.main(["evaluate", "--agent", str(tmp_path / "p.pt"), "--world", "toy"]) == 2
    said = capsys.readouterr().err
    assert "do not describe the same robot and task" in said and "robosuite:Lift" in said and "leave it out" not in said


@pytest.mark.parametrize(
    ("beyond", "count", "said"),
    [
        (0.0003, 900, ""),  # fingers that give
        (0.05, 9, ""),
        (0.05, 10, "1.0%"),
        (0.2, 1, "1 of 10000"),
        (0.2, 500, "50.0%"),
    ],
)
def test_readings_barely_or_seldom_outside_their_range_are_no_warning(beyond, count, said):
    column, total = np.linspace(0.0, 0.04, 1000), 10_000 if count < 10 else 1000
    column = np.resize(column, total)
    column[:count] = 0.04 * (1 + beyond)
    warnings = [w for w in inspect._oddities("state", Channel("g", "m", 0.0, 0.04), column) if "leaves" in w]
    assert bool(warnings) == bool(said) and all(f" in {said} of the readings" in w for w in warnings)
    assert "in 0.0%" not in str(warnings)


@pytest.mark.parametrize("content", [b"", b"# robot-rl\n" * 100])
def test_what_is_no_zip_is_no_checkpoint(tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    with pytest.raises(RobotRLError, match="is no checkpoint") as error:
        sealed.read(tmp_path / "README.md")
    assert "robot_rl.sealed" not in str(error.value)


def test_a_cut_checkpoint_is_still_told_as_cut(tmp_path):
    sealed.write({"a": 1.0}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-200])
    with pytest.raises(RobotRLError, match="cut or damaged"):
        sealed.read(tmp_path / "a.pt")


@pytest.mark.parametrize(("verb", "resumes"), [("collect", True), ("refine", True), ("check", False), ("view", False)])
def test_only_what_resumes_says_to_run_it_again(monkeypatch, capsys, verb, resumes):
    def interrupted(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr("robot_rl.command_line.parsed", lambda *_: interrupted)
    assert cli.main([verb]) == 130
    assert ("to go on" in capsys.readouterr().err) == resumes
    assert set(cli.RESUMABLE) < set(cli.VERBS)


def test_the_help_of_collect_names_every_device():
    from drivers.devices import NAMES

    told = " ".join((cli.collect.__doc__ or "").split())
    assert all(name.partition("[")[0].partition(":")[0] in told.partition("device:")[2] for name in NAMES.split(", "))
