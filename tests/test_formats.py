"""Foreign files become our episodes; a damaged file is refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl import control
from robot_rl.formats import diffusion_policy
from robot_rl.types import CameraSpec, Channel, RobotRLError, Spec

PLANE = Spec(
    world="plane",
    arm="",
    state=(Channel("x", "px", 0.0, 512.0), Channel("y", "px", 0.0, 512.0)),
    action=(Channel("x", "px", 0.0, 512.0), Channel("y", "px", 0.0, 512.0)),
    cameras=(),
    rate=10.0,
    max_steps=100,
)


def same(states: np.ndarray) -> np.ndarray:
    return states.astype(np.float32)


def at_the_edge(states: np.ndarray) -> np.ndarray:
    return (states[:, 0] / 512).astype(np.float32)


def empty(group, key, shape, chunks, dtype):
    make = group.create_array if hasattr(group, "create_array") else group.create_dataset  # zarr 3, zarr 2
    return make(key, shape=shape, chunks=chunks, dtype=dtype)


def buffer(path: Path, ends: tuple[int, ...] = (4, 9), **arrays: np.ndarray) -> Path:
    """A Diffusion Policy replay buffer with two episodes of 4 and 5 rows, but for what is given."""
    rng = np.random.default_rng(0)
    values = {"state": rng.uniform(0, 500, (9, 2)), "action": rng.uniform(0, 512, (9, 2)), **arrays}
    version = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
    root = zarr.open_group(str(path), mode="w", **version)
    for key, value in values.items():
        empty(root.require_group("data"), key, value.shape, (3, *value.shape[1:]), "f4")[:] = value
    empty(root.require_group("meta"), "episode_ends", (len(ends),), (8,), "i8")[:] = np.array(ends)
    return path


def read(path: Path, spec: Spec = PLANE) -> list:
    return list(diffusion_policy.read(path, spec, same, at_the_edge))


def test_a_buffer_becomes_episodes_without_their_last_action(tmp_path):
    actions = np.random.default_rng(1).uniform(0, 512, (9, 2)).astype(np.float32)
    first, second = read(buffer(tmp_path / "b.zarr", action=actions))
    assert (len(first), len(second)) == (3, 4)
    assert first.obs["state"].shape == (4, 2) and second.obs["stamp/state"].tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert np.allclose(control.to_physical(second.action, PLANE.action), actions[4:8], atol=1e-4)
    assert second.meta["reset_to"] == pytest.approx(second.obs["state"][0].tolist())
    assert first.truncated and not first.terminated and not first.success


def test_the_score_after_an_action_is_that_of_the_state_it_led_to(tmp_path):
    states = np.ones((9, 2))
    states[3] = 512.0
    first, second = read(buffer(tmp_path / "b.zarr", state=states))
    assert first.reward.tolist() == [0.0, 0.0, 1.0] and first.score.tolist() == [1 / 512, 1 / 512, 1.0]
    assert first.terminated and not first.truncated and not second.terminated


def test_float_pictures_become_bytes(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (9, 6, 8, 3))
    spec = Spec(**{**PLANE.__dict__, "cameras": (CameraSpec("top", 6, 8),)})
    first, second = read(buffer(tmp_path / "b.zarr", img=pictures), spec)
    assert second.obs["image/top"].dtype == np.uint8 and np.array_equal(second.obs["image/top"], pictures[4:])
    with pytest.raises(RobotRLError, match="0..255"):
        read(buffer(tmp_path / "unit.zarr", img=pictures / 255), spec)


def nan_state() -> np.ndarray:
    states = np.ones((9, 2))
    states[5, 1] = np.nan
    return states


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"state": nan_state()}, "data/state holds NaN.*row 5"),
        ({"action": np.zeros((8, 2))}, "data/action has 8 rows"),
        ({"action": np.full((9, 2), 600.0)}, "episode 0: 3 actions are out of range.*600 px"),
        ({"action": np.ones((9, 3))}, "3 columns; plane takes 2"),
        ({"ends": ()}, "holds no episodes"),
        ({"ends": (8, 9)}, "episode 1 has 1 rows"),
    ],
)
def test_a_damaged_buffer_is_refused(tmp_path, arrays, says):
    with pytest.raises(RobotRLError, match=says):
        read(buffer(tmp_path / "b.zarr", **arrays))


def test_a_buffer_that_lacks_files_is_refused(tmp_path):
    with pytest.raises(RobotRLError, match="does not exist"):
        read(tmp_path / "nothing.zarr")
    (tmp_path / "text.zarr").write_text("not a store")
    with pytest.raises(RobotRLError, match="not a whole Diffusion Policy"):
        read(tmp_path / "text.zarr")
    chunk = buffer(tmp_path / "b.zarr") / "data" / "state" / "1.0"
    chunk.unlink()
    with pytest.raises(RobotRLError, match="1 of 3 chunk files of data/state are missing"):
        read(tmp_path / "b.zarr")
    chunk.write_bytes(b"torn")
    with pytest.raises(RobotRLError, match="data/state cannot be decoded"):
        read(tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "b.zarr" / "data" / "action")
    with pytest.raises(RobotRLError, match="lacks data/action|cannot be decoded"):
        read(tmp_path / "b.zarr")
