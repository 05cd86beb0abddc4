"""LeRobot datasets: what is written is read back, by us here and by lerobot in `peer_lerobot.py`; old ones are read."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_rl import control
from robot_rl.formats import lerobot, lerobot_video, lerobot_writer
from robot_rl.types import CameraSpec, Channel, Episode, RobotRLError, Spec
from tests.test_formats import DATA

pyarrow = pytest.importorskip("pyarrow", reason="pip install 'robot-rl[lerobot]'")
import pyarrow.parquet as parquet  # noqa: E402

G1 = DATA / "lerobot" / "g1_pick_bottle"
SPEC = Spec(
    world="bench",
    arm="Panda",
    state=(Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0)),
    action=(Channel("eef_delta_x", "m", -0.05, 0.05), Channel("gripper", "1", -1.0, 1.0)),
    cameras=(CameraSpec("front", 32, 48),),
    rate=20.0,
    max_steps=50,
)
BLIND = replace(SPEC, cameras=())


def film(file, begin, rate, length, where, camera=SPEC.cameras[0]):
    size = (camera.height, camera.width)
    return lerobot_video.film(Path(file), begin, rate, length, where, camera, size)


units = st.floats(-1, 1, width=32)


def smooth_pictures(n: int, shift: float = 0.0) -> np.ndarray:
    """A bright spot that wanders: a video keeps it well."""
    y, x = np.mgrid[:32, :48]
    spots = [np.exp(-((x - 10 - t - shift) ** 2 + (y - 16) ** 2) / 60) for t in range(n)]
    return np.stack([np.stack([40 + 200 * s, 90 - 40 * s, 120 + 0 * s], -1) for s in spots]).astype(np.uint8)


def episode(T: int = 9, seed: int = 0, success: bool = True, cameras: bool = True) -> Episode:
    rng = np.random.default_rng(seed)
    reward = np.zeros(T, np.float32)
    reward[-1] = success
    stamps = 100.0 + np.arange(T + 1) * 0.05 + rng.uniform(0, 0.004, T + 1)
    obs = {"state": rng.uniform(-1, 1, (T + 1, 2)).astype(np.float32), "stamp/state": stamps}
    if cameras:
        obs |= {"image/front": smooth_pictures(T + 1, seed), "stamp/image/front": stamps - 0.01}
    action = rng.uniform(-1, 1, (T, 2)).astype(np.float32)
    return Episode(
        obs, action, reward, rng.uniform(0, 1, T).astype(np.float32), rng.uniform(size=T) < 0.3, success, not success,
        meta={"seed": seed},
    )  # fmt: skip


@st.composite
def blind_episodes(draw) -> Episode:
    T = draw(st.integers(1, 6))
    told = episode(T, draw(st.integers(0, 99)), draw(st.booleans()), cameras=False)
    told.action = draw(arrays(np.float32, (T, 2), elements=units))
    told.score = draw(arrays(np.float32, T, elements=st.floats(0, 1, width=32)))
    return told


def require_same(ours: Episode, theirs: Episode) -> None:
    assert np.allclose(ours.action, theirs.action, atol=1e-6)  # it goes through metres in float32
    for name in ("reward", "score", "intervened"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert (ours.terminated, ours.truncated, ours.meta) == (theirs.terminated, theirs.truncated, theirs.meta)
    assert set(ours.obs) == set(theirs.obs)
    for key in (k for k in ours.obs if not k.startswith("image/")):
        assert np.array_equal(ours.obs[key], theirs.obs[key]), key


@settings(max_examples=12, deadline=None)
@given(st.lists(blind_episodes(), min_size=1, max_size=3))
def test_what_is_written_is_read_back(exported):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset"
        assert lerobot_writer.write(path, BLIND, exported) == len(exported)
        dataset = lerobot.Dataset(path)
        assert dataset.spec() == BLIND
        for ours, theirs in zip(exported, dataset.episodes(BLIND), strict=True):
            require_same(ours, theirs)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("lerobot") / "dataset"
    lerobot_writer.write(path, SPEC, [episode(seed=0), episode(12, seed=1, success=False)])
    return path


def test_pictures_come_back_nearly_as_they_were_and_only_when_asked_for(written):
    dataset = lerobot.Dataset(written)
    assert dataset.spec() == BLIND and dataset.spec(["front"]) == SPEC
    assert "front (2 of 2 episodes)" in dataset.words([])
    for seed, theirs in enumerate(dataset.episodes(SPEC)):
        ours = episode(9 + 3 * seed, seed, success=not seed)
        require_same(ours, theirs)
        difference = ours.obs["image/front"].astype(int) - theirs.obs["image/front"]
        assert np.sqrt(np.mean(difference**2)) < 4.0
    assert "image/front" not in next(dataset.episodes(BLIND)).obs


def test_a_row_is_an_observation_with_the_action_that_followed_in_its_unit(written):
    table = parquet.read_table(written / "data/chunk-000/file-000.parquet")
    ours = episode()
    action = np.array(table["action"].to_pylist())
    assert np.allclose(action[:9], control.to_physical(ours.action, SPEC.action), atol=1e-7)
    assert np.array_equal(action[9], action[8])  # the last row has no action of its own
    assert table["next.success"].to_pylist()[:10] == [False] * 8 + [True] * 2
    assert table["index"].to_pylist() == list(range(10 + 13))
    assert np.allclose(np.diff(table["timestamp"].to_pylist()[10:]), 0.05)
    info = json.loads((written / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 23, 20)
    stats = json.loads((written / "meta/stats.json").read_text())["action"]
    assert np.allclose(stats["mean"], action.mean(0)) and np.allclose(stats["std"], action.std(0))
    assert stats["count"] == [23] and np.allclose(stats["max"], action.max(0))


def test_an_export_appears_whole_or_not_at_all(tmp_path):
    def breaks():
        yield episode()
        raise RobotRLError("the store is damaged")

    with pytest.raises(RobotRLError, match="damaged"):
        lerobot_writer.write(tmp_path / "d", SPEC, breaks())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RobotRLError, match="no episodes"):
        lerobot_writer.write(tmp_path / "d", SPEC, [])
    (tmp_path / "thesis").mkdir()
    with pytest.raises(RobotRLError, match="exists"):
        lerobot_writer.write(tmp_path / "thesis", SPEC, [episode()])
    with pytest.raises(RobotRLError, match="whole pictures a second"):
        lerobot_writer.write(tmp_path / "d", replace(SPEC, rate=12.5), [episode()])
    with pytest.raises(RobotRLError, match="even height and width.*front"):
        lerobot_writer.write(tmp_path / "d", replace(SPEC, cameras=(CameraSpec("front", 33, 48),)), [episode()])


def foreign(path: Path, rows: tuple[int, ...] = (5, 4), names=("a", "b"), **columns) -> Path:
    """A dataset v2.1 of another project: one file an episode, actions absolute; `columns` replace or add some."""
    rng = np.random.default_rng(0)
    about = {"dtype": "float32", "shape": [2], "names": names}
    features = {"observation.state": about, "action": about, "timestamp": {"dtype": "float32", "shape": [1]}}
    (path / "meta").mkdir(parents=True)
    (path / "data/chunk-000").mkdir(parents=True)
    for number, n in enumerate(rows):
        values = {"observation.state": rng.uniform(-3, 3, (n, 2)), "action": rng.uniform(0, 2, (n, 2))}
        values |= {"timestamp": np.arange(n) / 10, "episode_index": np.full(n, number)}
        values |= {key: value[:n] for key, value in columns.items()}
        table = pyarrow.table({k: v if isinstance(v, list) else pyarrow.array(v.tolist()) for k, v in values.items()})
        parquet.write_table(table, path / f"data/chunk-000/episode_{number:06d}.parquet")
    told = [{"episode_index": i, "tasks": ["lift"], "length": n} for i, n in enumerate(rows)]
    (path / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, told)))
    info = {"codebase_version": "v2.1", "robot_type": "so100", "fps": 10, "chunks_size": 1000, "features": features}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def test_another_projects_dataset_becomes_episodes_without_their_last_action(tmp_path):
    dataset = lerobot.Dataset(foreign(tmp_path / "d"))
    spec = dataset.spec()
    tables = [parquet.read_table(tmp_path / f"d/data/chunk-000/episode_00000{i}.parquet") for i in range(2)]
    actions = [np.array(t["action"].to_pylist()) for t in tables]
    first, second = dataset.episodes(spec)
    assert (spec.world, spec.arm, spec.rate, spec.max_steps) == ("lerobot:lift", "so100", 10.0, 4)
    assert [c.name for c in spec.action] == ["a", "b"]
    every = np.concatenate(actions)
    assert np.allclose([c.low for c in spec.action], every.min(0))
    assert np.allclose([c.high for c in spec.action], every.max(0))
    assert (len(first), len(second)) == (4, 3) and second.meta["tasks"] == ["lift"]
    assert np.allclose(control.to_physical(second.action, spec.action), actions[1][:-1], atol=1e-6)
    assert not first.success and first.truncated and first.obs["stamp/state"].tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_success_at_the_last_row_counts_for_the_last_action_that_is_kept(tmp_path):
    told = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    first, second = (lambda d: d.episodes(d.spec()))(lerobot.Dataset(foreign(tmp_path / "d", **{"next.reward": told})))
    assert first.reward.tolist() == [0.0, 0.0, 0.0, 1.0] and first.terminated
    assert not second.success and second.truncated


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["a", "b"], ["a", "b"]),
        ([["a", "b"]], ["a", "b"]),
        ({"motors": ["a", "b"]}, ["a", "b"]),
        ({"b": 1, "a": 0}, ["a", "b"]),
        (None, ["action_0", "action_1"]),
        (["only one"], ["action_0", "action_1"]),
    ],
)
def test_names_are_read_in_every_form_in_which_lerobot_wrote_them(tmp_path, names, read):
    assert [c.name for c in lerobot.Dataset(foreign(tmp_path / "d", names=names)).spec().action] == read


def test_a_channel_that_never_moves_has_a_range_all_the_same(tmp_path):
    still = np.tile([[0.5, 0.0]], (5, 1)) + np.arange(5)[:, None] * [0.0, 1.0]
    spec = lerobot.Dataset(foreign(tmp_path / "d", action=still)).spec()
    assert (spec.action[0].low, spec.action[0].high) == (-0.5, 1.5)


def nan(values: np.ndarray) -> np.ndarray:
    values[2, 1] = np.nan
    return values


def test_what_is_damaged_is_refused_by_name(tmp_path):
    with pytest.raises(RobotRLError, match="info.json is missing"):
        lerobot.Dataset(tmp_path)
    dataset = lerobot.Dataset(foreign(tmp_path / "nan", action=nan(np.ones((5, 2)))))
    with pytest.raises(RobotRLError, match="'action' holds NaN or infinity, first in row 2"):
        dataset.spec()
    path = foreign(tmp_path / "short", rows=(5, 1))
    with pytest.raises(RobotRLError, match="episode 1 has 1 rows; it needs 2"):
        list((d := lerobot.Dataset(path)).episodes(d.spec()))
    path = foreign(tmp_path / "cut", rows=(5, 4))
    file = path / "data/chunk-000/episode_000000.parquet"
    parquet.write_table(parquet.read_table(file).slice(0, 3), file)
    with pytest.raises(RobotRLError, match="episode 0 has 3 rows, meta/ says 5"):
        list((d := lerobot.Dataset(path)).episodes(d.spec()))
    file.write_bytes(b"torn")
    with pytest.raises(RobotRLError, match="episode_000000.parquet is no whole parquet file"):
        lerobot.Dataset(path).spec()
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(RobotRLError, match="format v1.6; v2.0, v2.1, v3.0 are read"):
        lerobot.Dataset(path)


def test_a_video_that_is_cut_short_or_missing_is_told(written, tmp_path):
    written = shutil.copytree(written, tmp_path / "copy")
    dataset = lerobot.Dataset(written)
    file = next(iter(dataset.recordings[1].videos.values()))[0]
    with pytest.raises(RobotRLError, match="the video ends after 13 of 14 pictures"):
        film(file, 0.0, 20.0, 14, "it")
    with pytest.raises(RobotRLError, match="picture 1 is .* s off"):
        film(file, 0.0, 60.0, 3, "it")
    (tmp_path / "torn.mp4").write_bytes(file.read_bytes()[:500])
    with pytest.raises(RobotRLError, match="cannot be decoded"):
        film(tmp_path / "torn.mp4", 0.0, 20.0, 3, "it")
    with pytest.raises(RobotRLError, match="no camera 'wrist'; it has: front"):
        dataset.spec(["wrist"])
    file.unlink()
    assert "1 of 2 episodes have pictures of front, only they are read: [0]" in lerobot.Dataset(written).words(
        ["front"]
    )
    assert len(list(lerobot.Dataset(written).episodes(SPEC))) == 1


def test_pictures_of_an_episode_within_a_longer_video(written):
    file = next(iter(lerobot.Dataset(written).recordings[1].videos.values()))[0]
    whole = film(file, 0.0, 20.0, 13, "it")
    assert np.array_equal(film(file, 0.35, 20.0, 4, "it"), whole[7:11])


def test_pictures_that_lie_among_the_numbers(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8)
    encoded = [{"bytes": cv2.imencode(".png", p[..., ::-1])[1].tobytes(), "path": None} for p in pictures]
    path = foreign(tmp_path / "d", rows=(5,), **{"observation.images.top": encoded})
    info = json.loads((path / "meta/info.json").read_text())
    names = ["height", "width", "channel"]
    info["features"]["observation.images.top"] = {"dtype": "image", "shape": [6, 8, 3], "names": names}
    (path / "meta/info.json").write_text(json.dumps(info))
    dataset = lerobot.Dataset(path)
    spec = dataset.spec(["top"])
    assert spec.cameras == (CameraSpec("top", 6, 8),)
    assert np.array_equal(next(dataset.episodes(spec)).obs["image/top"], pictures)


@pytest.mark.skipif(not G1.exists(), reason=f"no dataset at {G1}; set ROBOT_RL_DATA")
def test_a_real_dataset_of_another_laboratory_is_read():
    dataset = lerobot.Dataset(G1)
    spec = dataset.spec()
    assert len(dataset.recordings) == 100 and (spec.arm, spec.rate, spec.max_steps) == ("Unitree_G1_Inspire", 30, 582)
    assert spec.action[0].name == "kLeftShoulderPitch" and len(spec.state) == len(spec.action) == 26
    assert "cam_high (3 of 100 episodes)" in dataset.words([])
    assert [r.number for r in dataset.filmed(["cam_high"])] == [1, 2, 4]
    read = list(dataset.episodes(spec))
    assert sum(map(len, read)) == 35965 - 100
    table = parquet.read_table(dataset.recordings[7].data)
    commanded = np.array(table["action"].to_pylist())
    assert np.allclose(control.to_physical(read[7].action, spec.action), commanded[:-1], atol=1e-6)
    filmed = dataset.recordings[2]
    pictures = film(
        *filmed.videos["observation.images.cam_high"], dataset.rate, 20, "it", CameraSpec("cam_high", 480, 640)
    )
    assert pictures.shape == (20, 480, 640, 3) and pictures.std() > 20
