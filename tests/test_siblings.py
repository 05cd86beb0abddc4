"""Files and command lines that a stranger brought: siblings of the faults F49 to F58."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_rl import cli, evaluate, imports, outputs
from robot_rl.formats.account import Account
from robot_rl.types import Episode, RobotRLError, Spec
from sim.worlds import WorldConfig
from tests import made


def read(source: Path) -> tuple[Spec, list[Episode], str]:
    account = Account()
    spec, episodes = imports.recordings(source, WorldConfig(world=""), account=account)
    return spec, list(episodes), "\n".join(account.lines())


def demos(path: Path, change: Any = None, **obs: np.ndarray) -> Path:
    """robomimic's layout: two demonstrations of 10 steps, with `obs` beside three joints."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for i in range(2):
            demo = data.create_group(f"demo_{i}")
            demo["actions"], demo["rewards"] = rng.uniform(-1, 1, (10, 4)), np.eye(10)[-1]
            for group in ("obs", "next_obs"):
                for key, values in {"q": rng.normal(size=(10, 3)), **obs}.items():
                    demo[f"{group}/{key}"] = values
        if change is not None:
            change(data)
    return path


def names(spec: Spec) -> list[str]:
    return [c.name for c in spec.state]


@pytest.mark.parametrize(("key", "size"), [("ee_ori", 4), ("axis_angle", 4), ("hands_rotvec", 6), ("arms_quat", 8)])
def test_more_numbers_than_a_rotation_has_are_kept_as_they_are_and_said(tmp_path: Path, key: str, size: int) -> None:
    values = np.full((10, size), 0.5)
    spec, episodes, told = read(demos(tmp_path / "a.hdf5", **{key: values}))
    assert [f"{key}_{i}" for i in range(size)] == names(spec)[:size]
    assert (episodes[0].obs["state"][:, :size] == 0.5).all()
    assert f"{key} is called a rotation" in told


@pytest.mark.parametrize(("key", "size"), [("ee_ori", 3), ("arm_quat", 4)])
def test_one_rotation_is_still_six_numbers(tmp_path: Path, key: str, size: int) -> None:
    spec, _, told = read(demos(tmp_path / "a.hdf5", **{key: np.full((10, size), 0.5)}))
    assert sum("rot6d" in name for name in names(spec)) == 6 and "is called a rotation" not in told


def test_demonstrations_of_other_names_and_later_observations_are_said(tmp_path: Path) -> None:
    def change(data: h5py.Group) -> None:
        data.copy(data["demo_0"], "episode_7")
        data["demo_1/obs/extra"] = np.ones((10, 2))

    _, episodes, told = read(demos(tmp_path / "a.hdf5", change))
    assert len(episodes) == 2 and "data/episode_7 (not called demo_<i>)" in told
    assert "obs/extra (the first demonstration does not have it)" in told


def test_actions_of_minus_128_in_int8_are_no_deltas(tmp_path: Path) -> None:
    def change(data: h5py.Group) -> None:
        for demo in data.values():
            del demo["actions"]
            demo["actions"] = np.full((10, 4), -128, np.int8)

    with pytest.raises(RobotRLError, match="reach 128"):
        read(demos(tmp_path / "a.hdf5", change))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e39, 1e308])
def test_numbers_that_float32_cannot_hold_are_named_with_file_and_key(tmp_path: Path, value: float) -> None:
    wide = np.array([[value, -value]] * 5 + [[-value, value]] * 5)
    with pytest.raises(RobotRLError, match=r"a\.hdf5: demo_0: 'big' holds numbers beyond 1e\+30"):
        read(demos(tmp_path / "a.hdf5", big=wide))
    for key in ("observation.state", "action"):
        source = made.lerobot(tmp_path / key, columns={key: np.resize(wide, (24, 2))})
        with pytest.raises(RobotRLError, match=rf"parquet.*'{key}' holds numbers beyond 1e\+30"):
            read(source)


