"""Who is on a topic, and what that means: which topic was meant where one is missing, and who may be a controller.

Pure: of what ROS's graph says; `subscriptions.py` asks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches

NAMED = 6  # topics at most, where one is missing
UNKNOWN = "_UNKNOWN_"  # in rmw's name of a node whose own has not come yet
OURS = ("recorder", "view", "check", "practice", "policy_node", "policy_node_io", "teleop_device", "arm_node")
# Parts of the names of nodes that record or show; and whole words of such names, which might be a part of others.
LOOKERS = ("rosbag", "recorder", "mcap", "foxglove", "rqt", "rviz", "ros2cli", "rerun", "plotjuggler", "rosbridge")
LOOKER_WORDS = {"bag", "record", "rosapi", "view", "viewer", "logger", "monitor", "echo", "collect"}


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscriber: the node's name with its namespace, and the type of the messages."""

    node: str
    kind: str


Endpoints = Mapping[str, list[Endpoint]]  # by topic


def absent(topic: str, kind: str, there: Endpoints, does: str, remedy: str) -> str:
    """Why nobody `does` `topic`, and what is there instead: the same type, or a name like it; then the `remedy`."""
    if others := there.get(topic):
        kinds = sorted({e.kind for e in others} - {kind})
        nodes = ", ".join(e.node for e in others)
        if kinds:
            return f"{topic} is {', '.join(kinds)} by {nodes}, and must be {kind}"
        return f"{nodes} {does} {topic}, and nothing comes: is the hardware on and active? Is a firewall between?"
    found = _meant(topic, kind, there)
    problem = f"nobody {does} {topic} ({kind})"
    if not found:
        return f"{problem}, nor anything like it: is the robot's driver running, with this ROS_DOMAIN_ID?"
    listed = ", ".join(f"{t} ({there[t][0].kind} by {there[t][0].node})" for t in found[:NAMED])
    spaces = [t.removesuffix(topic) for t in found if t.endswith(topic)]
    if spaces:
        remedy = f"for that namespace say `--ros-args -r __ns:={spaces[0]}`, and to ros2 launch namespace:={spaces[0]}"
    return f"{problem}; there is {listed}; {remedy}"


def _meant(topic: str, kind: str, there: Endpoints) -> list[str]:
    """Topics that may be meant: in another namespace, then those of a name like it, then the others of its type."""
    close = set(get_close_matches(topic, there, NAMED))
    found = [t for t, ends in there.items() if t in close or any(e.kind == kind for e in ends)]
    return sorted(found, key=lambda t: (not t.endswith(topic), -SequenceMatcher(None, topic, t).ratio(), t))


@dataclass(frozen=True)
class Listeners:
    """Who listens on a controller's topic."""

    controllers: tuple[str, ...]
    """may move the arm"""
    lookers: tuple[str, ...]
    """only record or show"""
    nameless: int = 0
    """whose name has not come yet"""
    others: tuple[str, ...] = ()
    """that take another type, "NODE (TYPE)" """

    def wrong(self, topic: str, kind: str, node: str = "") -> str:
        """Why there is no controller to command, in words; "": there is one. `node` is the one that it has to be."""
        if self.controllers:
            return ""
        who = f"the node '{node}' does not listen" if node else "nobody listens"
        there = [f"{', '.join(self.lookers)} only records or shows it"] if self.lookers and not node else []
        there += [f"there is {', '.join(self.lookers)}"] if self.lookers and node else []
        there += [f"{', '.join(self.others)} wants another type than {kind}"] if self.others else []
        there += [f"{self.nameless} whose name is not known yet"] if self.nameless else []
        remedy = " (a controller with such a name is told by `controller.node` of the robot's file)"
        said = f"; {'; '.join(there)}{remedy if self.lookers and not node else ''}" if there else ""
        return f"{who} on {topic}: is the controller active?{said}"


def listeners(found: Iterable[Endpoint], kind: str, node: str = "") -> Listeners:
    """Of those `found` on a controller's topic, who may be one: they take `kind`, and are no recorder or viewer.

    `node` is what the controller's node has to be called, with its namespace or without; "": anything else.
    """
    controllers, lookers, others, nameless = [], [], [], 0
    for end in found:
        if UNKNOWN in end.node:
            nameless += 1
        elif end.kind != kind:
            others.append(f"{end.node} ({end.kind})")
        elif is_named(end.node, node) if node else not only_looks(end.node):
            controllers.append(end.node)
        else:
            lookers.append(end.node)
    return Listeners(tuple(sorted(controllers)), tuple(sorted(lookers)), nameless, tuple(sorted(others)))


def is_named(full: str, name: str) -> bool:
    """Whether the node `full`, with its namespace, is called `name`, which may leave the namespace out."""
    return full.strip("/") == name.strip("/") or ("/" not in name.strip("/") and full.rsplit("/", 1)[-1] == name)


def only_looks(node: str) -> bool:
    """Whether a node's name says that it records or shows, and moves nothing."""
    name = node.rsplit("/", 1)[-1].lower()
    words = set(re.split(r"[^a-z]+", name))
    return name in OURS or any(part in name for part in LOOKERS) or bool(words & LOOKER_WORDS)
