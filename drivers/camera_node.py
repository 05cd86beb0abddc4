"""The ROS 2 node of one camera: `python -m drivers.camera_node --robot FILE --camera NAME [--ros-args ...]`.

Publishes the camera's topic (sensor_msgs/Image, best effort, stamped with the moment of acquisition) and `diagnostics`:
once a second, and at once when the camera's health changes.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from drivers import interrupts, robot_file
from drivers.camera import LiveCamera
from drivers.health import Level, StreamHealth, camera_limits
from drivers.messages import image_msg, stamp_msg
from drivers.node_process import declare, make_node, place, room_for_pictures, spin, split_ros_arguments, start_ros
from drivers.opencv_camera import OpencvCamera
from drivers.realsense import RealSenseCamera
from drivers.robot_file import CameraFile, RobotFile
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.node import Node

WATCH = 0.05  # between looks at the camera's health [s]
REPORT = 1.0  # between reports of it when nothing changes [s]


class CameraNode:
    """Publishes one camera; whoever spins `node` drives it."""

    def __init__(self, node: Node, name: str, file: CameraFile, camera: LiveCamera, frame_id: str) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.event_handler import PublisherEventCallbacks
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image

        self._node, self._name, self._file, self._camera = node, name, file, camera
        self._health = StreamHealth(camera_limits(file.rate))
        self._level, self._reported, self._refused = Level.OK, 0.0, 0
        self._frame_id = frame_id
        callbacks = PublisherEventCallbacks(incompatible_qos=self._refuse)
        self._images = node.create_publisher(Image, file.topic, qos_profile_sensor_data, event_callbacks=callbacks)
        self._diagnostics = node.create_publisher(DiagnosticArray, "diagnostics", 10)
        self._timer = node.create_timer(WATCH, self._watch, clock=_steady_clock())
        self._arrival = node.create_guard_condition(self._publish)
        camera.on_frame = self._arrival.trigger

    def _publish(self) -> None:
        frame = self._camera.read()
        if frame is None:
            return
        self._images.publish(image_msg(frame, self._frame_id))
        self._health.add(frame.stamp, time.monotonic(), number=frame.number, image=frame.image)
        self._watch()

    def _watch(self) -> None:
        steady = time.monotonic()
        level, text = self._health.verdict(time.time(), steady)
        if level != self._level or steady - self._reported >= REPORT:
            self._level, self._reported = level, steady
            self._diagnostics.publish(self._report(level, self._camera.lost or text))

    def _report(self, level: Level, text: str) -> DiagnosticArray:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        now = time.time()
        values = self._health.values(now) | {
            "reconnects": self._camera.reconnects,
            "subscribers refused for their QoS": self._refused,
        }
        status = DiagnosticStatus(
            level=bytes([level]),
            name=f"camera {self._name}",
            message=text,
            hardware_id=self._file.device,
            values=[KeyValue(key=key, value=f"{value:g}") for key, value in values.items()],
        )
        report = DiagnosticArray(status=[status])
        report.header.stamp = stamp_msg(now)
        return report

    def _refuse(self, event: Any) -> None:
        from rclpy.qos import qos_policy_name_from_kind

        self._refused = event.total_count
        topic, policy = self._images.topic_name, qos_policy_name_from_kind(event.last_policy_kind)
        self._node.get_logger().error(
            f"a subscriber to {topic} gets no pictures: its QoS policy {policy} asks for more than a camera offers. "
            "Let it subscribe with qos_profile_sensor_data (best effort, volatile); "
            f"`ros2 topic info -v {topic}` names it."
        )


def open_camera(name: str, file: CameraFile) -> LiveCamera:
    """The camera that the robot's file names, streaming."""
    kind, _, where = file.device.partition(":")
    mode = file.height, file.width, file.rate
    if kind == "realsense":
        return RealSenseCamera(where, *mode, depth=file.depth)
    if kind == "opencv":
        return OpencvCamera(where, *mode)
    hint = {
        "sim": "`robot-rl simulate` publishes simulated cameras",
        "": "another node publishes it, or its `device` is missing",
    }
    raise RobotRLError(
        f"camera '{name}' has device '{file.device}': {hint.get(kind, 'use realsense:SERIAL or opencv:INDEX_OR_PATH')}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Publish until SIGINT or SIGTERM; 2 when that cannot begin."""
    interrupts.listen()
    own, ros = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    asked_for = _parser().parse_args(own)
    try:
        file = _camera_of(robot_file.load(asked_for.robot), asked_for.camera)
        asked = start_ros(ros)
        with room_for_pictures():
            node = make_node(f"{asked_for.camera}_camera")
        frame_id = _frame_id(node, asked_for.camera)
        camera = open_camera(asked_for.camera, file)
    except RobotRLError as error:
        print(f"camera_node: {error}", file=sys.stderr)
        return 2
    CameraNode(node, asked_for.camera, file, camera, frame_id)

    def closed() -> bool:
        camera.close()  # before the node, which its thread wakes
        return True

    spin(node, asked, closed)
    return 0


def _camera_of(robot: RobotFile, name: str) -> CameraFile:
    if name not in robot.cameras:
        raise RobotRLError(f"the robot's file has no camera '{name}': it has {', '.join(robot.cameras) or 'none'}")
    if not name.isidentifier():
        raise RobotRLError(f"ROS takes letters, digits and _ only: call camera '{name}' something else")
    return robot.cameras[name]


def _frame_id(node: Node, name: str) -> str:
    from rcl_interfaces.msg import ParameterDescriptor

    described = ParameterDescriptor(description="tf frame of the pictures: x right, y down, z ahead", read_only=True)
    return str(declare(node, "frame_id", f"{name}_optical_frame", described))


def _steady_clock() -> Any:
    from rclpy.clock import Clock, ClockType

    return Clock(clock_type=ClockType.STEADY_TIME)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m drivers.camera_node", description=__doc__)
    parser.add_argument("--robot", type=place, required=True, help="the robot's YAML file")
    parser.add_argument("--camera", required=True, help="its name in that file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
