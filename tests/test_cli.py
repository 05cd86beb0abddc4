"""The verbs as a user calls them, on the toy world; and every kind of bad input, which must touch nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli import main
from robot_rl.episodes import EpisodeStore
from sim.pusht import PushTConfig


def call(*words):
    return main([str(w) for w in words])


def complaint(capsys, *words):
    """Runs a verb that must fail, and returns what it says."""
    assert call(*words) == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "demos"
    assert call("collect", "--out", out, "--world", "toy", "--episodes", 30, "--skill", 0.5, "--workers", 2) == 0
    return out


@pytest.fixture(scope="module")
def base(store):
    out = store.parent / "base"
    settings = ("--steps", 150, "--batch", 32, "--save-every", 50, "--evaluate", 5, "--workers", 1)
    assert call("pretrain", "--out", out, "--store", store, *settings) == 0
    return out


def test_collect_goes_on_where_it_stopped_and_workers_change_nothing(store, tmp_path):
    half = tmp_path / "half"
    for episodes in (12, 30):
        world = ("--world", "toy", "--episodes", episodes, "--skill", 0.5, "--workers", 1)
        assert call("collect", "--out", half, *world) == 0
    first, second = EpisodeStore.open(store), EpisodeStore.open(half)
    assert len(first) == len(second) == 30
    for a, b in zip(first, second, strict=True):
        assert a.success and a.meta == b.meta
        assert (a.action == b.action).all()


def test_the_whole_path_ends_in_a_report(store, base, tmp_path, capsys):
    run = tmp_path / "refined"
    practice = ("--steps", 300, "--base-steps", 100, "--first-updates", 20, "--utd", 1, "--threads", 1)
    agent = ("agent:residual", "--agent.heads", 3, "--agent.width", 32, "--agent.batch", 32, "--agent.critic-only", 20)
    ends = ("--evaluate", 6, "--videos", 1, "--workers", 1)
    assert call("refine", "--out", run, "--policy", base, "--demos", store, *practice, *ends, *agent) == 0
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 and "data:video/mp4;base64," in page
    assert "http://" not in page and "https://" not in page
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["refine"]["utd"] == 1 and config["git"] and config["command"]
    assert list((run / "tensorboard").iterdir())
    result = tmp_path / "result.json"
    assert call("evaluate", "--agent", run, "--episodes", 6, "--workers", 1, "--out", result) == 0
    told = json.loads((run / "evaluation_refined.json").read_text())
    assert json.loads(result.read_text()) == told


@pytest.mark.parametrize("agent", ["dsrl", "rlpd", "corrections", "expo", "taco"])
def test_every_refiner_can_be_chosen_and_a_human_may_help(store, base, tmp_path, agent):
    run = tmp_path / "refined"
    practice = ("--steps", 200, "--base-steps", 60, "--first-updates", 3, "--utd", 0.05, "--snapshot-every", 100)
    human = ("--human.skill", 1.0, "--human.patience", 4)
    ends = ("--evaluate", 6, "--videos", 0, "--workers", 1)
    words = ("--out", run, "--policy", base, "--demos", store, *practice, *human, *ends, f"agent:{agent}")
    assert call("refine", *words) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["intervened"] for row in rows) > 0
    assert [f.stem for f in sorted((run / "snapshots").iterdir())] == ["100", "200"]
    verdict = json.loads((run / "promotion.json").read_text())
    assert set(verdict["against_base"]) == {"100 steps", "200 steps", "refined"} and (run / "best.pt").exists()
    assert call("evaluate", "--agent", run, "--episodes", 2, "--workers", 1) == 0


def test_actor_and_learner_may_take_turns_in_one_folder(store, base, tmp_path):
    run = tmp_path / "apart"
    practice = ("--steps", 200, "--base-steps", 60, "--first-updates", 3, "--utd", 0.1, "--evaluate", 4, "--videos", 0)
    words = ("refine", "--out", run, "--policy", base, "--demos", store, *practice, "--workers", 1)
    agent = ("agent:residual", "--agent.width", 16, "--agent.heads", 2, "--agent.batch", 16)
    assert call(*words, "--role", "actor", *agent) == 0  # it may be so far ahead of the weights
    assert not (run / "agent.pt").exists() and sum(map(len, EpisodeStore.open(run / "episodes"))) >= 200
    assert call(*words, "--role", "learner", *agent) == 0
    assert (run / "best.pt").exists() and (run / "weights.pt").exists()
    assert call(*words, *agent) == 2, "a run begun apart is not gone on with in one process"


def test_a_simulated_human_is_refused_beside_a_robot(store, base, tmp_path, capsys):
    robot = Path(__file__).parents[1] / "launch" / "params" / "sim_panda_lift.yaml"
    words = ("refine", "--out", tmp_path / "run", "--policy", base, "--demos", store, "--robot", robot)
    assert call(*words, "--human.skill", 1.0) == 2 and "no hands on a robot" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_selection_learns_from_demonstrations_alone(store, base, tmp_path):
    run = tmp_path / "taco"
    words = ("--out", run, "--policy", base, "--demos", store, "--steps", 0, "--offline-updates", 30, "--evaluate", 0)
    assert call("refine", *words, "agent:taco") == 0
    assert len(EpisodeStore.open(run / "episodes")) == 0
    assert call("evaluate", "--agent", run, "--episodes", 2, "--workers", 1) == 0


def test_what_an_agent_learned_becomes_the_next_base(store, base, tmp_path, capsys):
    run = tmp_path / "next"
    words = ("--out", run, "--agent", base, "--demos", store, "--episodes", 7, "--steps", 60, "--batch", 16)
    assert call("distil", *words, "--evaluate", 4, "--workers", 1) == 0
    kept = EpisodeStore.open(run / "episodes")
    assert len(kept) == 7 and all(e.success and not e.extras and e.meta["actor"] == "agent" for e in kept)
    assert (run / "report.html").exists()
    assert call("evaluate", "--agent", run / "policy", "--episodes", 2, "--workers", 1) == 0
    assert call("distil", *words, "--evaluate", 4, "--workers", 1) == 0, "the same folder resumes"
    assert len(EpisodeStore.open(run / "episodes")) == 7


@pytest.mark.parametrize(
    "kind",
    [
        "policy:diffusion policy.backbone:unet-config --policy.backbone.channels 8 16",
        "policy:flow --policy.solver heun",
    ],
)
def test_every_policy_can_be_chosen(store, tmp_path, kind):
    words = ("--steps", 4, "--batch", 8, "--save-every", 2, *kind.split())
    assert call("pretrain", "--out", tmp_path / "run", "--store", store, *words) == 0
    assert call("evaluate", "--agent", tmp_path / "run", "--episodes", 2, "--workers", 1) == 0


def test_no_steps_leave_an_untrained_policy(store, tmp_path):
    """What chance can do, for comparison."""
    assert call("pretrain", "--out", tmp_path / "run", "--store", store, "--steps", 0) == 0
    assert call("evaluate", "--agent", tmp_path / "run", "--episodes", 2, "--workers", 1) == 0


@pytest.mark.parametrize(
    ("verb", "words", "says"),
    [
        ("pretrain", "--batch 0", "--batch is 0"),
        ("pretrain", "--save-every 0", "--save-every is 0"),
        ("pretrain", "--device cuda", "no CUDA device"),
        ("evaluate", "--episodes 0", "--episodes is 0; it must be at least 1"),
        ("evaluate", "--execute 99", "1..16"),
        ("evaluate", "--seed 1000", "--seed is 1000; it must be at least 0 and at most 999"),
        ("evaluate", "--workers 0", "--workers is 0; it must be at least 1"),
    ],
)
def test_impossible_numbers_are_named(verb, words, says, store, base, tmp_path, capsys):
    files = ("--out", tmp_path / "r", "--store", store) if verb == "pretrain" else ("--agent", base)
    assert says in complaint(capsys, verb, *files, *words.split())


@pytest.mark.parametrize("name", ["demos.hdf5", "demos.zarr", "lerobot_dataset"])
def test_export_then_import_is_the_same_store(store, tmp_path, name):
    assert call("export", "--store", store, "--out", tmp_path / name) == 0
    assert call("import", "--source", tmp_path / name, "--out", tmp_path / "back") == 0
    first, second = EpisodeStore.open(store), EpisodeStore.open(tmp_path / "back")
    assert first.spec == second.spec and len(first) == len(second)
    assert all(np.allclose(a.action, b.action, atol=1e-6) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--world robosuite:Lfit", "Did you mean 'Lift'"),
        ("--world robosuite:Lift --arm Pandora", "Did you mean 'Panda'"),
        ("--world robosuite:Lift --cameras frontvew", "frontview"),
        ("--world moon", "unknown world 'moon'"),
        ("--world toy --arm Panda", "no arm to choose"),
        ("--world pusht", "operator"),
        ("--world toy --skill 1.5", "skill"),
        ("--world robosuite:TwoArmLift", "two arms"),
    ],
)
def test_collect_names_what_is_wrong(words, says, tmp_path, capsys):
    assert says in complaint(capsys, "collect", "--out", tmp_path / "x", *words.split())
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_for_another_world_prints_both_sides(base, capsys):
    said = complaint(capsys, "evaluate", "--agent", base, "--world", "pusht", "--episodes", 1)
    assert "'toy'" in said and "'pusht'" in said and "action" in said


def test_missing_and_foreign_files_are_named(base, store, tmp_path, capsys):
    assert "nowhere" in complaint(capsys, "evaluate", "--agent", tmp_path / "nowhere")
    assert "nowhere" in complaint(capsys, "pretrain", "--out", tmp_path / "r", "--store", tmp_path / "nowhere")
    assert "nowhere" in complaint(capsys, "import", "--source", tmp_path / "nowhere", "--out", tmp_path / "i")
    (tmp_path / "junk.hdf5").write_bytes(b"junk" * 100)
    assert "junk.hdf5" in complaint(capsys, "import", "--source", tmp_path / "junk.hdf5", "--out", tmp_path / "i")
    empty = tmp_path / "empty"
    EpisodeStore.create(empty, PushTConfig().spec()).close()
    assert "no episodes" in complaint(capsys, "pretrain", "--out", tmp_path / "r2", "--store", empty)
    assert not (tmp_path / "r").exists() and not (tmp_path / "i").exists()


def test_a_truncated_store_is_named_and_repair_mends_it(store, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(store, broken)
    chunk = next(f for f in sorted((broken / "000003" / "action").rglob("*")) if f.is_file() and f.name[0].isdigit())
    chunk.write_bytes(chunk.read_bytes()[:7])
    assert "000003" in complaint(capsys, "pretrain", "--out", tmp_path / "run", "--store", broken)
    assert call("inspect", "--store", broken, "--repair") == 0
    assert "000003" in capsys.readouterr().out


def test_a_folder_with_other_things_in_it_is_refused(store, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "not empty" in complaint(capsys, "pretrain", "--out", tmp_path, "--store", store)
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]
    assert "exists" in complaint(
        capsys, "export", "--store", store, "--out", tmp_path / "thesis.tex", "--to", "robomimic"
    )
    assert "tells no format" in complaint(capsys, "export", "--store", store, "--out", tmp_path / "thesis.tex")
    assert Path(tmp_path / "thesis.tex").read_text() == "precious"


def test_a_demo_of_an_unknown_world_is_refused(tmp_path, capsys):
    assert "toy" in complaint(capsys, "demo", "--out", tmp_path / "d", "--world", "robosuite:Door")
