"""Laws of what is kept of learning: a file of another content than was written is never loaded, and two are kept."""

from __future__ import annotations

import hashlib
import json
import os
import random
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import checkpoint, reward
from policies.encoders import ConvConfig
from policies.vision import VisionConfig
from robot_rl import episode_files, journal, refine, sealed
from robot_rl.apart import WEIGHTS, Inbox, publish
from robot_rl.atomic import atomically
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.episodes import EpisodeStore
from robot_rl.pretrain import PretrainConfig, pretrain
from robot_rl.runs import CHECKPOINT, DAMAGED, PREVIOUS, Run
from robot_rl.types import CameraSpec, RobotRLError
from sim.toy import ToyEnv
from tests.conftest import TINY
from tests.test_apart import built
from tests.test_episodes import SPEC, contents, make
from tests.test_refine import CONFIG, same
from tests.test_refine import built as practising

FLIPS = int(os.environ.get("ROBOT_RL_FLIPS", "40"))  # of each kind of file; 300 where it matters


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


@pytest.fixture(scope="module")
def kept(tmp_path_factory, toy_policy):
    """One file of every kind that carries a hash, and who reads it."""
    out = tmp_path_factory.mktemp("kept")
    agent = built(toy_policy)
    save_agent(agent, out / "agent.pt")
    seen = replace(SPEC, cameras=(CameraSpec("front", 40, 40),))
    classifier = reward.ClassifierConfig(VisionConfig(ConvConfig((4, 4, 4)))).build(seen)
    classifier.threshold = 0.5
    reward.save(classifier, out / "reward.pt")
    run = Run(out / "run", "test", {})
    run.save({"steps": 3, "agent": agent.state_dict()})
    publish(agent, run, 0)
    checkpoint.save(checkpoint.load(toy_policy), out / "policy.pt")

    def taken(path: Path) -> None:
        inbox = Inbox(path, agent)
        if not inbox.look():
            raise RobotRLError(inbox.refused)

    return {
        "policy": (out / "policy.pt", checkpoint.load),
        "agent": (out / "agent.pt", load_agent),
        "reward": (out / "reward.pt", reward.load),
        "checkpoint": (out / "run" / CHECKPOINT, sealed.read),
        "weights": (out / "run" / WEIGHTS, taken),
    }


@pytest.mark.parametrize("kind", ["policy", "agent", "reward", "checkpoint", "weights"])
def test_fault_f51_no_flipped_bit_of_what_was_learned_is_loaded(kept, kind, tmp_path):
    path, load = kept[kind]
    content, bits = path.read_bytes(), random.Random(0)
    load(path)
    last = 8 * len(content)
    places = [0, last - 1, last - 8 * 81, last - 8 * 82] + [bits.randrange(last) for _ in range(FLIPS - 4)]
    refused = 0
    for place in places:
        (tmp_path / path.name).write_bytes(flipped(content, place))
        with pytest.raises(RobotRLError, match="hash|no checkpoint"):
            load(tmp_path / path.name)
        refused += 1
    assert refused == FLIPS
    print(f"{kind}: {refused} of {FLIPS} flipped bits refused")


@pytest.mark.parametrize("place", ["store", "episode"])
def test_fault_f51_no_flipped_bit_of_a_store_changes_what_is_read(tmp_path, place):
    """Refused, or read as it was: zarr's metadata hold letters without a meaning to anybody."""
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(make(20))
    expected, bits = contents(make(20)), random.Random(0)
    files = (
        [p for p in (tmp_path / "000000").rglob("*") if p.is_file()] if place == "episode" else [tmp_path / ".zattrs"]
    )
    refused = equal = 0
    for _ in range(FLIPS):
        file = bits.choice(files)
        content = file.read_bytes()
        file.write_bytes(flipped(content, bits.randrange(8 * len(content))))
        try:
            read = EpisodeStore.open(tmp_path)
            assert (read.spec, contents(read[0])) == (SPEC, expected)
            equal += 1
        except RobotRLError:
            refused += 1
        file.write_bytes(content)
    assert refused + equal == FLIPS and (place == "episode" or refused == FLIPS)
    print(f"{place}: {refused} of {FLIPS} flipped bits refused, {equal} read bit-equal")


