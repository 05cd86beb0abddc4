"""HDF5 of robomimic, MimicGen, LIBERO, Isaac Lab, ALOHA and old robosuite as people have them."""

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from robot_rl import control, imports
from robot_rl.formats import robomimic
from robot_rl.formats.account import Account
from robot_rl.imports import ImportConfig
from robot_rl.types import CameraSpec, RobotRLError
from sim.worlds import WorldConfig, of_spec
from tests.made import aloha, demonstrations


def read(path: Path, account: Account | None = None, config: ImportConfig | None = None, **options):
    spec, episodes = imports.recordings(
        path, WorldConfig(world=options.pop("world", ""), **options), None, config or ImportConfig(), account
    )
    return spec, list(episodes)


def names(spec) -> list[str]:
    return [c.name for c in spec.state]


def tail(n: int) -> np.ndarray:
    return (np.arange(n) >= n - 10).astype(float)


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_what_was_recorded_behind_success_is_cut_and_said(tmp_path, lowest):
    path = demonstrations(tmp_path / "d.hdf5", rewards=lambda n: tail(n) + lowest)
    _, episodes = read(path, account := Account())
    assert [(len(e), e.reward.sum(), e.terminated, e.truncated) for e in episodes] == [(21, 1.0, True, False)] * 2
    assert episodes[0].obs["state"].shape == (22, 3)
    assert "cut at the first success: 18 steps behind it, of 2 episodes" in " ".join(account.lines())


def test_without_rewards_nothing_is_a_success_and_the_tool_is_named(tmp_path):
    _, episodes = read(demonstrations(tmp_path / "d.hdf5", rewards=None), account := Account())
    assert not any(e.success for e in episodes) and "dataset_states_to_obs.py" in " ".join(account.lines())


