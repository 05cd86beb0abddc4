"""A person demonstrates: publish TwistStamped or PoseStamped on teleop/target_pose, and the recorder keeps episodes."""

from __future__ import annotations

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` starts."""
    robot = LaunchConfiguration("robot")
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", description="YAML file of the robot, as in launch/params"),
            DeclareLaunchArgument("out", description="the store of episodes; one that is there goes on"),
            IncludeLaunchDescription(
                str(Path(__file__).parent / "robot.launch.py"), launch_arguments={"robot": robot}.items()
            ),
            Node(
                executable=sys.executable,
                exec_name="recorder",
                arguments=["-m", "drivers.recorder", "--robot", robot, "--out", LaunchConfiguration("out")],
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
                output="screen",
                on_exit=Shutdown(reason="nothing is recorded without the recorder"),
            ),
        ]
    )
