"""Pictures of the simulated robot over DDS: what they show and when, and that nothing waits for them."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import psutil
import pytest
import yaml

from drivers.messages import frame_of, pose_msg, pose_of, stamp_of
from drivers.robot_file import load
from sim.robot_world import RobotView, RobotWorld, robosuite_world
from sim.worlds import WorldConfig
from tests.ros.conftest import ROOT

pytestmark = pytest.mark.timeout(180)
PARAMS = ROOT / "launch/params"
ROBOT = PARAMS / "sim_panda_lift_cameras.yaml"
SIMULATE = ("-m", "robot_rl.cli", "simulate", "--robot", ROBOT)
NAMES = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}  # as the world calls them
WORLD = WorldConfig("robosuite:Lift", "Panda", shadows=False)


def test_the_robot_with_cameras_is_the_one_without_them():
    with_them, without = (
        yaml.safe_load((PARAMS / f"sim_panda_lift{end}.yaml").read_text()) for end in ("_cameras", "")
    )
    assert set(with_them.pop("cameras")) == {"agentview", "wrist"}
    assert with_them == without
    assert load(ROBOT).spec().cameras == ()  # policies of the state alone fit


def test_a_view_shows_what_the_world_looks_like_bit_for_bit():
    config = WorldConfig("robosuite:Door", "Panda", shadows=False)  # a reset puts the door elsewhere in the model
    world, view = RobotWorld(robosuite_world(config)), RobotView(config)
    for seed in (3, 4):
        world.reset(seed)
        world.command(world.tool()[0] + [0.05, 0.0, 0.05], world.tool()[1])
        world.advance(0.2)
        view.show(world.look())
        np.testing.assert_array_equal(view.image("agentview", 64), world._env._image("agentview", 64))
    world.close()
    view.close()


@pytest.fixture
def listen(node):
    """The arm's topics and both cameras': (moment of arrival [s], message)."""
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState

    def subscribe(kind, topic):
        heard = []
        node.create_subscription(kind, topic, lambda m: heard.append((time.time(), m)), qos_profile_sensor_data)
        return heard

    names = {"joints": (JointState, "joint_states"), "poses": (PoseStamped, "current_pose")}
    return {k: subscribe(*v) for k, v in names.items()} | {
        name: subscribe(Image, f"{name}/image_raw") for name in ("agentview", "wrist")
    }


def seen_at(world, view, joints, camera, depth=False):
    """The picture that `camera` would take of an arm with these joint_states; the cube lies where seed 0 put it."""
    addresses = [world._model.joint(name).qposadr[0] for name in joints.name]
    world._data.qpos[addresses] = joints.position
    view.show(world.look())
    return view.image(NAMES[camera], 128, depth).astype(int)


def renderer_of(process):
    found = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    return found[0]


def test_pictures_show_the_moment_of_their_stamp_and_no_tick_waits_for_them(spawn, node, listen, wait_until):
    from geometry_msgs.msg import PoseStamped

    simulate = spawn(*SIMULATE)
    wait_until(lambda: listen["agentview"] and listen["wrist"] and listen["poses"], 90)
    target = node.create_publisher(PoseStamped, "target_pose", 1)
    position, turn = pose_of(listen["poses"][-1][1])
    for heard in listen.values():
        heard.clear()
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < 3.0:  # to the side and back
        way = 0.1 * np.sin(np.pi * elapsed)
        target.publish(pose_msg(time.time(), "robot0_base", position + [0, way, 0], turn))
        wait_until(lambda e=elapsed: time.monotonic() > begin + e + 0.05, 1)
    moments = np.array([stamp_of(m.header) for _, m in listen["joints"]])
    print(f"ticks: {(len(moments) - 1) / np.ptp(moments):.1f} Hz, gaps p99 {np.quantile(np.diff(moments), 0.99):.4f} s")
    assert len(moments) > 150, "rendered in the tick it would be 10 a second"
    world, view = RobotWorld(robosuite_world(WORLD)), RobotView(WORLD)
    for camera in ("agentview", "wrist"):
        pictures = listen[camera]
        stamps = np.array([stamp_of(m.header) for _, m in pictures])
        print(f"{camera}: {len(pictures)} in 3 s, median age {np.median([t for t, _ in pictures] - stamps):.3f} s")
        assert len(pictures) >= 3 and (np.diff(stamps) > 0).all()
        assert (np.array([t for t, _ in pictures]) > stamps).all()
        apart, wrong = [], []
        for _, picture in pictures[:: max(len(pictures) // 4, 1)]:
            at = int(np.abs(moments - stamp_of(picture.header)).argmin())
            if abs(moments[at] - stamp_of(picture.header)) > 1e-6 or at < 40:
                continue  # the joints of that tick were lost on the way here, or there are none 0.4 s before
            seen = frame_of(picture).image
            apart.append(np.abs(seen - seen_at(world, view, listen["joints"][at][1], camera)).mean())
            wrong.append(np.abs(seen - seen_at(world, view, listen["joints"][at - 40][1], camera)).mean())
        print(f"{camera}: differs by {np.round(apart, 3)} at its stamp, by {np.round(wrong, 3)} 0.4 s before")
        assert apart and max(apart) < 1.0, "what is left is the cube, which the physics let settle"
        assert np.mean(wrong) > 4 * max(apart)
    world.close()
    view.close()
    assert simulate.poll() is None


def test_a_depth_camera_publishes_the_millimetres_of_the_moment_of_its_stamp(spawn, listen, wait_until, tmp_path):
    robot = yaml.safe_load(ROBOT.read_text())
    robot["cameras"]["wrist"] |= {"depth": True, "observed": True}
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(robot))
    assert [(c.name, c.depth) for c in load(file).spec().cameras] == [("wrist", True)]
    spawn("-m", "robot_rl.cli", "simulate", "--robot", file)
    wait_until(lambda: len(listen["wrist"]) > 2 and listen["joints"], 90)
    picture = listen["wrist"][-1][1]
    assert picture.encoding == "16UC1" and picture.step == 256
    joints = min((m for _, m in listen["joints"]), key=lambda m: abs(stamp_of(m.header) - stamp_of(picture.header)))
    world, view = RobotWorld(robosuite_world(WORLD)), RobotView(WORLD)
    away = np.abs(frame_of(picture).image - seen_at(world, view, joints, "wrist", depth=True))
    assert np.median(away) <= 1 and np.mean(away < 5) > 0.95, "what is left is the cube, which the physics let settle"
    world.close()
    view.close()


def test_a_renderer_that_dies_is_started_again_and_one_without_its_parent_ends(spawn, listen, wait_until):
    simulate = spawn(*SIMULATE)
    wait_until(lambda: listen["agentview"], 90)
    first = renderer_of(simulate)
    first.send_signal(signal.SIGKILL)
    listen["joints"].clear()
    wait_until(lambda: "it is started again" in simulate.log.read_text(), 10)
    wait_until(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE, 5)
    time.sleep(0.1)
    listen["agentview"].clear()
    wait_until(lambda: listen["agentview"], 60)
    assert len(listen["joints"]) > 100, "the arm went on meanwhile"
    second = renderer_of(simulate)
    assert second.pid != first.pid
    os.kill(simulate.pid, signal.SIGKILL)
    wait_until(lambda: not second.is_running() or second.status() == psutil.STATUS_ZOMBIE, 5)
