"""The robot computer: arm_node, and a camera_node for each camera that is ours. The other launch files include this.

What a launch starts after it stands in the same namespace and has the same parameters. All ends with arm_node, since
nothing else holds the arm; whatever else dies, arm_node brakes and holds. Ctrl-C reaches all processes at once, and as
arm_node alone commands the controller, the last that an arm hears is its hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, PushRosNamespace, SetParameter, SetParametersFromFile

DEVICES = ("realsense:", "opencv:")  # a simulated camera is published by the simulation, any other by its own node


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` starts."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", description="YAML file of the robot, as in launch/params"),
            DeclareLaunchArgument("namespace", default_value="", description="of all nodes and topics"),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="stamps come from /clock; watchdogs never do",
            ),
            DeclareLaunchArgument("params_file", default_value="", description="YAML file of ROS parameters"),
            DeclareLaunchArgument("log_level", default_value="info", description="of all nodes: debug, info, warn ..."),
            PushRosNamespace(LaunchConfiguration("namespace")),
            SetParameter("use_sim_time", LaunchConfiguration("use_sim_time")),
            OpaqueFunction(function=_params_file),
            _node("drivers.arm_node", on_exit=Shutdown(reason="nothing holds the arm without arm_node")),
            OpaqueFunction(function=_cameras),
        ]
    )


def _params_file(context: LaunchContext) -> list[Action]:
    file = LaunchConfiguration("params_file").perform(context)
    if file and not Path(file).is_file():
        raise RuntimeError(f"there is no params_file {file}")
    return [SetParametersFromFile(file)] if file else []


def _cameras(context: LaunchContext) -> list[Action]:
    """A camera that died is started again; the arm, held as its pictures are old, still waits for a person."""
    try:
        from drivers.robot_file import load
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{sys.executable} runs this launch and has no robot-rl ({error}); "
            "start it with the Python that has: python $(which ros2) launch ..."
        ) from error

    robot = load(Path(LaunchConfiguration("robot").perform(context)))
    ours = [name for name, camera in robot.cameras.items() if camera.device.startswith(DEVICES)]
    return [_node("drivers.camera_node", "--camera", name, respawn=True, respawn_delay=2.0) for name in ours]


def _node(module: str, *arguments: str, **options: object) -> Node:
    return Node(
        executable=sys.executable,
        exec_name="_".join([module.split(".")[-1], *arguments[1:]]),
        arguments=["-m", module, "--robot", LaunchConfiguration("robot"), *arguments],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        **options,
    )
