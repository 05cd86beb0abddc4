"""Depth: millimetres all the way from the sensor to the encoder, beside colour and in the same places."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drivers import web_teleop
from drivers.camera_node import open_camera
from drivers.check_listener import _take_picture
from drivers.messages import frame_of, image_msg
from drivers.observer import Observer
from drivers.robot_file import CameraFile
from drivers.sync import Stream
from policies import checkpoint
from policies.resnet import Resnet, ResnetConfig
from policies.vision import VisionConfig
from robot_rl.depth import millimetres, visible
from robot_rl.episodes import EpisodeStore
from robot_rl.formats import robomimic
from robot_rl.imports import export, recordings
from robot_rl.inspect import inspect
from robot_rl.types import CameraSpec, Frame, RobotRLError
from robot_rl.windows import Windows
from sim.operators import operator_for
from sim.worlds import WorldConfig, of_spec
from tests.lockstep import ROBOT, Bench
from tests.test_cameras import HEIGHT, WIDTH, SoftRealSense, opened, wait_until
from tests.test_vision import ENCODERS, LARGE, SMALL, TINY, built, some_obs

NEAR = CameraFile("near/depth", 4, 6, depth=True)
BOTH = replace(LARGE, cameras=(*LARGE.cameras, CameraSpec("top_depth", 40, 40, depth=True)))


def depths(seed=0, shape=(4, 6)):
    return np.random.default_rng(seed).integers(0, 65536, (*shape, 1), np.uint16)


# ------------------------------------------------------------------------------------------------------------- laws


@given(arrays(np.float32, (2, 3), elements=st.floats(0, 65.5, width=32)))
def test_metres_are_kept_to_half_a_millimetre(metres):
    np.testing.assert_allclose(millimetres(metres)[..., 0] / 1000, metres, atol=0.000501)


def test_what_was_not_measured_is_0_and_what_is_too_far_the_farthest():
    assert list(millimetres(np.array([np.nan, -np.inf, -1.0, np.inf, 1e6]))[:, 0]) == [0, 0, 0, 65535, 65535]


def test_people_see_colours_as_they_are_and_the_nearer_the_brighter():
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert visible(colours) is colours
    shades = visible(np.array([0, 1, 500, 1000, 1999, 2000, 65535], np.uint16)[:, None])
    assert (shades == shades[:, :1]).all() and shades.dtype == np.uint8 and shades.shape == (7, 3)
    assert list(shades[:, 0]) == [0, 255, 192, 128, 1, 0, 0]
    jpeg = np.frombuffer(web_teleop._jpeg(depths(shape=(720, 1280))), np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (360, 640, 3)


@given(arrays(np.uint16, (4, 6, 1)))
def test_a_ros_message_gives_depth_back_as_it_was(image):
    message = image_msg(Frame(3.5, image, 7), "near_optical_frame")
    assert (message.encoding, message.step, message.height, message.width) == ("16UC1", 12, 4, 6)
    frame = frame_of(message)
    assert frame.stamp == 3.5 and frame.image.dtype == np.uint16 and np.array_equal(frame.image, image)


@pytest.mark.parametrize("order", ["<", ">"])
def test_metres_padded_rows_and_the_other_byte_order_are_read(order):
    metres = np.array([[0.5, np.nan, 2.0], [0.001, 70.0, 0.25]], np.float32)
    padded = np.hstack([metres, np.full((2, 1), 9.0, np.float32)])
    fields = {"height": 2, "width": 3, "step": 16, "is_bigendian": order == ">", "encoding": "32FC1"}
    message = SimpleNamespace(**fields, data=padded.astype(f"{order}f4").tobytes(), header=image_msg_header())
    assert frame_of(message).image[..., 0].tolist() == [[500, 0, 2000], [1, 65535, 250]]
    short = depths(shape=(2, 3)).astype(f"{order}u2")
    fields |= {"step": 6, "encoding": "16UC1"}
    message = SimpleNamespace(**fields, data=short.tobytes(), header=image_msg_header())
    assert np.array_equal(frame_of(message).image, depths(shape=(2, 3)))


def image_msg_header():
    return image_msg(Frame(1.0, depths(), 0), "").header


# ------------------------------------------------------------------------------------------------------------ sensors


class SoftDepth(SoftRealSense):
    """A software device with a depth stream, whose numbers are of `unit` metres."""

    def __init__(self, serial, unit=0.001):
        self._unit = unit
        super().__init__(serial)

    def _stream(self):
        stream = super()._stream()
        stream.type, stream.fmt, stream.bpp = self.rs.stream.depth, self.rs.format.z16, 2
        self._sensor.add_read_only_option(self.rs.option.depth_units, self._unit)
        return stream

    def show(self, image, number, milliseconds):
        frame = self.rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp, frame.depth_units = image, 2 * WIDTH, 2, self._unit
        frame.timestamp, frame.domain = milliseconds, self.rs.timestamp_domain.global_time
        frame.frame_number, frame.profile = number, self._profile.as_video_stream_profile()
        self._sensor.on_video_frame(frame)


@pytest.mark.parametrize("unit", [0.001, 0.0001])
def test_a_realsense_cameras_depth_comes_in_millimetres_whatever_its_unit(unit):
    soft = SoftDepth("1", unit)
    camera = opened(soft, depth=True)
    shown = depths(shape=(HEIGHT, WIDTH))
    soft.show(shown, 3, 1.8e12)
    frame = wait_until(camera.read)
    assert frame.number == 3 and frame.image.dtype == np.uint16 and frame.image.shape == (HEIGHT, WIDTH, 1)
    np.testing.assert_allclose(frame.image, np.rint(shown * (unit * 1000)), atol=1)
    camera.close()


def test_a_realsense_camera_without_depth_is_refused():
    with pytest.raises(RobotRLError, match="no depth stream of 64x48"):
        opened(SoftRealSense("1"), depth=True)


def test_a_robots_file_says_which_cameras_give_depth():
    robot = replace(ROBOT, cameras={"near": NEAR})
    assert robot.spec().cameras == (CameraSpec("near", 4, 6, depth=True),)
    with pytest.raises(RobotRLError, match="'near' is opened by OpenCV, which gives no depth"):
        replace(ROBOT, cameras={"near": replace(NEAR, device="opencv:0")})
    with pytest.raises(RobotRLError, match="no RealSense camera"):
        open_camera("near", replace(NEAR, device="realsense:none"))


def test_colours_where_depth_was_promised_are_refused_by_name():
    bench = Bench(replace(ROBOT, cameras={"near": NEAR}))
    pictures: Stream[np.ndarray] = Stream("near", 8)
    pictures.add(100.0, depths())
    watch = Observer(bench.robot, bench.readings, {"tracker": bench.tracker}, {"near": pictures})
    assert np.array_equal(watch.observe()["image/near"], depths())
    pictures.add(100.05, np.zeros((4, 6, 3), np.uint8))
    bench.sleep_until(100.06)
    with pytest.raises(RobotRLError, match="'near' are .4, 6, 3. uint8, the robot's file says .4, 6, 1. uint16"):
        watch.observe()
    take = _take_picture(NEAR)
    assert np.array_equal(take(None, image_msg(Frame(1.0, depths(), 0), "")), depths())
    with pytest.raises(RobotRLError, match="6 x 4, colour, and the robot's file says 6 x 4, depth"):
        take(None, image_msg(Frame(1.0, np.zeros((4, 6, 3), np.uint8), 0), ""))


def test_depth_of_a_rendered_scene_is_how_far_rays_go():
    import mujoco

    env = WorldConfig("robosuite:Lift", cameras=("agentview", "agentview_depth"), image_size=48).build()
    picture = env.reset(0)["image/agentview_depth"][..., 0]
    model, data = env._model, env._data
    camera = data.camera("agentview")
    half = np.tan(np.radians(model.camera("agentview").fovy[0]) / 2)
    visible_groups = np.array([0, 1, 1, 0, 0, 0], np.uint8)
    expected = np.zeros((48, 48))
    for row, column in np.ndindex(48, 48):
        x, y = (column + 0.5) / 24 - 1, 1 - (row + 0.5) / 24
        ahead = np.array([x * half, y * half, -1.0])
        ray, hit = camera.xmat.reshape(3, 3) @ ahead / np.linalg.norm(ahead), np.zeros(1, np.int32)
        reach = mujoco.mj_ray(model, data, camera.xpos, ray, visible_groups, 1, -1, hit)
        expected[row, column] = 1000 * reach / np.linalg.norm(ahead)
    close = np.abs(picture - expected) < 1.0  # [mm]; at the edge of a thing a ray may pass where the pixel shows it
    assert close.mean() > 0.98 and expected.max() - expected.min() > 300
    assert of_spec(env.spec).build().spec == env.spec
    env.close()
    with pytest.raises(RobotRLError, match="no camera 'agentvew'"):
        WorldConfig("robosuite:Lift", cameras=("agentvew_depth",)).build()


# -------------------------------------------------------------------------------------------------- stores and formats


@pytest.fixture(scope="module")
def lift(tmp_path_factory):
    """A store of one short episode of Lift, seen in colour and depth."""
    from robot_rl.rollout import rollout

    env = WorldConfig("robosuite:Lift", cameras=("agentview", "agentview_depth"), image_size=48, max_steps=12).build()
    out = tmp_path_factory.mktemp("depth") / "lift"
    with EpisodeStore.create(out, env.spec) as store:
        store.append(rollout(env, operator_for(env.spec, 1.0), explore=False, seed=0))
    env.close()
    return out


def test_a_store_gives_depth_back_as_it_was_and_refuses_other_kinds(lift, tmp_path):
    store = EpisodeStore.open(lift)
    episode = store[0]
    seen = episode.obs["image/agentview_depth"]
    assert seen.dtype == np.uint16 and seen.shape == (13, 48, 48, 1) and 500 < np.median(seen) < 3000
    with EpisodeStore.create(tmp_path / "again", store.spec) as again:
        again.append(episode)
        assert np.array_equal(again[0].obs["image/agentview_depth"], seen)
        assert "image/agentview_depth" not in again.read(0, images=False).obs
        episode.obs["image/agentview_depth"] = seen.astype(np.uint8)
        with pytest.raises(RobotRLError, match="agentview_depth is uint8 .* asks for uint16"):
            again.append(episode)
    assert "image/agentview_depth" in inspect(tmp_path / "again", tmp_path / "plots")


def test_robomimic_takes_depth_along_and_lerobot_says_that_it_has_no_place_for_it(lift, tmp_path, capsys):
    store = EpisodeStore.open(lift)
    robomimic.write(tmp_path / "lift.hdf5", store.spec, store)
    spec, episodes = robomimic.read(tmp_path / "lift.hdf5")
    assert spec == store.spec
    assert np.array_equal(next(episodes).obs["image/agentview_depth"], store[0].obs["image/agentview_depth"])
    pytest.importorskip("pyarrow")
    assert export(tmp_path / "lerobot", store, "lerobot") == 1
    assert "left out, as lerobot has no place for depth: agentview_depth" in capsys.readouterr().out
    spec, _ = recordings(tmp_path / "lerobot", WorldConfig("", cameras=("agentview",)))
    assert [c.name for c in spec.cameras] == ["agentview"]


# ------------------------------------------------------------------------------------------------------------ policies


def seen(n=3, seed=1):
    obs = some_obs(n, spec=LARGE, seed=seed)
    random = np.random.default_rng(seed)
    return obs | {"image/top_depth": torch.from_numpy(random.integers(1, 4000, (n, 2, 40, 40, 1), np.uint16))}


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_every_encoder_learns_from_depth_beside_colour(encoder, tmp_path):
    policy = built(replace(TINY, vision=VisionConfig(encoder)), BOTH)
    chunk, noise = policy.sample(seen(), noise := torch.randn(3, 8, 2)), noise
    other = {**seen(), "image/top_depth": seen(seed=2)["image/top_depth"]}
    assert not torch.equal(policy.sample(other, noise), chunk)
    checkpoint.save(policy, tmp_path / "policy.pt")
    assert torch.equal(checkpoint.load(tmp_path / "policy.pt").sample(seen(), noise), chunk)
    policy.train().loss({**seen(8), "action": torch.rand(8, 8, 2)}).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.net.vision.parameters())


def test_what_is_farther_than_far_looks_alike_and_what_is_nearer_does_not():
    policy = built(replace(TINY, vision=VisionConfig(SMALL, far=1.5)), BOTH)
    noise, obs = torch.randn(3, 8, 2), seen()
    beyond = {**obs, "image/top_depth": torch.full_like(obs["image/top_depth"], 1500)}
    farther = {**obs, "image/top_depth": torch.full_like(obs["image/top_depth"], 9000)}
    nearer = {**obs, "image/top_depth": torch.full_like(obs["image/top_depth"], 1400)}
    assert torch.equal(policy.sample(beyond, noise), policy.sample(farther, noise))
    assert not torch.equal(policy.sample(beyond, noise), policy.sample(nearer, noise))
    with pytest.raises(RobotRLError, match="far is 0.0 m"):
        VisionConfig(SMALL, far=0.0).build(BOTH.cameras)


def test_depth_is_shifted_and_not_recoloured():
    eyes = VisionConfig(SMALL, shift=2, jitter=0.9).build(BOTH.cameras)
    eyes.eval()
    plain = eyes(seen())
    eyes.train()
    eyes.config = replace(eyes.config, shift=0)
    assert torch.equal(eyes(seen())[..., SMALL.features :], plain[..., SMALL.features :])
    assert not torch.equal(eyes(seen())[..., : SMALL.features], plain[..., : SMALL.features])


def test_a_camera_that_gives_colours_in_place_of_depth_is_named():
    policy = built(TINY, BOTH)
    wrong = {**seen(), "image/top_depth": torch.zeros(3, 2, 40, 40, 3, dtype=torch.uint8)}
    with pytest.raises(RobotRLError, match=r"'top_depth' must give the policy \(B, To, 40, 40, 1\) uint16, not"):
        policy.sample(wrong)


def test_windows_and_a_replay_keep_millimetres(lift):
    from robot_rl.replay import Table

    store = EpisodeStore.open(lift)
    pictures = store[0].obs["image/agentview_depth"]
    windows = Windows(list(store), 4, 2)
    windows.see(store.spec.cameras, store)
    batch = windows.batch(torch.tensor([0, 5]))["image/agentview_depth"]
    assert batch.dtype == torch.uint16 and np.array_equal(batch[1], pictures[4:6])
    table = Table(images=True)
    table.add(store[0])
    drawn = table.sample(4, 1, 0.99, torch.Generator().manual_seed(0))
    assert drawn["next/image/agentview_depth"].dtype == torch.uint16 and drawn["image/agentview"].dtype == torch.uint8


def test_pretrained_colours_become_one_grey_channel_of_depth(tmp_path):
    from tests.test_vision import torchvision_file

    weights = torchvision_file(tmp_path / "resnet18.pt")
    eyes = Resnet(ResnetConfig(pretrained=str(tmp_path / "resnet18.pt")), 1)
    eyes.start()
    deviation = (weights["bn1.running_var"] + 1e-5).sqrt()[:, None, None, None]
    torch.testing.assert_close(eyes.conv1.weight, (weights["conv1.weight"] / deviation).sum(1, keepdim=True))
