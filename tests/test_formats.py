"""Foreign files become our episodes; a damaged file is refused by name."""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_rl import control
from robot_rl.formats import diffusion_policy, robomimic, robosuite_hdf5
from robot_rl.types import CameraSpec, Channel, Episode, RobotRLError, Spec

DATA = Path(os.environ.get("ROBOT_RL_DATA", Path(__file__).parents[2] / "shared" / "data"))

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


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_what_is_exported_to_diffusion_policy_is_read_back(lengths, seed):
    rng = np.random.default_rng(seed)
    spec = dataclasses.replace(PLANE, cameras=(CameraSpec("top", 6, 8),))
    exported = []
    for T in lengths:
        obs = {"state": rng.uniform(0, 511, (T + 1, 2)).astype(np.float32), "stamp/state": np.arange(T + 1) / 10}
        obs |= {"image/top": rng.integers(2, 256, (T + 1, 6, 8, 3), np.uint8), "stamp/image/top": np.arange(T + 1) / 10}
        action, none = rng.uniform(-1, 1, (T, 2)).astype(np.float32), np.zeros(T, np.float32)
        score = rng.uniform(0, 0.9, T).astype(np.float32)
        exported.append(Episode(obs, action, none, score, none > 0, False, True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.zarr"
        assert diffusion_policy.write(path, spec, exported) == len(lengths)
        root = zarr.open_group(str(path), mode="r")
        assert np.diff(root["meta"]["episode_ends"][:], prepend=0).tolist() == [T + 1 for T in lengths]
        assert root["data"]["action"].shape == (sum(lengths) + len(lengths), 2)
        assert diffusion_policy.own_spec(path) == spec
        for ours, theirs in zip(exported, diffusion_policy.read_own(path, spec), strict=True):
            assert np.allclose(ours.action, theirs.action, atol=1e-6)
            assert np.array_equal(ours.score, theirs.score) and theirs.truncated
            assert all(np.array_equal(ours.obs[key], theirs.obs[key]) for key in ours.obs)


def test_a_buffer_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RobotRLError, match="no episodes"):
        diffusion_policy.write(tmp_path / "b.zarr", PLANE, [])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "thesis").mkdir()
    with pytest.raises(RobotRLError, match="exists"):
        diffusion_policy.write(tmp_path / "thesis", PLANE, [])


def test_a_buffer_that_lacks_files_is_refused(tmp_path):
    with pytest.raises(RobotRLError, match="does not exist"):
        read(tmp_path / "nothing.zarr")
    (tmp_path / "text.zarr").write_text("not a store")
    with pytest.raises(RobotRLError, match="no whole zip"):
        read(tmp_path / "text.zarr")
    chunk = buffer(tmp_path / "b.zarr") / "data" / "state" / "1.0"
    chunk.unlink()
    with pytest.raises(RobotRLError, match="1 of 3 chunk files of data/state are missing"):
        read(tmp_path / "b.zarr")
    chunk.write_bytes(b"torn")
    with pytest.raises(RobotRLError, match=r"data/state/1\.0 does not say what it unpacks to"):
        read(tmp_path / "b.zarr")
    buffer(tmp_path / "c.zarr")
    shutil.rmtree(tmp_path / "c.zarr" / "data" / "action")
    with pytest.raises(RobotRLError, match="lacks data/action"):
        read(tmp_path / "c.zarr")


# ------------------------------------------------------------------------------------------------ robomimic

LIFT = Spec(
    world="robosuite:Lift",
    arm="Panda",
    state=(Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0)),
    action=(
        *(Channel(f"d{axis}", "m", -0.05, 0.05) for axis in "xyz"),
        *(Channel(f"r{axis}", "rad", -0.5, 0.5) for axis in "xyz"),
        Channel("gripper", "1", -1.0, 1.0),
    ),
    cameras=(CameraSpec("front", 3, 4),),
    rate=20.0,
    max_steps=50,
)
floats = st.floats(-1e6, 1e6, width=32)


