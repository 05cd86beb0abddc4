"""The inputs of ../shared/cases, where they are: the same rows as in the other `test_cases_*`, on the originals."""

import os
from pathlib import Path

import numpy as np
import pytest

from robot_rl import imports, joint
from robot_rl.collect import import_all
from robot_rl.episodes import EpisodeStore
from robot_rl.formats.account import Account
from robot_rl.types import RobotRLError
from sim.worlds import WorldConfig

CASES = Path(os.environ.get("ROBOT_RL_CASES", Path(__file__).parents[2] / "shared" / "cases" / "data"))
pytestmark = pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}; set ROBOT_RL_CASES")

READ = [  # input, options, steps of every episode, successes, what is told
    ("real/cloth", {}, [347, 279, 273], 0, "stamps say 18.5 Hz"),
    ("real/openpi_keys_v3", {}, None, 0, "48 of 50 episodes"),
    ("made/open50_renamed", {}, None, 0, "camera image"),
    ("made/cloth3", {}, [347, 279, 273], 0, "stamps say 18.5 Hz"),
    ("made/c05_null_video_index", {}, [11, 11], 0, "left out: camera top"),
    ("made/c05b_half_null", {"cameras": ("top",)}, [11], 0, "only they are read: [0]"),
    ("made/c05c_no_video_columns", {}, [11, 11], 0, "left out: camera top"),
    ("made/c06_constant.hdf5", {}, [30] * 4, 4, ""),
    ("made/c10_success_tail", {}, [25] * 3, 3, "cut at the first success"),
    ("made/c10_success_tail.hdf5", {}, [21] * 3, 3, "cut at the first success"),
    ("made/c11_mimicgen.hdf5", {}, [29] * 2, 0, "no rewards"),
    ("made/c13_depth16", {"cameras": ("top_depth",)}, [11, 11], 0, ""),
    ("made/c14_libero.hdf5", {}, [19] * 2, 2, ""),
    ("made/c15_minus_one", {}, [29] * 3, 3, "-1 on the way and 0 at success"),
    ("made/c16_twice_gripper", {}, [29] * 3, 0, ""),
    ("made/c20_video", {"cameras": ("top",), "image_size": 32}, [11], 0, ""),
    ("made/c20c_c_h_w", {"cameras": ("top",)}, [11], 0, ""),
    ("made/c20d_none", {"cameras": ("top",)}, [11], 0, ""),
    ("made/c20e_dict", {"cameras": ("top",)}, [11], 0, ""),
    ("made/c22_scalar_obs.hdf5", {}, [30] * 2, 2, ""),
    ("made/c23_nested.hdf5", {}, [29], 1, "left out: obs/datagen_info"),
    ("made/c24_mixed_names", {}, [11], 0, ""),
    ("made/c24c_task_string", {}, [11], 0, ""),
    ("made/c25_mask.hdf5", {}, [30] * 4, 4, "left out: mask train, mask valid"),
    ("made/c26_aloha", {}, [19] * 2, 0, "left out: camera cam_high"),
    ("made/c27_ns", {}, [11], 0, "nanoseconds"),
    ("made/c28_names_28_of_30", {}, [11], 0, "30 numbers and 28 names"),
    ("made/c29_path_only", {"cameras": ("top",)}, [5], 0, ""),
    ("made/c31_late_video", {}, [11], 0, ""),
    ("made/c35_absolute6d.hdf5", {}, [20], 1, "actions are absolute"),
]
REFUSED = [
    ("real/lfs_pointers_v21", "git lfs pull"),
    ("real/aloha_lfs_pointer", "git lfs pull"),
    ("real/chunk_index_meta_v21", "lacks all 30 files"),
    ("made/c09_umi.zarr", "UMI's layout"),
    ("made/c17_empty_episode", "episode 1 has 0 rows"),
    ("made/c21_null_rows", "'observation.state' is null in rows, first in row 3"),
    ("made/c21b_half_null", "'observation.state' is null in rows, first in row 0"),
    ("made/c24b_no_fps", "info.json: 'fps'"),
    ("made/c24d_action_matrix", "action: 'shape'"),
    ("made/c32_robosuite03.hdf5", "before 1.0"),
    ("made/c33_rlds", "an RLDS dataset"),
]


def read(name: str, options: dict):
    spec, episodes = imports.recordings(CASES / name, WorldConfig(world="", **options), account=(account := Account()))
    return spec, list(episodes), account.lines()


@pytest.mark.parametrize(("name", "options", "steps", "successes", "told"), READ, ids=[r[0] for r in READ])
def test_what_can_be_read_is(name, options, steps, successes, told):
    _, episodes, lines = read(name, options)
    assert steps is None or [len(e) for e in episodes] == steps
    assert sum(e.success for e in episodes) == successes and told in " ".join(lines)


@pytest.mark.parametrize(("name", "says"), REFUSED, ids=[r[0] for r in REFUSED])
def test_what_cannot_is_named(name, says):
    with pytest.raises(RobotRLError, match=says):
        read(name, {})


def test_depth_quaternions_and_sizes_are_right():
    depth = read("made/c13_depth16", {"cameras": ("top_depth",)})[1][0].obs["image/top_depth"]
    assert (depth.dtype, depth.shape) == (np.uint16, (12, 48, 64, 1))
    assert depth[:, 0, 0, 0].tolist() == [400 + 50 * k for k in range(12)]
    spec, (episode,), _ = read("made/c12_quat_site.hdf5", {})
    turns = ["rot6d" in c.name for c in spec.state]
    assert sum(turns) == 12 and np.abs(np.diff(episode.obs["state"][:, turns], axis=0)).max() < 0.1
    assert read("made/c20_video", {"cameras": ("top",), "image_size": 32})[1][0].obs["image/top"].shape == (
        12,
        32,
        32,
        3,
    )


def test_two_sessions_of_one_arm_are_joined(tmp_path):
    stores = []
    for i in range(2):
        spec, episodes = imports.recordings(CASES / f"made/act_part{i}", WorldConfig(world=""))
        import_all(tmp_path / f".part-{i}", tmp_path / str(i), spec, episodes)
        stores.append(EpisodeStore.open(tmp_path / str(i)))
    spec = joint.join(stores)
    assert [len(s) for s in stores] == [8, 42] and all(s.spec.action == spec.action for s in stores)
