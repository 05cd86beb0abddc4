"""Whether somebody takes what the fingers are told: on the topic of the profile `commands`, or by its action."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from drivers.check import Endpoint, Endpoints, absent
from drivers.gripper import ACTIONS
from drivers.robot_file import RobotFile

if TYPE_CHECKING:
    from rclpy.node import Node


def action_wrong(robot: RobotFile, name: str, servers: Endpoints, clients: Endpoints) -> Iterator[str]:
    """Why the action `name`, with its namespace, does not move the fingers, or somebody else moves them too."""
    if robot.gripper.profile == "commands":
        return
    kind = f"control_msgs/action/{ACTIONS[robot.gripper.profile]}"
    if not any(server.kind == kind for server in servers.get(name, [])):
        yield absent(name, kind, servers, "offers the action", "or let `gripper.topic` of the robot's file name it")
    nodes = [client.node for client in clients.get(name, [])]
    if any(not node.endswith("/arm_node") for node in nodes) or nodes[1:]:
        yield f"{', '.join(nodes)} send goals to {name}: only one arm_node may; what else does has to go"


def actions(node: Node) -> tuple[dict[str, list[Endpoint]], dict[str, list[Endpoint]]]:
    """Who serves each action, and who is its client; without `node` itself."""
    from rclpy.action import get_action_client_names_and_types_by_node, get_action_server_names_and_types_by_node

    return _by_name(node, get_action_server_names_and_types_by_node), _by_name(
        node, get_action_client_names_and_types_by_node
    )


def _by_name(node: Node, of_node: Callable[..., Any]) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = {}
    for name, space in node.get_node_names_and_namespaces():
        if (name, space) == (node.get_name(), node.get_namespace()):
            continue
        try:
            offered = of_node(node, name, space)
        except RuntimeError:  # rclpy's for a node that has just gone
            continue
        for action, kinds in offered:
            found.setdefault(action, []).extend(Endpoint(f"{space.rstrip('/')}/{name}", kind) for kind in kinds)
    return found
