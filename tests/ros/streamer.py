"""A policy in a process of its own: wishes at 20 Hz, up and down along y, at 0.23 m/s in the middle.

Each is stamped with the arm's pose that it comes from, as a policy's are with its observation.
"""

from __future__ import annotations

import math
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data

from drivers.messages import pose_msg, stamp_of
from tests.ros.rig import DOWN, MIDDLE

rclpy.init()
node = rclpy.create_node("streamer")
publisher = node.create_publisher(PoseStamped, "policy/target_pose", 1)
begin = time.monotonic()
seen = []


def wish() -> None:
    way = 0.03 * math.sin(2 * math.pi * 1.2 * (time.monotonic() - begin))
    if seen:
        publisher.publish(pose_msg(seen[-1], "base", MIDDLE + np.array([0, way, 0]), DOWN))


def take(message: PoseStamped) -> None:
    seen[:] = [stamp_of(message.header)]


node.create_subscription(PoseStamped, "current_pose", take, qos_profile_sensor_data)
node.create_timer(0.05, wish)
executor = SingleThreadedExecutor()
executor.add_node(node)
executor.spin()