def test_rewards_in_a_part_of_the_file_are_refused(tmp_path):
    path = demonstrations(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/rewards"]
    with pytest.raises(RobotRLError, match="demo_1 lacks 'rewards'"):
        read(path)
    assert not any(e.success for e in read(path, config=ImportConfig(ignore_rewards=True))[1])


def test_success_after_the_last_action_counts_where_the_observation_after_it_is_missing(tmp_path):
    _, episodes = read(demonstrations(tmp_path / "d.hdf5", next_obs=False))
    assert [(len(e), e.terminated) for e in episodes] == [(29, True)] * 2


@pytest.mark.parametrize("key", ["robot0_eef_quat", "robot0_eef_quat_site", "tool_quaternion", "quat_wxyz"])
def test_any_quaternion_is_seen_as_six_numbers(tmp_path, key):
    def quat(n: int) -> np.ndarray:
        half = np.linspace(0, 1, n) / 2
        signs = np.where(np.arange(n) % 2, 1, -1)[:, None]
        return np.stack([0 * half, 0 * half, np.sin(half), np.cos(half)], 1) * signs

    spec, episodes = read(demonstrations(tmp_path / "d.hdf5", obs={key: quat}, next_obs=False))
    assert sum("rot6d" in name for name in names(spec)) == 6
    columns = ["rot6d" in name for name in names(spec)]
    assert np.abs(np.diff(episodes[0].obs["state"][:, columns], axis=0)).max() < 0.1


def test_isaac_labs_quaternions_begin_with_their_scalar(tmp_path):
    turned = lambda n: np.tile([np.cos(0.5), 0, 0, np.sin(0.5)], (n, 1))  # noqa: E731  # about z by 1 rad, wxyz
    arguments = {"env_name": "Isaac-Lift-Cube-Franka-v0", "type": 2}
    path = demonstrations(tmp_path / "d.hdf5", obs={"eef_quat": turned}, env_args=arguments)
    spec, episodes = read(path, account := Account())
    at = names(spec).index("eef_rot6d_0")
    assert np.allclose(
        episodes[0].obs["state"][0, at : at + 6], [np.cos(1), np.sin(1), 0, -np.sin(1), np.cos(1), 0], atol=1e-6
    )
    assert "env_args tells no control_freq: 20 Hz are taken" in account.lines()


def coloured(*shape: int):
    return lambda n: np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


def test_pictures_by_any_name_are_cameras_and_can_be_chosen_and_resized(tmp_path):
    depth = lambda n: np.full((n, 6, 8, 1), 400, np.uint16)  # noqa: E731
    obs = {"agentview_rgb": coloured(6, 8, 3), "eye_in_hand_rgb": coloured(3, 6, 8), "near_depth": depth}
    path = demonstrations(tmp_path / "d.hdf5", obs=obs, next_obs=False)
    spec, episodes = read(path)
    assert spec.cameras == (
        CameraSpec("agentview", 6, 8), CameraSpec("eye_in_hand", 6, 8), CameraSpec("near_depth", 6, 8, depth=True),
    )  # fmt: skip
    with h5py.File(path) as file:
        pictures = file["data/demo_0/obs/eye_in_hand_rgb"][()]
    assert np.array_equal(episodes[0].obs["image/eye_in_hand"], np.moveaxis(pictures, 1, -1))
    assert episodes[0].obs["image/near_depth"].dtype == np.uint16
    spec, episodes = read(path, account := Account(), cameras=("agentview",), image_size=4)
    assert spec.cameras == (CameraSpec("agentview", 4, 4),) and episodes[0].obs["image/agentview"].shape == (
        30,
        4,
        4,
        3,
    )
    assert "left out: camera eye_in_hand, camera near_depth (not among --cameras)" in account.lines()
    with pytest.raises(RobotRLError, match="no camera 'nosuch'; it has: agentview, eye_in_hand, near_depth"):
        read(path, cameras=("nosuch",))


def test_a_single_number_is_a_channel_and_what_lies_deeper_is_said(tmp_path):
    obs = {
        "gripper_width": lambda n: np.arange(n) / n, "datagen_info/eef_pose/panda": lambda n: np.zeros((n, 4, 4)),
        "matrix": lambda n: np.zeros((n, 4, 4)),
    }  # fmt: skip
    spec, episodes = read(demonstrations(tmp_path / "d.hdf5", obs=obs), account := Account())
    assert names(spec) == ["gripper_width_0", "robot0_eef_pos_0", "robot0_eef_pos_1", "robot0_eef_pos_2"]
    assert len(episodes[0]) == 30
    (line,) = [line for line in account.lines() if line.startswith("left out")]
    assert "obs/datagen_info/eef_pose/panda (30, 4, 4) (a group within obs)" in line and "obs/matrix" in line


def test_a_mask_can_be_chosen_and_is_told(tmp_path):
    masks = {"train": ["demo_0", "demo_2"], "valid": ["demo_1"], "odd": ["demo_9"]}
    path = demonstrations(tmp_path / "d.hdf5", (5, 6, 7), masks=masks)
    _, episodes = read(path, account := Account())
    assert len(episodes) == 3 and "left out: mask odd, mask train, mask valid" in account.lines()[-1]
    assert [e.meta["demo"] for e in read(path, config=ImportConfig("train"))[1]] == ["demo_0", "demo_2"]
    with pytest.raises(RobotRLError, match="no mask 'nosuch'; it has: odd, train, valid"):
        read(path, config=ImportConfig("nosuch"))
    with pytest.raises(RobotRLError, match="mask 'odd' names demo_9, which is not in the file"):
        read(path, config=ImportConfig("odd"))


OSC = {"type": "OSC_POSE", "control_delta": False}


@pytest.mark.parametrize(
    "controller",
    [OSC, [OSC], {"type": "OSC_POSE", "input_type": "absolute"}, {"type": "BASIC", "body_parts": {"right": OSC}}],
)
def test_whether_actions_are_absolute_is_judged_by_env_args(tmp_path, controller):
    arguments = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "controller_configs": controller}}
    actions = lambda n: np.random.default_rng(1).uniform(-0.5, 0.9, (n, 10))  # noqa: E731
    path = demonstrations(tmp_path / "d.hdf5", env_args=arguments, actions=actions)
    spec, episodes = read(path, account := Account())
    with h5py.File(path) as file:
        assert np.allclose(
            control.to_physical(episodes[0].action, spec.action), file["data/demo_0/actions"][()], atol=1e-6
        )
    assert all(c.seen and c.name.startswith("target_") for c in spec.action)
    assert "actions are absolute, as env_args says" in " ".join(account.lines())


