"""A policy or a refined agent plays on the robot. It is not started again when it dies: a person shall see why."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.substitutions import IfElseSubstitution, LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` starts."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", description="YAML file of the robot, as in launch/params"),
            DeclareLaunchArgument("checkpoint", description="what plays: a checkpoint, or the folder of its run"),
            DeclareLaunchArgument("device", default_value="", description="where it thinks: cpu or cuda; empty: cpu"),
            DeclareLaunchArgument("out", default_value="", description="store for its episodes; empty: none is kept"),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=["true", "false"],
                description="configure and activate policy_node; else `ros2 lifecycle` does",
            ),
            DeclareLaunchArgument(
                "words", default_value="", description="more of `robot-rl deploy`, as --episodes 10 --seed 1"
            ),
            IncludeLaunchDescription(
                str(Path(__file__).parent / "robot.launch.py"),
                launch_arguments={"robot": LaunchConfiguration("robot")}.items(),
            ),
            OpaqueFunction(function=_deploy),
        ]
    )


def _deploy(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ("device", "out")}
    words = [word for name, value in given.items() if value for word in (f"--{name}", value)]
    words += shlex.split(LaunchConfiguration("words").perform(context))
    return [
        Node(
            executable=sys.executable,
            exec_name="deploy",
            arguments=[
                *("-m", "robot_rl.cli", "deploy"),
                *("--robot", LaunchConfiguration("robot"), "--agent", LaunchConfiguration("checkpoint")),
                IfElseSubstitution(LaunchConfiguration("autostart"), "--autostart", "--no-autostart"),
                *words,
            ],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]