@pytest.mark.parametrize("keep", [0, 10, 0.5, -81, -1])
def test_fault_f51_a_cut_checkpoint_is_refused(kept, tmp_path, keep):
    content = kept["checkpoint"][0].read_bytes()
    at = int(keep * len(content)) if isinstance(keep, float) else keep
    (tmp_path / "cut.pt").write_bytes(content[:at])
    with pytest.raises(RobotRLError, match="hash" if at else "no checkpoint"):
        sealed.read(tmp_path / "cut.pt")


def test_other_readers_still_read_it_and_the_hash_is_that_of_the_file(kept):
    path, _ = kept["policy"]
    content = path.read_bytes()
    assert zipfile.ZipFile(path).testzip() is None
    assert torch.load(path, weights_only=True)["robot_rl_policy"] == 1
    assert content[-64:].decode() == hashlib.sha256(content[: -sealed.COMMENT]).hexdigest()


def test_fault_f51_a_file_of_before_is_refused_until_somebody_vouches_for_it(kept, tmp_path):
    data = sealed.read(kept["policy"][0])
    torch.save(data, tmp_path / "old.pt")
    with pytest.raises(RobotRLError, match=r"0\.1.*python -m robot_rl\.sealed"):
        checkpoint.load(tmp_path / "old.pt")
    sealed.seal(tmp_path / "old.pt")
    checkpoint.load(tmp_path / "old.pt")


def every_tensor(state, change):
    if isinstance(state, dict):
        return {key: every_tensor(value, change) for key, value in state.items()}
    return change(state) if isinstance(state, torch.Tensor) and state.is_floating_point() else state


