"""LeRobot datasets as people have them: each reads as what it is, or is refused with file and key."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_rl import control, imports
from robot_rl.formats import lerobot
from robot_rl.formats.account import Account
from robot_rl.imports import ImportConfig
from robot_rl.types import CameraSpec, RobotRLError
from sim.worlds import WorldConfig
from tests.made import changed, feature, png
from tests.made import lerobot as dataset

pytest.importorskip("pyarrow", reason="pip install 'robot-rl[lerobot]'")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def read(path: Path, *cameras: str, account: Account | None = None, **options):
    config = ImportConfig(ignore_rewards=options.pop("ignore_rewards", False))
    spec, episodes = imports.recordings(path, WorldConfig(world="", cameras=cameras, **options), None, config, account)
    return spec, list(episodes)


def refused(path: Path, says: str, *cameras: str, **options) -> None:
    with pytest.raises(RobotRLError, match=says):
        read(path, *cameras, **options)


@pytest.mark.parametrize("file", ["meta/info.json", "meta/episodes.jsonl", "data/chunk-000/episode_000001.parquet"])
def test_pointers_of_git_lfs_are_named_with_the_remedy(tmp_path, file):
    (dataset(tmp_path / "d") / file).write_text(POINTER)
    refused(tmp_path / "d", f"{file}.*git-lfs.*`git lfs pull`")


@pytest.mark.parametrize(
    "pattern",
    [
        "data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet",
        "data/chunk-000/episode_{episode_index:06}.parquet",
    ],
)
def test_path_patterns_of_other_writers_are_read(tmp_path, pattern):
    assert [len(e) for e in read(dataset(tmp_path / "d", pattern=pattern))[1]] == [11, 11]


@pytest.mark.parametrize(
    "pattern", ["data/{nothing}.parquet", "../{episode_index}.parquet", "/x/{episode_index}.parquet", "{", None, 7]
)
def test_a_path_pattern_that_cannot_be_is_named(tmp_path, pattern):
    path = dataset(tmp_path / "d")
    changed(path / "meta/info.json", {"data_path": pattern})
    refused(path, "info.json: 'data_path'")


def test_files_that_a_copy_lacks_are_named_and_the_rest_is_read(tmp_path):
    path = dataset(tmp_path / "d", (12, 9, 7))
    (path / "data/chunk-000/episode_000001.parquet").unlink()
    _, episodes = read(path, account=(account := Account()))
    assert [e.meta["episode"] for e in episodes] == [0, 2]
    assert (
        "left out: 1 of 3 episodes, 1 (the copy lacks 1 of 3 files" in account.lines()[-1]
        and "episode_000001" in account.lines()[-1]
    )
    for file in (path / "data").rglob("*.parquet"):
        file.unlink()
    refused(path, "lacks all 3 files of numbers.*episode_000000.parquet")


def test_stamps_that_contradict_the_rate_are_told(tmp_path):
    frame = np.arange(24) % 12
    read(dataset(tmp_path / "slow", columns={"timestamp": frame / 9.25}), account=(account := Account()))
    assert "its stamps say 9.25 Hz, and meta/info.json says fps 10" in " ".join(account.lines())
    read(dataset(tmp_path / "right"), account=(account := Account()))
    assert "its stamps" not in " ".join(account.lines())


@pytest.mark.parametrize(("unit", "name"), [(1e9, "nanoseconds"), (1e6, "microseconds"), (1e3, "milliseconds")])
def test_stamps_in_other_units_become_seconds(tmp_path, unit, name):
    stamps = ((100 + np.arange(24) % 12 / 10) * unit).astype(np.int64)
    _, episodes = read(dataset(tmp_path / "d", columns={"timestamp": stamps}), account=(account := Account()))
    assert np.allclose(episodes[0].obs["stamp/state"], 100 + np.arange(12) / 10) and name in " ".join(account.lines())


VIDEO = {"dtype": "video", "shape": [6, 8, 3], "names": ["height", "width", "channels"]}


@pytest.mark.parametrize("index", [[None, None], [0.0, None], None])
def test_videos_that_meta_does_not_place_are_not_there(tmp_path, index):
    keys = {f"videos/observation.images.top/{k}": index for k in ("chunk_index", "file_index", "from_timestamp")}
    about = {k: v for k, v in keys.items() if v is not None}
    info = {"video_path": "videos/{video_key}/file-{file_index:03d}.mp4"}
    path = dataset(tmp_path / "d", version="v3.0", features={"observation.images.top": VIDEO}, about=about, info=info)
    _, episodes = read(path, account=(account := Account()))
    assert [len(e) for e in episodes] == [11, 11]
    assert "left out: camera top (ask for it with --cameras; 0 of 2 episodes have its pictures)" in account.lines()[-1]
    refused(path, "no video of top for any episode", "top")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fps": None}, "info.json: 'fps'"),
        ({"fps": "30"}, "info.json: 'fps'"),
        ({"fps": 0}, "info.json: 'fps'"),
        ({"fps": -10}, "info.json: 'fps'"),
        ({"fps": True}, "info.json: 'fps'"),
        ({"features": []}, "info.json: 'features'"),
        ({"features": {"action": 3}}, "info.json: features: 'action'"),
        ({"robot_type": 7}, "info.json: 'robot_type'"),
        ({"codebase_version": None}, "info.json: 'codebase_version'"),
    ],
)
def test_metadata_that_cannot_be_are_named_with_file_and_key(tmp_path, change, says):
    path = dataset(tmp_path / "d")
    changed(path / "meta/info.json", change)
    refused(path, says)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"length": 0}, r"episodes.jsonl: line 1: episode 0 has 0 rows"),
        ({"length": "12"}, r"episodes.jsonl: line 1: 'length'"),
        ({"length": None}, r"episodes.jsonl: line 1: 'length'"),
        ({"episode_index": -1}, r"episodes.jsonl: line 1: 'episode_index'"),
        ({"episode_index": 0}, "lists the episodes .0. twice"),
        ({"tasks": {"a": 1}}, r"episodes.jsonl: line 1: 'tasks'"),
    ],
)
def test_episodes_that_cannot_be_are_named(tmp_path, about, says):
    refused(dataset(tmp_path / "d", about=about), says)


@pytest.mark.parametrize("about", [{"tasks": "pick"}, {"tasks": None, "task": "pick"}, {"task": "other"}])
def test_a_task_may_be_a_string(tmp_path, about):
    assert read(dataset(tmp_path / "d", about=about))[0].world == "lerobot:pick"


SHAPES = [
    ([6, 8, 3], ["height", "width", "rgb"]),
    ([3, 6, 8], ["channels", "height", "width"]),
    ([3, 6, 8], ["c", "h", "w"]),
    ([3, 6, 8], None),
    ([6, 8, 3], None),
    ([6, 8, 3], {"axes": ["height", "width", "channels"]}),
    ([6, 8], None),
]
IMAGES = [png(np.full((6, 8, 3), 10 * (i % 12), np.uint8)) for i in range(24)]


@pytest.mark.parametrize(("shape", "names"), SHAPES)
def test_pictures_are_read_in_whatever_order_their_shape_is_written(tmp_path, shape, names):
    features = {"observation.images.top": {"dtype": "image", "shape": shape, "names": names}}
    path = dataset(tmp_path / "d", features=features, columns={"observation.images.top": IMAGES})
    spec, episodes = read(path, "top")
    assert spec.cameras == (CameraSpec("top", 6, 8),)
    assert episodes[1].obs["image/top"].shape == (12, 6, 8, 3) and episodes[1].obs["image/top"][5, 0, 0, 0] == 50


@pytest.mark.parametrize("shape", [[5, 6, 8], [6], [6, 8, 2], [1, 2, 3, 4, 5], []])
def test_shapes_of_pictures_that_mean_nothing_are_refused(tmp_path, shape):
    features = {"observation.images.top": {"dtype": "image", "shape": shape, "names": None}}
    refused(
        dataset(tmp_path / "d", features=features, columns={"observation.images.top": IMAGES}),
        "observation.images.top: 'shape'",
        "top",
    )


def test_pictures_are_made_to_the_size_that_is_asked_for(tmp_path):
    features = {"observation.images.top": {"dtype": "image", "shape": [6, 8, 3], "names": None}}
    path = dataset(tmp_path / "d", features=features, columns={"observation.images.top": IMAGES})
    spec, episodes = read(path, "top", image_size=4)
    assert spec.cameras == (CameraSpec("top", 4, 4),) and episodes[0].obs["image/top"].shape == (12, 4, 4, 3)


def test_depth_of_16_bits_stays_what_it_is(tmp_path):
    depth = [png(np.full((6, 8), 400 + 50 * (i % 12), np.uint16)) for i in range(24)]
    features = {"observation.images.near": {"dtype": "image", "shape": [6, 8, 1], "names": None}}
    for name, info in (("said", {"is_depth_map": True}), ("unsaid", {})):
        features["observation.images.near"]["info"] = info
        path = dataset(tmp_path / name, features=features, columns={"observation.images.near": depth})
        spec, episodes = read(path, "near")
        assert spec.cameras == (CameraSpec("near", 6, 8, depth=True),)
        seen = episodes[0].obs["image/near"]
        assert (
            seen.dtype == np.uint16
            and seen.shape == (12, 6, 8, 1)
            and seen[:, 0, 0, 0].tolist() == [400 + 50 * k for k in range(12)]
        )
    features["observation.images.near"]["info"] = {"is_depth_map": True}
    grey = [png(np.full((6, 8), 40, np.uint8)) for _ in range(24)]
    refused(
        dataset(tmp_path / "grey", features=features, columns={"observation.images.near": grey}),
        "not depth of 16 bits",
        "near",
    )


def test_pictures_that_only_have_a_path_are_read_from_there_and_from_nowhere_else(tmp_path):
    paths = [f"images/{i}.png" for i in range(24)]
    features = {"observation.images.top": {"dtype": "image", "shape": [6, 8, 3], "names": None}}
    column = [{"bytes": None, "path": p} for p in paths]
    path = dataset(tmp_path / "d", features=features, columns={"observation.images.top": column})
    (path / "images").mkdir()
    for i, p in enumerate(paths):
        cv2.imwrite(str(path / p), np.full((6, 8, 3), i, np.uint8))
    assert read(path, "top")[1][1].obs["image/top"][3, 0, 0, 0] == 15
    (path / paths[4]).unlink()
    refused(path, "4.png is missing", "top")
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((6, 8, 3), np.uint8))
    column[0]["path"] = "../secret.png"
    outside = dataset(tmp_path / "e", features=features, columns={"observation.images.top": column})
    refused(outside, "outside its own folder", "top")


def rows(**changes):
    values = np.random.default_rng(0).uniform(-1, 1, (24, 2)).tolist()
    for i, value in changes.get("at", {}).items():
        values[i] = value
    return values


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (rows(at={3: None}), "'observation.state' is null in rows, first in row 3"),
        ([None] * 12 + rows()[12:], "'observation.state' is null in rows, first in row 0"),
        (rows(at={3: [0.1, None]}), "'observation.state' is null in rows, first in row 3"),
        (rows(at={3: [0.1]}), "'observation.state' have 1 to 2 numbers"),
        ([[1.0, 2.0, 3.0]] * 24, "'observation.state' has 3 numbers in a row, meta/info.json says 2"),
        ([[[1.0], [2.0]]] * 24, "'observation.state' holds matrices"),
        (["x"] * 24, "'observation.state' holds string, not numbers"),
        (rows(at={3: [0.1, float("nan")]}), "'observation.state' holds NaN or infinity, first in row 3"),
    ],
)
def test_columns_that_are_no_rows_of_numbers_are_refused(tmp_path, values, says):
    refused(
        dataset(tmp_path / "d", columns={"observation.state": values}),
        f"episode_000000.parquet.*{says}|file-000.*{says}",
    )


def test_actions_that_are_matrices_are_refused_with_their_key(tmp_path):
    refused(
        dataset(tmp_path / "d", features={"action": {**feature(2), "shape": [2, 2]}}),
        "features: action: 'shape' is .2, 2.",
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"arm": ["a"], "gripper": "b"}, ["a", "b"]),
        ({"motors": ["a", "b"]}, ["a", "b"]),
        (["a"], ["state_0", "state_1"]),
        ({}, ["state_0", "state_1"]),
        (["a", None], ["a", "None"]),
        (["gripper", "gripper"], ["gripper", "gripper"]),
    ],
)
def test_names_are_flattened_and_too_few_are_said(tmp_path, names, told):
    path = dataset(tmp_path / "d", features={"observation.state": feature(2, names)})
    spec, _ = read(path, account=(account := Account()))
    assert [c.name for c in spec.state] == told
    assert ("2 numbers and 1 names" in " ".join(account.lines())) == (names == ["a"])


def test_keys_as_openpi_writes_them_are_read_and_others_are_told(tmp_path):
    moved = {"observation.state": None, "action": None}
    state = np.random.default_rng(1).uniform(-1, 1, (24, 2))
    path = dataset(
        tmp_path / "d",
        features={**moved, "state": feature(2), "actions": feature(2), "image": VIDEO, "wrench": feature(6)},
        columns={**moved, "state": state, "actions": state},
    )  # fmt: skip
    spec, episodes = read(path, account=(account := Account()))
    assert np.allclose(episodes[1].obs["state"], state[12:]) and [c.name for c in spec.action] == [
        "action_0",
        "action_1",
    ]
    assert "camera image" in account.lines()[-1] and "wrench (no vector that the robot observes)" in account.lines()[-1]
    refused(
        dataset(tmp_path / "e", features={"action": None, "command": feature(2)}),
        "no feature 'action'.*has .*command.*rename",
    )


def test_rewards_of_both_conventions_and_none(tmp_path):
    tail = ((np.arange(24) % 12) >= 8).astype(float)
    for name, told in (("tail", tail), ("minus", tail - 1)):
        path = dataset(tmp_path / name, columns={"next.reward": told}, features={"next.reward": feature(1)})
        _, episodes = read(path, account=(account := Account()))
        assert [(len(e), e.reward.sum(), e.terminated) for e in episodes] == [(9, 1.0, True)] * 2
        assert episodes[0].obs["state"].shape == (10, 2) and "cut at the first success: 4 steps" in " ".join(
            account.lines()
        )
    _, episodes = read(dataset(tmp_path / "none"), account=(account := Account()))
    assert not any(e.success for e in episodes) and "nothing in it says what succeeded" in " ".join(account.lines())
    dense = dataset(tmp_path / "dense", columns={"next.reward": tail * 0.3}, features={"next.reward": feature(1)})
    refused(dense, "next.reward spans .0, 0.3.*--ignore-rewards")
    assert [len(e) for e in read(dense, ignore_rewards=True)[1]] == [11, 11]


def test_a_quaternion_within_the_state_is_seen_as_six_numbers(tmp_path):
    names = ["x", "qx", "qy", "qz", "qw"]
    angle = np.linspace(0, 1, 24)
    quat = (
        np.stack([np.zeros(24), np.zeros(24), np.sin(angle / 2), np.cos(angle / 2)], 1)
        * np.where(np.arange(24) % 2, -1, 1)[:, None]
    )
    state = np.concatenate([np.zeros((24, 1)), quat], 1)
    path = dataset(
        tmp_path / "d", features={"observation.state": feature(5, names)}, columns={"observation.state": state}
    )
    spec, episodes = read(path)
    assert [c.name for c in spec.state] == ["x", *(f"rot6d_{i}" for i in range(6))]
    assert np.abs(np.diff(episodes[0].obs["state"], axis=0)).max() < 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arm": "Panda"}, "--arm means nothing.*--cameras, --image-size"),
        ({"controller": "OSC_POSE"}, "--controller means nothing"),
        ({"max_steps": 9}, "--max-steps means nothing"),
        ({"shadows": False}, "--shadows means nothing"),
        ({"cameras": ("nosuch",)}, "no camera 'nosuch'.*it has: none"),
    ],
)
def test_options_that_do_nothing_are_refused(tmp_path, options, says):
    with pytest.raises(RobotRLError, match=says):
        imports.recordings(dataset(tmp_path / "d"), WorldConfig(world="", **options))


def test_a_filter_key_means_nothing_to_lerobot(tmp_path):
    with pytest.raises(RobotRLError, match="--filter-key means nothing"):
        imports.recordings(dataset(tmp_path / "d"), WorldConfig(world=""), None, ImportConfig(filter_key="train"))


def test_seen_ranges_are_marked_and_a_still_channel_has_one(tmp_path):
    action = np.stack([np.full(24, 0.5), np.linspace(0, 1, 24)], 1)
    spec, episodes = read(dataset(tmp_path / "d", columns={"action": action}))
    assert all(c.seen for c in (*spec.state, *spec.action)) and (spec.action[0].low, spec.action[0].high) == (-0.5, 1.5)
    assert np.allclose(control.to_physical(episodes[0].action, spec.action), action[:11], atol=1e-6)


def test_info_that_is_no_json_is_named(tmp_path):
    path = dataset(tmp_path / "d")
    for text in ("{", "[]", "3", json.dumps({"codebase_version": "v9"})):
        (path / "meta/info.json").write_text(text)
        refused(path, "info.json|format v9")
    assert lerobot.is_dataset(path)