@st.composite
def episodes(draw) -> Episode:
    length = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    success = draw(st.booleans())
    reward = np.zeros(length, np.float32)
    reward[-1] = success
    return Episode(
        obs={
            "state": draw(arrays(np.float32, (length + 1, 2), elements=floats)),
            "image/front": rng.integers(0, 256, (length + 1, 3, 4, 3), np.uint8),
            "stamp/state": np.arange(length + 1) / 20,
            "stamp/image/front": np.arange(length + 1) / 20 - 0.01,
        },
        action=rng.uniform(-1, 1, (length, 7)).astype(np.float32),
        reward=reward,
        score=rng.uniform(0, 1, length).astype(np.float32),
        intervened=rng.random(length) < 0.5,
        terminated=success,
        truncated=not success,
        extras=draw(st.sampled_from([{}, {"base": rng.normal(size=(length + 1, 7)), "a/b": np.arange(length + 1)}])),
        meta=draw(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)),
    )


def assert_same(ours: Episode, theirs: Episode) -> None:
    for field in dataclasses.fields(Episode):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        for x, y in [(a[k], b[k]) for k in a] if field.name in ("obs", "extras") else [(a, b)]:
            assert np.array_equal(x, y) and getattr(x, "dtype", None) == getattr(y, "dtype", None), field.name
    assert ours.obs.keys() == theirs.obs.keys() and ours.extras.keys() == theirs.extras.keys()


@settings(max_examples=30, deadline=None)
@given(st.lists(episodes(), min_size=1, max_size=12))
def test_what_is_exported_to_robomimic_is_read_back_exactly(exported):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "e.hdf5"
        assert robomimic.write(path, LIFT, exported) == len(exported)
        spec, read_back = robomimic.read(path)
        assert spec == LIFT
        for ours, theirs in zip(exported, read_back, strict=True):
            assert_same(ours, theirs)


def test_an_export_appears_whole_or_not_at_all(tmp_path):
    def failing():
        yield from ()
        raise RuntimeError("the disk of the store is gone")

    path = tmp_path / "e.hdf5"
    with pytest.raises(RuntimeError):
        robomimic.write(path, LIFT, failing())
    with pytest.raises(RobotRLError, match="no episodes"):
        robomimic.write(path, LIFT, [])
    assert not list(tmp_path.iterdir())
    path.write_text("precious")
    with pytest.raises(RobotRLError, match="exists and is not overwritten"):
        robomimic.write(path, LIFT, [])
    assert path.read_text() == "precious"


