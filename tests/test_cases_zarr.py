"""Diffusion Policy's replay buffers as people have them: chunks left out, zips, other layouts, another goal."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl import control, imports
from robot_rl.formats import diffusion_policy
from robot_rl.formats.account import Account
from robot_rl.imports import ImportConfig
from robot_rl.types import CameraSpec, Channel, Episode, RobotRLError, Spec
from sim import pusht
from sim.pusht import PushTConfig
from sim.worlds import WorldConfig
from tests.made import ZARR_3, buffer

VERSIONS = [2, 3] if ZARR_3 else [2]
LATE_ZEROS = np.concatenate([np.full((10, 2), 9.0), np.zeros((10, 2))])
SPEC = PushTConfig().spec()


def read(path: Path, account: Account | None = None) -> list[Episode]:
    """As Push-T, without its physics."""
    return list(diffusion_policy.read(path, SPEC, pusht.observe, pusht.grade, account))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chunk_of_zeros_that_zarr_left_out_is_zeros_and_said(tmp_path, version):
    path = buffer(tmp_path / "b.zarr", version, action=LATE_ZEROS)
    assert (
        len([f for f in (path / "data/action").rglob("*") if f.is_file() and not f.name.startswith((".z", "zarr"))])
        == 1
    )
    first, second = read(path, account := Account())
    assert (second.action == -1.0).all() and not (first.action == -1.0).any()
    assert "data/action: 1 of 2 chunks are not stored and read as its fill value 0" in account.lines()[0]


def test_another_fill_value_is_honoured_and_none_is_refused(tmp_path):
    path = buffer(tmp_path / "b.zarr", action=LATE_ZEROS)
    about = json.loads((path / "data/action/.zarray").read_text())
    (path / "data/action/.zarray").write_text(json.dumps({**about, "fill_value": 256.0}))
    assert np.allclose(control.to_physical(read(path)[1].action, SPEC.action), 256.0)
    (path / "data/action/.zarray").write_text(json.dumps({**about, "fill_value": None}))
    with pytest.raises(RobotRLError, match="1 of 2 chunk files of data/action are missing.*leaves none out"):
        read(path)


@pytest.mark.parametrize(
    ("lost", "says"), [("data/state/1.0", "1 of 2 .* data/state"), ("data/action/[0-9]*", "2 of 2 .* data/action")]
)
def test_what_cannot_have_been_left_out_is_refused(tmp_path, lost, says):
    path = buffer(tmp_path / "b.zarr")
    for file in path.glob(lost):
        file.unlink()
    with pytest.raises(RobotRLError, match=f"{says} are missing.*copy it again"):
        read(path)


PLANE = Spec(
    "plane", "", (Channel("x", "px", 0.0, 512.0), Channel("y", "px", 0.0, 512.0)),
    (Channel("x", "px", 0.0, 512.0), Channel("y", "px", 0.0, 512.0)), (), 10.0, 100,
)  # fmt: skip


def failure(spec: Spec = PLANE, value: float = 0.0) -> Episode:
    obs = {"state": np.full((9, 2), value, np.float32), "stamp/state": np.arange(9) / 10}
    obs |= {f"image/{c.name}": np.full((9, *c.shape), i + 2, np.uint8) for i, c in enumerate(spec.cameras)}
    obs |= {f"stamp/image/{c.name}": np.arange(9) / 10 for c in spec.cameras}
    zeros = np.zeros(8, np.float32)
    return Episode(obs, np.full((8, 2), -1, np.float32), zeros, zeros, zeros > 0, False, True)


def test_our_own_export_of_episodes_of_zeros_is_read_back_and_a_lost_chunk_is_known(tmp_path):
    path = tmp_path / "own.zarr"
    diffusion_policy.write(path, PLANE, [failure(), failure()])
    for episode in diffusion_policy.read_own(path, PLANE):
        assert (episode.reward == 0).all() and (episode.action == -1).all() and (episode.obs["state"] == 0).all()
    (path / "data/score/0.0").unlink()
    with pytest.raises(
        RobotRLError, match="1 of 1 chunk files of data/score are missing, and this buffer leaves none out"
    ):
        list(diffusion_policy.read_own(path, PLANE))


def test_an_export_of_before_that_left_its_zeros_out_is_read(tmp_path):
    path = tmp_path / "own.zarr"
    diffusion_policy.write(path, PLANE, [failure(value=5.0)])
    told = json.loads((path / ".zattrs").read_text())
    (path / ".zattrs").write_text(json.dumps({k: v for k, v in told.items() if k != "robot_rl_chunks"}))
    (path / "data/score/0.0").unlink()
    assert [e.reward.sum() for e in diffusion_policy.read_own(path, PLANE)] == [0.0]


@pytest.mark.parametrize("inside", ["", "replay.zarr/"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_zipped_buffer_is_read(tmp_path, version, inside):
    path = buffer(tmp_path / "b.zarr", version)
    with zipfile.ZipFile(tmp_path / "b.zarr.zip", "w") as archive:
        for file in sorted(f for f in path.rglob("*") if f.is_file()):
            archive.write(file, f"{inside}{file.relative_to(path)}")
    told, again = read(path), read(tmp_path / "b.zarr.zip")
    assert [len(e) for e in again] == [9, 9] and np.array_equal(told[1].action, again[1].action)
    spec, episodes = imports.recordings(tmp_path / "b.zarr.zip", WorldConfig(world="pusht"))
    assert spec == SPEC and len(list(episodes)) == 2
    data = (tmp_path / "b.zarr.zip").read_bytes()
    (tmp_path / "torn.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(RobotRLError, match="torn.zip"):
        imports.recordings(tmp_path / "torn.zip", WorldConfig(world="pusht"))


def test_umis_layout_is_named(tmp_path):
    rng = np.random.default_rng(0)
    keys = {"robot0_eef_pos": 3, "robot0_eef_rot_axis_angle": 3, "robot0_gripper_width": 1}
    arrays = {key: rng.normal(size=(20, n)) for key, n in keys.items()}
    path = buffer(tmp_path / "b.zarr", state=None, action=None, **arrays)
    with pytest.raises(RobotRLError, match="lacks data/state; it has: robot0_eef_pos.*UMI's layout"):
        read(path)


def test_what_the_world_gives_no_place_is_said(tmp_path):
    path = buffer(tmp_path / "b.zarr", keypoint=np.ones((20, 9, 2)), img=np.full((20, 96, 96, 3), 9.0))
    read(path, account := Account())
    assert "data/img (ask for it with --cameras); data/keypoint (the world gives it no place)" in account.lines()[-1]


def test_a_state_that_stays_on_the_goal_ends_at_the_first_success(tmp_path):
    state = np.concatenate([np.full((20, 2), 100.0), np.tile(pusht.GOAL + [200, 0, 0], (20, 1))], 1)
    state[5:10, 2:] = pusht.GOAL
    first, second = read(buffer(tmp_path / "b.zarr", state=state), account := Account())
    assert (len(first), first.reward.sum(), first.terminated) == (5, 1.0, True) and not second.success
    assert "cut at the first success: 4 steps" in " ".join(account.lines())


def test_recordings_with_another_goal_are_told_with_both_goals(tmp_path):
    rng = np.random.default_rng(0)
    block = np.tile([356.0, 356.0, np.pi / 4], (20, 1)) + rng.normal(0, 1, (20, 3)) * [1, 1, 0.01]
    path = buffer(tmp_path / "b.zarr", state=np.concatenate([rng.uniform(100, 400, (20, 2)), block], 1))
    account = Account()
    list(imports.recordings(path, WorldConfig(world="pusht"), account=account)[1])
    told = " ".join(account.lines())
    assert "none of the 2 episodes covers 95% of this world's goal at (256, 256) px, 45 degrees" in told
    assert any(f"at about ({x}, {y}) px" in told for x in (355, 356, 357) for y in (355, 356, 357))


@pytest.mark.parametrize(
    ("options", "config", "says"),
    [
        ({"arm": "Panda"}, ImportConfig(), "--arm"),
        ({}, ImportConfig(filter_key="train"), "--filter-key"),
        ({}, ImportConfig(ignore_rewards=True), "--ignore-rewards"),
    ],
)
def test_options_that_do_nothing_are_refused(tmp_path, options, config, says):
    with pytest.raises(RobotRLError, match=f"diffusion_policy zarr, to which {says} means nothing"):
        imports.recordings(buffer(tmp_path / "b.zarr"), WorldConfig(world="pusht", **options), None, config)


def test_several_cameras_of_our_own_come_back(tmp_path):
    spec = replace(PLANE, cameras=(CameraSpec("left", 4, 6), CameraSpec("right", 4, 6)))
    diffusion_policy.write(tmp_path / "own.zarr", spec, [failure(spec)])
    got, episodes = imports.recordings(tmp_path / "own.zarr", WorldConfig(world=""))
    (episode,) = episodes
    assert got == spec and (episode.obs["image/left"] == 2).all() and (episode.obs["image/right"] == 3).all()
    got, episodes = imports.recordings(
        tmp_path / "own.zarr", WorldConfig(world="", cameras=("right",), image_size=2), account=(account := Account())
    )
    (episode,) = episodes
    assert [c.name for c in got.cameras] == ["right"] and episode.obs["image/right"].shape == (9, 2, 2, 3)
    assert "left out: data/img_left" in account.lines()[-1]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: (p / "meta/episode_ends/0").unlink(), "episode 0 has 0 rows .1 of its chunk files are missing"),
        (lambda p: shutil.rmtree(p / "meta"), "no group 'meta', but data"),
        (lambda p: shutil.rmtree(p / "data"), "no group 'data', but meta"),
        (lambda p: shutil.rmtree(p / "meta/episode_ends"), "meta/episode_ends is missing"),
        (lambda p: (p / "data/action/.zarray").write_text("{}"), "data/action/.zarray"),
        (lambda p: (p / "data/action/.zarray").write_text("["), "data/action/.zarray"),
    ],
)
def test_a_damaged_buffer_is_refused_with_file_and_key(tmp_path, damage, says):
    damage(path := buffer(tmp_path / "b.zarr"))
    with pytest.raises(RobotRLError, match=f"b.zarr.*{says}"):
        read(path)


def test_ends_that_are_no_whole_numbers_are_refused(tmp_path):
    path = buffer(tmp_path / "b.zarr")
    shutil.rmtree(path / "meta/episode_ends")
    shutil.copytree(path / "data/state", path / "meta/episode_ends")
    with pytest.raises(RobotRLError, match="meta/episode_ends is float32 .*must be whole numbers"):
        read(path)
    assert zarr.open_group(str(path), mode="r")["data"]["state"].shape == (20, 5)
