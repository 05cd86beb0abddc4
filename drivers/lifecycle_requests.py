"""Requests to change the state of a lifecycle node: one that its state does not allow is refused, and changes nothing.

rclpy 7 raises RCLError from the service's callback instead, which ends the executor, and with it the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.sound import excerpt

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


def refuse_illegal(node: LifecycleNode) -> None:
    """Let the service `change_state` of `node` answer False, with a warning in the log, where rclpy would raise."""
    from lifecycle_msgs.srv import GetAvailableTransitions, GetState

    services = {service.srv_name.rsplit("/", 1)[-1]: service for service in node.services}
    change = services["change_state"]
    before = change.callback

    def asked(service: str, kind: Any) -> Any:
        return services[service].callback(kind.Request(), kind.Response())

    def take(request: Any, response: Any) -> Any:
        wanted, legal = request.transition, asked("get_available_transitions", GetAvailableTransitions)
        known = [t.transition for t in legal.available_transitions]
        if _is_among(wanted, known):
            return before(request, response)
        graph = asked("get_transition_graph", GetAvailableTransitions).available_transitions
        state = asked("get_state", GetState).current_state.label
        takes = ", ".join(f"'{t.label}'" for t in known) or "nothing more"
        called = _called(wanted, [t.transition for t in graph])
        node.get_logger().warning(f"{called} is refused: the node is {state}; it takes {takes}")
        response.success = False
        return response

    change.callback = take


def _is_among(wanted: Any, known: list[Any]) -> bool:
    """By its label where it has one, as rclpy reads a request, else by its number."""
    return any(t.label == wanted.label if wanted.label else t.id == wanted.id for t in known)


def _called(wanted: Any, graph: list[Any]) -> str:
    label = wanted.label or next((t.label for t in graph if t.id == wanted.id), "")
    return f"'{excerpt(label)}'" if label else f"the transition {wanted.id}"