@pytest.mark.parametrize("stamps", [5, "ab", {"a": 1}, [[1]]])
def test_odd_stamps_in_a_dataset_of_our_own_are_named(tmp_path: Path, stamps: Any) -> None:
    source = made.lerobot(tmp_path / "a")
    (source / "meta/robot_rl.json").write_text(json.dumps({"spec": {}, "episodes": [{"stamps": stamps}] * 2}))
    with pytest.raises(RobotRLError, match=r"robot_rl\.json"):
        read(source)


def test_two_cameras_that_would_have_one_name_are_said(tmp_path: Path) -> None:
    camera = {"dtype": "video", "shape": [8, 8, 3], "names": None}
    source = made.lerobot(
        tmp_path / "a", features={"observation.images.a.b": camera, "observation.images.a_b": dict(camera)}
    )
    _, _, told = read(source)
    assert "observation.images.a_b (its name would be a_b, as that of observation.images.a.b" in told


def test_names_cannot_write_lines_or_codes_to_the_terminal(tmp_path: Path) -> None:
    features = {"observation.state": made.feature(2, ["a\x1b[2J", "b\nWARNING fake"])}
    spec, _, _ = read(made.lerobot(tmp_path / "a", features=features))
    assert names(spec) == ["a?[2J", "b?WARNING fake"]


def test_a_hundred_thousand_episodes_of_which_one_is_listed_twice_take_seconds(tmp_path: Path) -> None:
    source = made.lerobot(tmp_path / "a")
    row = {"tasks": ["x"], "length": 12}
    pattern = "data/chunk-000/episode_000000.parquet"
    info = json.loads((source / "meta/info.json").read_text()) | {"data_path": pattern}
    (source / "meta/info.json").write_text(json.dumps(info))
    lines = [json.dumps({"episode_index": i, **row}) for i in [*range(100_000), 0]]
    (source / "meta/episodes.jsonl").write_text("\n".join(lines))
    start = time.process_time()
    with pytest.raises(RobotRLError, match=r"\[0\] twice"):
        read(source)
    assert time.process_time() - start < 30  # it was minutes


def test_metadata_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    source = made.lerobot(tmp_path / "a")
    file = source / "meta/info.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read(source)[1]) == 2


def test_links_out_of_a_folder_of_aloha_are_refused(tmp_path: Path) -> None:
    outside, inside = made.aloha(tmp_path / "outside"), made.aloha(tmp_path / "inside")
    for episode in sorted(inside.glob("*.hdf5")):
        episode.unlink()
        episode.symlink_to(outside / episode.name)
    with pytest.raises(RobotRLError, match="link out of its dataset"):
        read(inside)


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RobotRLError, match="is no regular file"):
            read(source)


def test_options_with_nothing_behind_them_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert cli.main(["pretrain", "--out", str(out), "--store", "--steps", "5"]) == 2
    assert cli.main(["refine", "--out", str(out), "--policy", "p", "--demos"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "--store is given, and nothing behind it" in told[0] and not out.exists()


@pytest.mark.parametrize("text", ["", "PK\3\4", '{"config": {}}', "[1]"])
def test_evaluate_overwrites_nothing_but_a_result(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.pt"
    file.write_text(text)
    with pytest.raises(RobotRLError, match="is no result of evaluate"):
        evaluate.require_replaceable(file)
    with pytest.raises(RobotRLError, match="is no result of evaluate"):
        evaluate.require_replaceable(Path("/dev/null"))
    file.write_text('{"summary": {}, "episodes": []}')
    evaluate.require_replaceable(file)
    evaluate.require_replaceable(tmp_path / "new.json")


def test_nothing_is_written_into_a_store_but_its_episodes(tmp_path: Path) -> None:
    (tmp_path / ".zattrs").touch()
    (tmp_path / ".lock").touch()
    for place in (outputs.new, outputs.file, outputs.folder):
        with pytest.raises(RobotRLError, match="lies in the store of episodes"), place(tmp_path / "000009"):
            pass
    assert not (tmp_path / "000009").exists()


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault(tmp_path: Path, closed: str) -> None:
    command = f"exec {sys.executable} -m robot_rl inspect --help {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