def test_deltas_beyond_one_are_refused(tmp_path):
    path = demonstrations(tmp_path / "d.hdf5", actions=lambda n: np.full((n, 7), 1.5))
    with pytest.raises(RobotRLError, match="demo_0: actions .* reach 1.5; by env_args they are deltas"):
        read(path)


def test_a_channel_that_never_moves_has_a_range(tmp_path):
    spec, _ = read(demonstrations(tmp_path / "d.hdf5", obs={"object": lambda n: np.full((n, 1), 0.25)}))
    assert (spec.state[0].low, spec.state[0].high, spec.state[0].seen) == (-0.75, 1.25, True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"actions": lambda n: np.zeros(())}, "'actions' is float64 .*must hold rows of numbers"),
        ({"actions": lambda n: np.array(["a"] * n, "S1")}, "'/data/demo_0/actions'|'actions' is"),
        ({"actions": lambda n: np.zeros((n, 2, 2))}, r"'actions' is \(30, 2, 2\)"),
        ({"obs": {"a": lambda n: np.zeros((n - 1, 2))}}, "unequal lengths.*'obs/a': 29"),
        ({"obs": {"robot0_eef_pos": lambda n: np.zeros((n, 2, 2))}}, "'obs' holds no vectors"),
        ({"env_args": {"env_name": 3}}, "'env_name'"),
        ({"env_args": {"env_name": "L", "env_kwargs": {"control_freq": 0}}}, "'control_freq' is 0"),
        ({"env_args": {"env_name": "L", "env_kwargs": []}}, "'env_kwargs'"),
        ({"lengths": (0,)}, "demo_0 is empty"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_with_file_and_key(tmp_path, changes, says):
    with pytest.raises(RobotRLError, match=f"d.hdf5.*({says})"):
        read(demonstrations(tmp_path / "d.hdf5", **changes))


@pytest.mark.parametrize("value", ["{", "[]", 3, np.zeros(2)])
def test_an_attribute_that_is_no_json_object_is_named(tmp_path, value):
    path = demonstrations(tmp_path / "d.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = value
    with pytest.raises(RobotRLError, match="d.hdf5: the attribute 'env_args' of /data"):
        read(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"arm": "Panda"}, "--arm"), ({"controller": "OSC_POSE"}, "--controller"), ({"max_steps": 5}, "--max-steps")],
)
def test_options_that_do_nothing_are_refused(tmp_path, options, says):
    with pytest.raises(RobotRLError, match=f"robomimic's HDF5, to which {says} means nothing.*--cameras.*--filter-key"):
        read(demonstrations(tmp_path / "d.hdf5"), **options)


def test_a_files_states_can_be_replayed_as_a_robosuite_world_and_the_error_says_so(tmp_path):
    path = demonstrations(tmp_path / "d.hdf5")
    spec, _ = read(path)
    with pytest.raises(
        RobotRLError, match="unknown world 'robomimic:Lift'.*--world robosuite:Lift, which replays them"
    ):
        of_spec(spec).build()
    with pytest.raises(RobotRLError, match="demo_0 was recorded with|demo_0 .Lift, states of|every"):
        read(path, world="robosuite:Lift")  # the states are made up: it goes the way of states


# ------------------------------------------------------------------------------------------------- what others record


def test_alohas_files_are_read(tmp_path):
    path = aloha(tmp_path / "d")
    spec, episodes = read(path, account := Account())
    assert [len(e) for e in episodes] == [19, 19] and (spec.world, spec.rate, len(spec.state), len(spec.action)) == (
        "aloha",
        50.0,
        28,
        14,
    )
    with h5py.File(path / "episode_1.hdf5") as file:
        assert np.allclose(control.to_physical(episodes[1].action, spec.action), file["action"][:-1], atol=1e-6)
        assert np.allclose(episodes[1].obs["state"][:, :14], file["observations/qpos"][()])
    assert "50 Hz" in account.lines()[0] and "left out: camera cam_high (ask for it with --cameras)" in account.lines()
    spec, episodes = read(path / "episode_0.hdf5", cameras=("cam_high",), image_size=4)
    assert episodes[0].obs["image/cam_high"].shape == (20, 4, 4, 3)
    with pytest.raises(RobotRLError, match="no camera 'wrist'.*it has: cam_high"):
        read(path, cameras=("wrist",))
    with pytest.raises(RobotRLError, match="ALOHA's HDF5, to which --filter-key means nothing"):
        read(path, config=ImportConfig("train"))


