"""Bags of a robot's topics: what is converted is what the recorder would have kept, and another robot's is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from drivers import bag
from drivers.observer import Observer
from drivers.recorder import Recorder
from drivers.robot_file import CameraFile
from drivers.sync import Stream
from drivers.take import Lease
from robot_rl import imports
from robot_rl.episodes import EpisodeStore
from robot_rl.types import RobotRLError, Target
from sim.worlds import WorldConfig
from tests.lockstep import DOWN, JOINTS, MIDDLE, ROBOT, Bench

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="pip install 'robot-rl[bags]'")
from rosbags.typesys import Stores, get_typestore  # noqa: E402

TYPES = get_typestore(Stores.ROS2_JAZZY)
M = TYPES.types
NAMES = [*JOINTS, "finger"]


class Bag:
    """Writes messages of the robot's topics under a namespace, at a time that is told."""

    def __init__(self, path: Path, storage: str = "MCAP", room: str = "/") -> None:
        self.path, self.time, self.room, self.rows = path, 100.0, room, {}
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=getattr(rosbag2.StoragePlugin, storage))
        self._writer.open()

    def close(self) -> Path:
        self._writer.close()
        return self.path

    def write(self, topic, kind, **fields):
        if topic not in self.rows:
            self.rows[topic] = self._writer.add_connection(self.room + topic, kind, typestore=TYPES)
        if "header" in M[kind].__dataclass_fields__:
            fields["header"] = self.header(fields.pop("frame", "base"))
        raw = TYPES.serialize_cdr(M[kind](**fields), kind)
        self._writer.write(self.rows[topic], round(self.time * 1e9), raw)

    def header(self, frame):
        sec, nanosec = divmod(round(self.time * 1e9), 10**9)
        stamp = M["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
        return M["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)

    def numbers(self, topic, names, values):
        none = np.zeros(0)
        self.write(topic, bag.JOINTS, name=list(names), position=np.array(values, float), velocity=none, effort=none)

    def pose(self, topic, position, turn=DOWN, frame="base"):
        point = M["geometry_msgs/msg/Point"](*map(float, position))
        turned = M["geometry_msgs/msg/Quaternion"](*map(float, turn))
        self.write(topic, bag.POSE, pose=M["geometry_msgs/msg/Pose"](point, turned), frame=frame)

    def status(self, stopped="", holder="teleop", lease="1"):
        pair = M["diagnostic_msgs/msg/KeyValue"]
        values = [pair("holder", holder), pair("lease", lease)]
        self.write("arm_status", bag.STATUS, level=0, name="arm", message=stopped, hardware_id="", values=values)

    def moment(self, k, names=NAMES, frame="base", picture=None):
        """All of the robot's topics: the tool is k mm along x, and asked to be 5 mm beyond along y."""
        here = MIDDLE + [0.001 * k, 0, 0]
        self.numbers("joint_states", names, [*([0.1] * 7), 0.04])
        self.numbers("objects", ["cube_x"], [0.01 * k])
        self.pose("current_pose", here, frame=frame)
        self.numbers("setpoint_gripper", ["gripper"], [0.25])
        self.pose("setpoint", here + [0, 0.005, 0])
        if picture is not None:
            data = np.full(18, picture, np.uint8)
            self.write("wrist", bag.IMAGE, height=2, width=3, encoding="rgb8", is_bigendian=0, step=9, data=data)
        self.time = round(self.time + 0.01, 6)


def converted(path, robot=ROBOT):
    return list(bag.episodes(path, robot, "robot.yaml"))


class Watched(Bench):
    """A bench all of whose topics are written to a bag, and whose setpoints are streams, as the recorder has them."""

    def __init__(self, path: Path) -> None:
        self.bag, self.setpoints = Bag(path), Stream[Target]("setpoint", 400)
        super().__init__()

    def measure(self) -> None:
        super().measure()
        self.bag.time = self.time
        self.bag.numbers("joint_states", NAMES, [*self.state().joints, 0.04 * self.opening])
        self.bag.numbers("objects", ["cube_x"], [0.001 * self.time])
        self.bag.pose("current_pose", self.position, self.turn)
        if self.rulings:
            sent = self.rulings[-1].sent
            self.setpoints.add(self.time, replace(sent, stamp=self.time))
            self.bag.numbers("setpoint_gripper", ["gripper"], [sent.gripper])
            self.bag.pose("setpoint", sent.position, sent.turn)

    def wander(self, seconds):
        """A person moves the arm meanwhile."""
        end = self.time + seconds
        while self.time < end - 1e-9:
            way = [0.02 * np.sin(3 * self.time), 0.02 * np.cos(2 * self.time), 0.0]
            self.command(Target(self.time, MIDDLE + way, DOWN, 0.3, "teleop"))
            Bench.sleep_until(self, self.time + 0.01)

    def sleep_until(self, moment):
        self.wander(moment - self.time)


def test_what_is_converted_is_what_the_recorder_kept(tmp_path):
    bench = Watched(tmp_path / "bag")
    observer = Observer(ROBOT, bench.readings, {"tracker": bench.tracker})
    bench.servo.arm("teleop", bench.state(), bench.time, bench.time)
    bench.wander(0.5)
    log = SimpleNamespace(info=print, warning=print, error=print)
    with EpisodeStore.create(tmp_path / "store", ROBOT.spec()) as store:
        recorder = Recorder(
            observer, bench.setpoints, bench, store, log, free=0, solved=lambda: False, asked=lambda: False, meta={}
        )
        for lease, stopped in (("1", "let go"), ("2", "let go too")):
            bench.bag.status(lease=lease)
            recorder.lease = Lease(int(lease), lease, "teleop", "", 0.0)
            for _ in range(15 * int(lease)):
                recorder.turn()
            bench.wander(0.02)
            bench.bag.status(stopped, lease=lease)
            recorder.lease = Lease(int(lease), lease, "", stopped, 0.0)
            recorder.turn()
            bench.wander(0.3)
    kept = list(EpisodeStore.open(tmp_path / "store"))
    found = converted(bench.bag.close())
    assert [len(e) for e in kept] == [len(e) for e in found] == [14, 29]
    for ours, theirs in zip(kept, found, strict=True):
        np.testing.assert_allclose(theirs.action, ours.action, atol=2e-5)  # stamps are kept to a nanosecond
        np.testing.assert_allclose(theirs.obs["state"], ours.obs["state"], atol=1e-6)
        np.testing.assert_allclose(theirs.obs["stamp/state"], ours.obs["stamp/state"], atol=1e-6)
        assert np.abs(ours.action[:, :2]).max() > 0.1  # it was moved
        for key in ("source", "lease", "ended", "aborted", "mark", "drops"):
            assert theirs.meta[key] == ours.meta[key], key


@pytest.mark.parametrize(("storage", "room"), [("MCAP", "/left/arm/"), ("SQLITE3", "/")])
def test_values_are_those_that_were_recorded(tmp_path, storage, room):
    writer = Bag(tmp_path / "bag", storage, room)
    writer.status()
    for k in range(40):
        writer.moment(k)
    path = writer.close()
    ending = ".mcap" if storage == "MCAP" else ".db3"
    for source in (path, next(path.glob(f"*{ending}"))):  # the folder, and the bare file in it
        (episode,) = converted(source)
        assert bag.is_bag(source) and len(episode) == 7 and episode.meta["ended"] == "the bag ended"
        np.testing.assert_allclose(episode.action[:, :3], np.tile([0.25, 0.25, 0.0], (7, 1)), atol=1e-6)
        np.testing.assert_allclose(episode.action[:, 6], 0.5, atol=1e-6)
        k = np.round((episode.obs["stamp/state"] - 100.0) * 100)
        np.testing.assert_allclose(np.diff(k), 5)
        np.testing.assert_allclose(episode.obs["state"][:, 0], MIDDLE[0] + 0.001 * k, atol=1e-6)
        np.testing.assert_allclose(episode.obs["state"][:, -1], 0.01 * k, atol=1e-6)


def test_a_bag_without_arm_status_is_one_episode_and_success_ends_it(tmp_path, capsys):
    writer = Bag(tmp_path / "bag")
    for k in range(60):
        writer.moment(k, picture=k)
        writer.write("world/success", bag.BOOL, data=k >= 33)
    robot = replace(ROBOT, cameras={"wrist": CameraFile("wrist", 2, 3)})
    (episode,) = converted(writer.close(), robot)
    assert "no /arm_status" in capsys.readouterr().out
    assert episode.success and episode.terminated and episode.reward.tolist() == [0.0] * (len(episode) - 1) + [1.0]
    assert episode.meta["ended"] == "the world said success" and len(episode) == 7
    k = np.round((episode.obs["stamp/image/wrist"] - 100.0) * 100)
    assert np.array_equal(episode.obs["image/wrist"][:, 0, 0, 0], k)


def test_a_silent_stream_ends_an_episode_and_it_is_kept(tmp_path):
    writer = Bag(tmp_path / "bag")
    writer.status()
    for k in range(30):
        writer.moment(k)
    for _ in range(60):
        writer.pose("current_pose", MIDDLE)
        writer.time += 0.01
    (episode,) = converted(writer.close())
    assert "old" in episode.meta["aborted"] and episode.truncated and 4 <= len(episode) <= 12


def test_the_controllers_own_topic_tells_what_was_asked_where_no_arm_node_ran(tmp_path):
    writer = Bag(tmp_path / "bag")
    for k in range(30):
        here = MIDDLE + [0.001 * k, 0, 0]
        writer.numbers("joint_states", NAMES, [*([0.1] * 7), 0.04])
        writer.numbers("objects", ["cube_x"], [0.0])
        writer.pose("current_pose", here)
        layout = M["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        writer.write(ROBOT.gripper.topic, bag.NUMBERS, layout=layout, data=np.array([0.03]))
        writer.pose("target_pose", here + [0, 0.01, 0])
        writer.time += 0.01
    (episode,) = converted(writer.close())
    np.testing.assert_allclose(episode.action[:, 1], 0.5, atol=1e-6)
    np.testing.assert_allclose(episode.action[:, 6], -0.5, atol=1e-6)


def spoilt(path, says, **how):
    writer = Bag(path)
    writer.status(**how.pop("status", {}))
    for k in range(20):
        writer.moment(k, **how)
    with pytest.raises(RobotRLError, match=says):
        converted(writer.close())


def test_another_robots_bag_is_refused_with_what_it_has(tmp_path):
    spoilt(tmp_path / "frame", "current_pose is in the frame 'world', the robot's file says 'base'", frame="world")
    other = ["shoulder", *NAMES[1:]]
    spoilt(tmp_path / "names", "joint_states lacks joint1; it has shoulder, joint2", names=other)
    spoilt(tmp_path / "idle", "nobody commanded the arm .never armed", status={"stopped": "never armed"})
    path = tmp_path / "names"
    with pytest.raises(RobotRLError, match="lacks the topics /wrist.*it has /arm_status .*DiagnosticStatus.*setpoint"):
        converted(path, replace(ROBOT, cameras={"wrist": CameraFile("wrist", 2, 3)}))
    with pytest.raises(RobotRLError, match="/objects is sensor_msgs/msg/JointState, and sensor_msgs/msg/Image is read"):
        converted(path, replace(ROBOT, cameras={"wrist": CameraFile("objects", 2, 3)}))
    with pytest.raises(RobotRLError, match="no topic tool_pose; it has /arm_status"):
        converted(path, replace(ROBOT, pose="tool_pose"))


def test_a_torn_bag_and_one_without_its_robot_are_refused(tmp_path):
    (tmp_path / "torn.mcap").write_bytes(b"\x89MCAP0\r\n torn")
    with pytest.raises(RobotRLError, match="torn.mcap cannot be read .*mcap recover"):
        converted(tmp_path / "torn.mcap")
    with pytest.raises(RobotRLError, match="name the robot's YAML file with --robot"):
        imports.recordings(tmp_path / "torn.mcap", WorldConfig(world=""))