def robomimic_file(path: Path, *, next_obs: bool = True, **replaced: np.ndarray | None) -> Path:
    """Two demonstrations of 4 steps as robomimic's own low_dim files hold them, but for what is replaced."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        kwargs = {"robots": ["Panda"], "control_freq": 20}
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": kwargs})
        for name in ("demo_10", "demo_2"):
            values = {
                "obs/object": np.full((4, 3), float(name[5:])),
                "obs/robot0_eef_quat": np.tile([0.0, 0.0, 0.0, 1.0], (4, 1)),
                "actions": np.linspace(-1, 1, 28).reshape(4, 7),
                "rewards": np.array([0.0, 0.0, 0.0, 1.0]),
            }
            if next_obs:
                values |= {f"next_{key}": values[key] for key in values if key.startswith("obs/")}
            for key, value in (values | replaced).items():
                if value is not None:
                    data.create_dataset(f"{name}/{key}", data=value)
    return path


def test_robomimics_own_files_become_episodes(tmp_path):
    spec, found = robomimic.read(robomimic_file(tmp_path / "low_dim.hdf5"))
    first, second = found
    assert [c.name for c in spec.state] == [f"object_{i}" for i in range(3)] + [
        f"robot0_eef_rot6d_{i}" for i in range(6)
    ]
    assert (spec.world, spec.arm, spec.rate, len(spec.action)) == ("robomimic:Lift", "Panda", 20.0, 7)
    assert (first.meta["demo"], second.meta["demo"]) == ("demo_2", "demo_10"), "demonstrations come in numerical order"
    assert first.obs["state"].shape == (5, 9) and len(first) == 4 and first.terminated and first.success
    assert first.obs["state"][0].tolist() == [2, 2, 2, 1, 0, 0, 0, 1, 0]


def test_without_next_obs_the_last_action_is_dropped(tmp_path):
    _, found = robomimic.read(robomimic_file(tmp_path / "f.hdf5", next_obs=False))
    assert [len(e) for e in found] == [3, 3]


NAN = np.zeros((4, 3))
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("replaced", "says"),
    [
        ({"obs/object": NAN}, "demo_2: 'object' holds NaN or infinity, first at step 2"),
        ({"actions": np.full((4, 7), 1.5)}, "demo_2: actions .* reach 1.5"),
        ({"actions": np.zeros((3, 7))}, "demo_2 has arrays of unequal lengths.*'actions': 3"),
        ({"actions": None}, "demo_2 lacks 'actions'"),
        ({"rewards": np.full(4, 0.3)}, "rewards span"),
        ({"obs/object": None, "obs/robot0_eef_quat": None}, "holds no 'obs'"),
    ],
)
def test_a_damaged_robomimic_file_is_refused(tmp_path, replaced, says):
    with pytest.raises(RobotRLError, match=says):
        list(robomimic.read(robomimic_file(tmp_path / "f.hdf5", next_obs=False, **replaced))[1])


@pytest.mark.parametrize("read_any", [robomimic.read, lambda path: list(robosuite_hdf5.read(path))])
def test_what_is_no_file_of_demonstrations_is_refused(tmp_path, read_any):
    with pytest.raises(RobotRLError, match="is no file"):
        read_any(tmp_path / "nothing.hdf5")
    (tmp_path / "text.hdf5").write_text("not HDF5")
    with pytest.raises(RobotRLError, match="not a whole HDF5 file"):
        read_any(tmp_path / "text.hdf5")
    whole = robomimic_file(tmp_path / "whole.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RobotRLError, match="not a whole HDF5 file"):
        read_any(tmp_path / "cut.hdf5")
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file.create_group("data")
    with pytest.raises(RobotRLError, match="holds no demonstrations"):
        read_any(tmp_path / "empty.hdf5")


# ------------------------------------------------------------------------------------------------ robosuite

OSC = {"type": "OSC_POSE", "control_delta": True, "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]}


def robosuite_file(path: Path, task: str = "Lift", controller: dict = OSC, robots="Panda", **replaced) -> Path:
    """One demonstration of 6 steps; state is [time, x], and x reaches the goal 3 in state 3."""
    values = {
        "states": np.stack([0.05 * np.arange(6), np.arange(6.0)], 1),
        "actions": np.linspace(-3, 3, 42).reshape(6, 7),
        **replaced,
    }
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        info = {"env_name": task, "robots": robots, "controller_configs": controller}
        data.attrs["env_info"] = json.dumps(info)
        for key, value in values.items():
            data.create_dataset(f"demo_1/{key}", data=value)
    return path


class Line:
    """A world with the two-number state of `robosuite_file`."""

    goal = 3.0

    def reset_to(self, state: np.ndarray) -> dict[str, np.ndarray]:
        if len(state) != 2:
            raise RobotRLError(f"a state of this world has 2 numbers, not {len(state)}")
        self.x = state[1]
        return {"state": np.float32([state[1], 0]), "stamp/state": np.array(state[0])}

    def success(self) -> bool:
        return self.x >= self.goal


def replayed(path: Path, world: Line, spec: Spec = LIFT) -> list[Episode]:
    return [robosuite_hdf5.episode(d, spec, world.reset_to, world.success) for d in robosuite_hdf5.read(path)]


def test_recorded_states_become_an_episode_that_ends_at_success(tmp_path):
    (episode,) = replayed(robosuite_file(tmp_path / "d.hdf5"), Line())
    assert episode.obs["state"][:, 0].tolist() == [0, 1, 2, 3] and episode.reward.tolist() == [0, 0, 1]
    assert np.allclose(episode.obs["stamp/state"], [0, 0.05, 0.1, 0.15]) and episode.terminated
    assert np.abs(episode.action).max() == 1.0
    assert episode.meta["clipped"] == 2 and episode.meta["dropped"] == 3 and episode.meta["reset_to"] == [0.0, 0.0]


def test_robomimics_env_args_and_the_nested_controller_of_robosuite_1_5_are_understood(tmp_path):
    nested = {"type": "BASIC", "body_parts": {"right": {**OSC, "control_delta": True}}}
    assert replayed(robosuite_file(tmp_path / "d.hdf5", controller=nested, robots=["Panda"]), Line())
    path = robosuite_file(tmp_path / "e.hdf5")
    with h5py.File(path, "a") as file:
        info = json.loads(file["data"].attrs.pop("env_info"))
        file["data"].attrs["env_args"] = json.dumps({"env_name": info.pop("env_name"), "type": 1, "env_kwargs": info})
    assert replayed(path, Line())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"task": "Door"}, "where the door stands"),
        ({"task": "TwoArmHandover", "robots": ["Panda", "Panda"]}, "TwoArmHandover with Panda and Panda.*two arms"),
        ({"task": "Stack"}, "Stack with Panda .states of 2 numbers.*this world is Lift"),
        ({"controller": {**OSC, "type": "JOINT_VELOCITY"}}, "JOINT_VELOCITY"),
        ({"controller": {**OSC, "output_max": 0.1}}, "full action"),
        ({"states": np.stack([0.1 * np.arange(6)] * 2, 1)}, "every 0.1 to 0.1 s"),
        ({"states": np.stack([0.05 * np.arange(6)] * 3, 1)}, "Lift, states of 3 numbers.*has 2 numbers"),
        ({"states": np.stack([0.05 * np.arange(6)] * 2, 1)}, "none of its 6 states is a success"),
        ({"states": np.full((6, 2), np.nan)}, "demo_1: 'states' holds NaN"),
        ({"actions": np.zeros((5, 7))}, "unequal lengths: {'states': 6, 'actions': 5}"),
        ({"actions": np.zeros((6, 6))}, "actions of 6 numbers; this world takes 7"),
    ],
)
def test_a_demonstration_of_another_world_is_refused(tmp_path, changed, says):
    with pytest.raises(RobotRLError, match=says) as error:
        replayed(robosuite_file(tmp_path / "d.hdf5", **changed), Line())
    assert "demo_1" in str(error.value)


HUMAN_LIFT = DATA / "robosuite" / "v1.4.1" / "lift" / "demo.hdf5"


@pytest.mark.skipif(not HUMAN_LIFT.exists(), reason=f"no recordings at {HUMAN_LIFT}; set ROBOT_RL_DATA")
def test_human_lifts_load_into_todays_model_and_end_in_success():
    from sim.robosuite_env import RobosuiteConfig

    env = RobosuiteConfig("Lift", "Panda").build()
    cube = [c.name for c in env.spec.state].index("cube_pos_z")
    for demo, length, clipped in zip(robosuite_hdf5.read(HUMAN_LIFT), (471, 499, 381), (38, 32, 31), strict=True):
        episode = robosuite_hdf5.episode(demo, env.spec, env.reset_to, env.succeeded)
        assert (len(episode), episode.meta["clipped"]) == (length, clipped)
        height = demo.states[: length + 1, 1 + 7 + 2 + 2]  # time, 7 joints, 2 fingers, then the cube's x, y, z
        assert np.allclose(episode.obs["state"][:, cube], height, atol=1e-5)
