"""Everything on a laptop: `robot-rl simulate` stands in for the robot, and deploy.launch.py is the rest."""

from __future__ import annotations

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

HERE = Path(__file__).parent


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` starts."""
    robot, checkpoint = LaunchConfiguration("robot"), LaunchConfiguration("checkpoint")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "robot",
                default_value=str(HERE / "params" / "sim_panda_lift.yaml"),
                description="YAML file of the simulated robot",
            ),
            DeclareLaunchArgument("checkpoint", description="what plays: a checkpoint, or the folder of its run"),
            DeclareLaunchArgument("seed", default_value="0", description="of the start states"),
            IncludeLaunchDescription(
                str(HERE / "deploy.launch.py"),
                launch_arguments={"robot": robot, "checkpoint": checkpoint}.items(),
            ),
            Node(
                executable=sys.executable,
                exec_name="simulate",
                arguments=["-m", "robot_rl.cli", "simulate", "--robot", robot, "--seed", LaunchConfiguration("seed")],
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
                output="screen",
                on_exit=Shutdown(reason="the simulated robot is gone"),
            ),
        ]
    )
