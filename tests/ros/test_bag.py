"""A bag of a real run over DDS, of the bytes that ROS itself made, gives the episodes that the recorder kept."""

from __future__ import annotations

import numpy as np
import pytest

from drivers import bag
from drivers.robot_file import load
from robot_rl.episodes import EpisodeStore
from tests.ros.test_recorder import file, rig, start  # noqa: F401

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="pip install 'robot-rl[bags]'")
pytestmark = pytest.mark.timeout(60)


class RawBag:
    """Writes what it hears, byte for byte, as `ros2 bag record` does."""

    def __init__(self, node, path) -> None:
        from rosbags.typesys import Stores, get_typestore

        self._node, self._types = node, get_typestore(Stores.ROS2_JAZZY)
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._writer.open()

    def hear(self, kind, topic, name) -> None:
        from rclpy.qos import qos_profile_sensor_data

        row = self._writer.add_connection(topic, name, typestore=self._types)

        def take(raw) -> None:
            self._writer.write(row, self._node.get_clock().now().nanoseconds, raw)

        self._node.create_subscription(kind, topic.lstrip("/"), take, qos_profile_sensor_data, raw=True)

    def close(self) -> None:
        self._writer.close()


def test_a_bag_of_a_run_is_what_its_recorder_kept(rig, tmp_path):  # noqa: F811
    from diagnostic_msgs.msg import DiagnosticStatus
    from geometry_msgs.msg import PoseStamped, WrenchStamped
    from sensor_msgs.msg import JointState

    recorded = RawBag(rig.node, tmp_path / "bag")
    for topic in ("/joint_states", "/objects", "/setpoint_gripper"):
        recorded.hear(JointState, topic, bag.JOINTS)
    for topic in ("/current_pose", "/setpoint"):
        recorded.hear(PoseStamped, topic, bag.POSE)
    recorded.hear(WrenchStamped, "/wrench", bag.WRENCH)
    recorded.hear(DiagnosticStatus, "/arm_status", bag.STATUS)
    rig.demonstrate(1.5)
    rig.stored(1)
    rig.demonstrate(0.8)
    rig.stored(2)
    rig.close()
    recorded.close()
    robot = load(tmp_path / "robot.yaml")
    kept = list(EpisodeStore.open(tmp_path / "store"))
    found = list(bag.episodes(tmp_path / "bag", robot, "robot.yaml"))
    assert len(found) == len(kept) == 2
    for ours, theirs in zip(kept, found, strict=True):
        assert abs(len(ours) - len(theirs)) <= 4 and ours.meta["lease"] == theirs.meta["lease"]
        assert np.ptp(ours.action[:, 1]) > 0.1
        where = [np.interp(e.obs["stamp/state"][1:], *path_of(e)) for e in (ours, theirs)]
        again = [np.interp(e.obs["stamp/state"][1:], *path_of(o)) for e, o in ((ours, theirs), (theirs, ours))]
        for a, b in zip(where, again, strict=True):  # what was asked, by either, at the same moments
            assert np.median(np.abs(a - b)) < 2e-3  # 0.05 m/s for 40 ms: their ticks lie elsewhere, in up to 75 mm
            assert np.abs(a - b).max() < 8e-3  # what a busy machine delays


def path_of(episode):
    """The moments, and the place along y that was asked for at each."""
    asked = episode.obs["state"][:-1, 1] + 0.02 * episode.action[:, 1]
    return episode.obs["stamp/state"][1:], asked