@pytest.mark.parametrize("kind", ["policy", "agent", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_fault_f51_weights_that_are_not_finite_do_not_load(kept, kind, value, tmp_path):
    path, load = kept[kind]
    sealed.write(every_tensor(sealed.read(path), lambda t: torch.full_like(t, value)), tmp_path / "nan.pt")
    with pytest.raises(RobotRLError, match="is not finite"):
        load(tmp_path / "nan.pt")


def spoilt(**changes):
    return lambda data: {**data, **{k: v(data[k]) if callable(v) else v for k, v in changes.items()}}


def config_of(**changes):
    return spoilt(config=lambda c: {**c, **{k: v(c[k]) if callable(v) else v for k, v in changes.items()}})


POLICIES = {
    "no config": lambda d: {k: v for k, v in d.items() if k != "config"},
    "no spec": lambda d: {k: v for k, v in d.items() if k != "spec"},
    "config is a list": spoilt(config=[1]),
    "weights are a list": spoilt(weights=[1]),
    "weights are numbers": spoilt(weights=lambda w: dict.fromkeys(w, 1.0)),
    "weights lack one": spoilt(weights=lambda w: dict(list(w.items())[1:])),
    "weights of bytes": spoilt(weights=lambda w: {k: v.to(torch.uint8) for k, v in w.items()}),
    "a width of 2e9": config_of(backbone=lambda b: {**b, "width": 2 * 10**9}),
    "a width of 40,000": config_of(backbone=lambda b: {**b, "width": 40_000}),
    "a depth of 1e9": config_of(backbone=lambda b: {**b, "depth": 10**9}),
    "a horizon of 1e12": config_of(horizon=10**12),
    "a width that is text": config_of(backbone=lambda b: {**b, "width": "wide"}),
    "a horizon that is none": config_of(horizon=None),
}


@pytest.mark.parametrize("case", POLICIES)
def test_fault_f52_a_policy_whose_parts_do_not_fit_is_refused_before_it_is_built(kept, case, tmp_path):
    sealed.write(POLICIES[case](sealed.read(kept["policy"][0])), tmp_path / "p.pt")
    with pytest.raises(RobotRLError, match=r"p\.pt|unknown config type|lacks|is no"):
        checkpoint.load(tmp_path / "p.pt")


def lists(depth: int) -> list:
    inner: list = [1.0] * 10
    for _ in range(depth):
        inner = [inner] * 10
    return inner


BOMBS = {
    "8 TiB of one number": {"weights": torch.zeros(1).expand(2**41)},
    "a sparse one": {"weights": torch.eye(3).to_sparse()},
    "10^12 lists": {"weights": lists(12)},
    "one storage, many times": {f"w{i}": t for t in [torch.zeros(2**18)] for i in range(100)},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_fault_f52_a_checkpoint_that_asks_for_memory_is_refused(bomb, tmp_path):
    sealed.write(BOMBS[bomb], tmp_path / "bomb.pt")
    with pytest.raises(RobotRLError, match="bomb.pt"):
        sealed.read(tmp_path / "bomb.pt")


def test_fault_f52_a_packed_checkpoint_is_refused(kept, tmp_path):
    with (
        zipfile.ZipFile(kept["policy"][0]) as old,
        zipfile.ZipFile(tmp_path / "p.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(RobotRLError, match="unpacks to more"):
        sealed.read(tmp_path / "p.pt", sealed=False)


# ------------------------------------------------------------------------------------------ two checkpoints, and links


def test_fault_f54_a_part_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("mine")
    for name in (".part-file", ".part-file-x", "file"):
        os.symlink("precious", tmp_path / name)
    atomically(tmp_path / "file", lambda part: part.write_text("new"))
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "new" and not (tmp_path / "file").is_symlink()


def test_fault_f54_a_link_put_there_while_a_file_is_written_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("mine")

    def write(part: Path) -> None:
        for mine in tmp_path.glob(".part-*"):
            mine.unlink()
            os.symlink("precious", mine)
        part.write_text("new")

    atomically(tmp_path / "file", write)
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_killed_writers_left_is_swept_and_what_others_write_is_not(tmp_path):
    (tmp_path / ".part-file-abc").write_text("left by a killed writer")

    def write(part: Path) -> None:
        assert len(list(tmp_path.glob(".part-file-*"))) == 1
        atomically(tmp_path / "file", lambda other: other.write_text("from another"))
        part.write_text("mine")

    atomically(tmp_path / "file", write)
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_file_is_readable_by_whom_the_umask_lets(tmp_path):
    old = os.umask(0o027)
    try:
        atomically(tmp_path / "file", lambda part: part.write_text(""))
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def damage(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes(), 8 * 300))


def test_fault_f51_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, capsys):
    run = Run(tmp_path, "test", {})
    run.save({"steps": 1})
    damage(tmp_path / CHECKPOINT)
    with pytest.raises(RobotRLError, match="hash differs"):  # there is none before it
        run.load()
    (tmp_path / CHECKPOINT).unlink()
    run.save({"steps": 1})
    run.save({"steps": 2})
    assert sealed.read(tmp_path / PREVIOUS) == {"steps": 1} and run.load() == {"steps": 2}
    damage(tmp_path / CHECKPOINT)
    assert run.load() == {"steps": 1}
    assert "hash differs" in (said := capsys.readouterr().err) and str(tmp_path / DAMAGED) in said
    assert run.load() == {"steps": 1}  # killed before it saved anything
    run.save({"steps": 2})
    assert run.load() == {"steps": 2}


def test_fault_f51_pretrain_from_the_checkpoint_before_ends_as_the_straight_run(toy_demos, tmp_path, capsys):
    config = PretrainConfig(steps=60, warmup=5, batch=16, save_every=20)
    whole, torn = (pretrain(tmp_path / n, toy_demos, TINY, config, checkpoint.save).parent for n in ("a", "b"))
    damage(torn / CHECKPOINT)
    (torn / "policy.pt").unlink()
    pretrain(torn, toy_demos, TINY, config, checkpoint.save)
    assert "goes on from the checkpoint before" in capsys.readouterr().err
    assert same(*(sealed.read(out / CHECKPOINT) for out in (whole, torn)))
    assert (whole / "metrics.jsonl").read_text() == (torn / "metrics.jsonl").read_text()
    assert (whole / "policy.pt").read_bytes() == (torn / "policy.pt").read_bytes()


@pytest.mark.parametrize("overlap", [False, True])
def test_fault_f51_refine_from_the_checkpoint_before_ends_as_the_straight_run(
    overlap, toy_demos, toy_policy, tmp_path, monkeypatch
):
    """The worst moment: an episode was stored after the newest checkpoint, which is then found damaged."""
    config = replace(CONFIG, overlap=overlap, steps=300)

    def go(out):
        refine.refine(out, [toy_demos], ToyEnv, partial(practising, toy_policy), config, {}, save_agent)

    go(tmp_path / "straight")
    learn, calls = refine.Learning.learn, []

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return learn(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(refine.Learning, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "torn")
    episodes = sealed.read(tmp_path / "torn" / PREVIOUS)["episodes"]
    assert len(EpisodeStore.open(tmp_path / "torn" / "episodes")) == episodes + 2
    damage(tmp_path / "torn" / CHECKPOINT)
    go(tmp_path / "torn")
    assert same(*(sealed.read(tmp_path / out / CHECKPOINT) for out in ("straight", "torn")))
    first, second = ((tmp_path / out / "metrics.jsonl").read_text() for out in ("straight", "torn"))
    assert first == second


# -------------------------------------------------------------------------------------------------- rows and settings


def test_fault_f54_a_cut_last_line_is_mended_and_said(tmp_path, capsys):
    file = tmp_path / "metrics.jsonl"
    journal.append(file, {"step": 1})
    journal.append(file, {"step": 2})
    for cut in range(1, 11):
        journal.append(file, {"step": 3})
        file.write_bytes(file.read_bytes()[:-cut])
        assert journal.rows(file) == [{"step": 1}, {"step": 2}]
        journal.append(file, {"step": 4})
        assert journal.rows(file) == [{"step": 1}, {"step": 2}, {"step": 4}]
        assert "its last line was cut off" in capsys.readouterr().err
        file.write_bytes(file.read_bytes()[:-5])
        journal.rewind(file, 2)
        assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
        assert "cut off" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["garbage", "[1]", '{"steps": 3}', '{"step": "3"}', "\0\0", "[" * 100_000, ""])
def test_fault_f54_garbage_in_the_metrics_is_named_with_its_line(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n' + line + '\n{"step": 2}\n')
    for attempt in (lambda: journal.rows(file), lambda: journal.rewind(file, 9)):
        with pytest.raises(RobotRLError, match="metrics.jsonl, line 2 is no .*remove that line"):
            attempt()
    assert file.read_text().endswith('{"step": 2}\n')


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"3"])
def test_fault_f54_garbage_in_a_config_is_named(tmp_path, content):
    with Run(tmp_path, "test", {}) as run:
        run.begin()
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RobotRLError, match=r"config\.json"), Run(tmp_path, "test", {}):
        pass


def test_a_store_of_before_gets_its_checksum_by_repair(tmp_path):
    from robot_rl.episodes import repair

    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(make(5))
    told = json.loads((tmp_path / ".zattrs").read_text())
    del told["crc32"]
    (tmp_path / ".zattrs").write_text(json.dumps(told | {"version": 1}))
    with pytest.raises(RobotRLError, match="--repair"):
        EpisodeStore.open(tmp_path)
    assert "checksum" in repair(tmp_path)[0]
    assert contents(EpisodeStore.open(tmp_path)[0]) == contents(make(5))
    assert repair(tmp_path) == []


def test_an_episode_of_nan_with_a_true_checksum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_files, "_check", lambda *_: None)
    episode = make(20)
    episode.obs["state"][3] = np.nan
    with EpisodeStore.create(tmp_path, SPEC) as store:
        store.append(episode)
    monkeypatch.undo()
    with pytest.raises(RobotRLError, match="obs/state holds NaN or infinity, first at step 3"):
        EpisodeStore.open(tmp_path)[0]
