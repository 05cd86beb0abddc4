"""Practice on the robot: role:=actor on the robot's side, role:=learner on the GPU machine, which starts no arm.

Both take the same other words, and an `out` that both machines see under the same path.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` starts."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("role", choices=["actor", "learner"], description="play on the robot, or learn"),
            DeclareLaunchArgument("robot", description="YAML file of the robot, as in launch/params"),
            DeclareLaunchArgument("checkpoint", description="the base policy: its file, or the folder of its run"),
            DeclareLaunchArgument("demos", description="the store of demonstrations"),
            DeclareLaunchArgument("out", description="folder of the run; the same folder resumes"),
            DeclareLaunchArgument(
                "words", default_value="", description="more of `robot-rl refine`, as --steps 20000 agent:dsrl"
            ),
            IncludeLaunchDescription(
                str(Path(__file__).parent / "robot.launch.py"),
                launch_arguments={"robot": LaunchConfiguration("robot")}.items(),
                condition=IfCondition(EqualsSubstitution(LaunchConfiguration("role"), "actor")),
            ),
            OpaqueFunction(function=_refine),
        ]
    )


def _refine(context: LaunchContext) -> list[Node]:
    options = {"role": "role", "robot": "robot", "policy": "checkpoint", "demos": "demos", "out": "out"}
    words = [word for option, name in options.items() for word in (f"--{option}", LaunchConfiguration(name))]
    return [
        Node(
            executable=sys.executable,
            exec_name="refine",
            arguments=[
                *("-m", "robot_rl.cli", "refine", *words),
                *shlex.split(LaunchConfiguration("words").perform(context)),
            ],
            ros_arguments=["--log-level", LaunchConfiguration("log_level", default="info")],
            output="screen",
        )
    ]
