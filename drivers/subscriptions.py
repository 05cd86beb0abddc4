"""Subscriptions that tell why they hear nothing: another quality of service, another type, a name nearly right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from drivers.graph import Endpoint, Listeners, absent, listeners

if TYPE_CHECKING:
    from rclpy.node import Node

LOOK = 1.0  # between looks at the graph while something is not heard [s]
PATIENCE = 5.0  # for a first message [s]; nodes that are there may take so long to find one another
DEPTH = 50  # of the queues of who judges streams: what is lost shall have been lost on the way
NEAR = 12  # topics whose publishers are asked for, where one is missing
REMEDY = "name the one that is meant in the robot's file, or remap it"
OURS = ("/rosout", "/parameter_events")  # every node's


class NodeClocks:
    """Implements `Clocks` for a node: stamps are of its clock, which may be a simulator's."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()

    def now(self) -> float:
        """The time of the stamps [s]."""
        return float(self._clock.now().nanoseconds * 1e-9)

    def steady(self) -> float:
        """This computer's [s]."""
        return time.monotonic()


def listen(
    node: Node, kind: Any, topic: str, take: Callable[..., object], qos: Any, *,
    needed: bool = True, missing: Callable[[str], object] = lambda why: None, informed: bool = False,
) -> Any:  # fmt: skip
    """Subscribe, and say in the log and to `missing` why nothing comes, within 10 s; "" once it does.

    One that is not `needed` may have no publisher: of it only a wrong type is told. `informed`: `take` is given what
    the middleware says of a message too.
    """
    entry = _Entry(node.resolve_topic_name(topic), name_of(kind), needed, missing, time.monotonic())

    def came(message: Any, info: dict[str, Any]) -> None:
        entry.came = True
        take(message, info) if informed else take(message)

    callback: Any = came  # rclpy takes either kind, and counts the arguments
    made = node.create_subscription(kind, topic, callback, qos, event_callbacks=told_of_qos(node, topic))
    if node not in _WATCHES:
        _WATCHES[node] = _Watch(node)
    _WATCHES[node].entries.append(entry)
    return made


def why_silent(node: Node, kind: Any, topic: str) -> str:
    """Why nothing comes on `topic`, and what is there instead."""
    name = node.resolve_topic_name(topic)
    return absent(name, name_of(kind), _published(node, name, name_of(kind)), "publishes", REMEDY)


def controllers_of(node: Node, publisher: Any, name: str) -> Listeners:
    """Who listens to `publisher`, as far as they can hear it; the controller's node is called `name`, "": anyhow."""
    from rclpy.qos import QoSCompatibility, qos_check_compatible

    infos = node.get_subscriptions_info_by_topic(publisher.topic_name)
    can = [i for i in infos if qos_check_compatible(quality(True), i.qos_profile)[0] != QoSCompatibility.ERROR]
    return listeners(map(endpoint, can), name_of(publisher.msg_type), name)


def quality(reliable: bool) -> Any:
    """As our nodes have it: volatile, and without a deadline."""
    from rclpy.duration import Infinite
    from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
        deadline=Infinite,
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=Infinite,
    )


def endpoint(info: Any) -> Endpoint:
    """What rclpy says of a publisher or a subscriber."""
    return Endpoint(f"{info.node_namespace.rstrip('/')}/{info.node_name}", info.topic_type)


def name_of(kind: Any) -> str:
    """Of a message's class, as ROS writes it."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def told_of_qos(node: Node, topic: str) -> Any:
    """Event callbacks that say in the log why a publisher is not heard, and what to change."""
    from rclpy.event_handler import SubscriptionEventCallbacks
    from rclpy.qos import qos_policy_name_from_kind

    def refused(event: Any) -> None:
        name, policy = node.resolve_topic_name(topic), qos_policy_name_from_kind(event.last_policy_kind)
        node.get_logger().error(
            f"a publisher of {name} is not heard: its QoS policy {policy} offers less than is asked for. "
            f"Let it publish reliable and volatile, without a deadline; `ros2 topic info -v {name}` names it."
        )

    return SubscriptionEventCallbacks(incompatible_qos=refused)


@dataclass
class _Entry:
    topic: str
    """with its namespace"""
    kind: str
    needed: bool
    missing: Callable[[str], object]
    since: float
    """by the steady clock [s]"""
    came: bool = False
    told: str = ""


class _Watch:
    """Looks at the graph for the subscriptions of one node that hear nothing."""

    def __init__(self, node: Node) -> None:
        from rclpy.clock import Clock
        from rclpy.clock_type import ClockType

        self._node, self.entries = ref(node), list[_Entry]()  # else the node would live as long as this
        node.create_timer(LOOK, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def look(self) -> None:
        """Tell what is new."""
        if (node := self._node()) is None:
            return
        for entry in self.entries:
            if entry.came and not entry.told or time.monotonic() < entry.since + PATIENCE:
                continue
            why = "" if entry.came else _why(node, entry)
            if why != entry.told:
                entry.told = why
                entry.missing(why)
                if why:
                    node.get_logger().error(f"nothing came on {entry.topic}: {why}")


_WATCHES: WeakKeyDictionary[Node, _Watch] = WeakKeyDictionary()


def _why(node: Node, entry: _Entry) -> str:
    if entry.needed:
        there = _published(node, entry.topic, entry.kind)
        return absent(entry.topic, entry.kind, there, "publishes", REMEDY)
    there = _publishers(node, [entry.topic])
    wrong = [end for end in there.get(entry.topic, []) if end.kind != entry.kind]
    return absent(entry.topic, entry.kind, {entry.topic: wrong}, "publishes", REMEDY) if wrong else ""


def _published(node: Node, topic: str, kind: str) -> dict[str, list[Endpoint]]:
    """Who publishes on `topic`; where nobody does, on those that may be meant."""
    if there := _publishers(node, [topic]):
        return there
    from difflib import SequenceMatcher

    topics = [(name, kinds) for name, kinds in node.get_topic_names_and_types() if name not in OURS]
    alike = {name: SequenceMatcher(None, topic, name).ratio() for name, _ in topics}
    topics.sort(key=lambda t: (not t[0].endswith(topic), -alike[t[0]]))
    meant = [name for name, kinds in topics if kind in kinds or alike[name] > 0.6 or name.endswith(topic)]
    return _publishers(node, meant[:NEAR])


def _publishers(node: Node, topics: Iterable[str]) -> dict[str, list[Endpoint]]:
    """By topic, without those of `node` itself."""
    own = f"{node.get_namespace().rstrip('/')}/{node.get_name()}"
    found = {
        topic: [end for info in node.get_publishers_info_by_topic(topic) if (end := endpoint(info)).node != own]
        for topic in topics
    }
    return {topic: ends for topic, ends in found.items() if ends}