def test_alohas_compressed_pictures_are_read(tmp_path):
    path = aloha(tmp_path / "d", 1)
    jpeg = cv2.imencode(".png", np.full((6, 8, 3), (10, 20, 30), np.uint8))[1].ravel()
    with h5py.File(path / "episode_0.hdf5", "a") as file:
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = np.tile(np.pad(jpeg, (0, 40)), (20, 1))
    spec, episodes = read(path, cameras=("cam_high",))
    assert spec.cameras == (CameraSpec("cam_high", 6, 8),) and episodes[0].obs["image/cam_high"][7, 0, 0].tolist() == [
        30,
        20,
        10,
    ]


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "d").mkdir()
    for path in (tmp_path / "d/episode_0.hdf5", tmp_path / "demo.hdf5"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for source in (tmp_path / "d", tmp_path / "demo.hdf5"):
        with pytest.raises(RobotRLError, match="hdf5 is a pointer of git-lfs.*git lfs pull"):
            read(source)


def test_robosuite_before_1_0_is_named(tmp_path):
    with h5py.File(path := tmp_path / "demo.hdf5", "w") as file:
        file.create_group("data").attrs.update({"env": "SawyerLift", "repository_version": "0.3.0"})
        for key in ("states", "joint_velocities", "gripper_actuations", "right_dpos"):
            file[f"data/demo_1/{key}"] = np.zeros((5, 3))
    with pytest.raises(RobotRLError, match="robosuite 0.3.0 .before 1.0.*1.0 and later are read"):
        read(path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bridge/1.0.0/bridge-train.tfrecord-00000-of-00001", "an RLDS dataset"),
        ("bridge/1.0.0/dataset_info.json", "an RLDS dataset"),
        ("rows/a.pkl", "a Python pickle, which can run code"),
        ("rows/a.npz", "numpy arrays"),
        ("rows/nested/meta/info.json", "give .*rows/nested"),
        ("rows/inner.zarr/.zgroup", "give .*rows/inner.zarr"),
        ("rows/readme.txt", "no known format; it holds readme.txt"),
    ],
)
def test_a_folder_of_something_else_is_named_as_what_it_is(tmp_path, name, says):
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(RobotRLError, match=f"{says}.*Read are LeRobot datasets"):
        read(tmp_path / name.split("/")[0])


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.pkl", "a Python pickle"), ("a.bag", "ROS 1"), ("a.tfrecord-00000-of-00009", "TensorFlow records"),
     ("a.npz", "numpy"), ("a.pt", "PyTorch"), ("a.hdf5", "no whole HDF5 file"),
     ("a.xyz", "neither a folder nor a whole HDF5 file")],
)  # fmt: skip
def test_a_file_of_something_else_is_named_as_what_it_is(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(RobotRLError, match=f"{name} is .*{says}.*Read are LeRobot datasets"):
        read(tmp_path / name)


def test_our_own_export_is_read_with_the_cameras_that_are_asked_for(tmp_path):
    from tests.fuzzing import LIFT, _episodes

    robomimic.write(tmp_path / "own.hdf5", LIFT, _episodes(LIFT))
    spec, episodes = read(tmp_path / "own.hdf5", cameras=("front",), image_size=4)
    assert spec.cameras == (CameraSpec("front", 4, 4),) and episodes[0].obs["image/front"].shape == (10, 4, 4, 3)
    with pytest.raises(RobotRLError, match="no camera 'side'"):
        read(tmp_path / "own.hdf5", cameras=("side",))
    with h5py.File(tmp_path / "own.hdf5", "a") as file:
        told = json.loads(file["data"].attrs["robot_rl_spec"])
        file["data"].attrs["robot_rl_spec"] = json.dumps({**told, "rate": "fast"})
    with pytest.raises(RobotRLError, match="not a Spec of robot-rl: its rate is 'fast'"):
        read(tmp_path / "own.hdf5")
