"""A policy in a process of its own: wishes at 20 Hz, up and down along y, at 0.23 m/s in the middle."""

from __future__ import annotations

import math
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped

from drivers.messages import pose_msg
from tests.ros.rig import DOWN, MIDDLE

rclpy.init()
node = rclpy.create_node("streamer")
publisher = node.create_publisher(PoseStamped, "policy/target_pose", 1)
begin = time.monotonic()
while True:
    way = 0.03 * math.sin(2 * math.pi * 1.2 * (time.monotonic() - begin))
    stamp = node.get_clock().now().nanoseconds * 1e-9
    publisher.publish(pose_msg(stamp, "base", MIDDLE + np.array([0, way, 0]), DOWN))
    time.sleep(0.05)
