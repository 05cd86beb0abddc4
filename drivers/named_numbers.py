"""Numbers with names that come in parts: an arm and its fingers may each publish their own joint states. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from drivers.messages import stamp_of
from drivers.robot_file import RobotFile
from drivers.sound import SENTENCE, excerpt
from drivers.stamps import AHEAD, SYSTEM, Clocks, StampMonitor
from drivers.sync import Stream

TOLD = 3  # names of a part at most
MOST = 500  # names on a topic; beyond, it is none of a robot's
LONGEST = 250  # characters of a name; likewise
Named = dict[str, float]


class NamedNumbers:
    """Messages on one `topic`, merged by name; as old as the oldest part that one of the names `wanted` is in.

    A part is a set of names that come in one message. Where `wanted` is empty, all names are.
    """

    def __init__(self, topic: str, wanted: Iterable[str], clocks: Clocks = SYSTEM, ahead: float = AHEAD) -> None:
        self.topic, self.wanted = topic, tuple(dict.fromkeys(wanted))
        self.values: Named = {}
        self.malformed = ""  # what was wrong with the last message; "": nothing was
        self._clocks, self._ahead = clocks, ahead
        self._parts: dict[frozenset[str], StampMonitor] = {}
        self._part_of: dict[str, frozenset[str]] = {}  # the part in which a name came last

    def take(self, message: Any) -> bool:
        """A sensor_msgs/JointState; whether it was kept."""
        names = [str(name) for name in message.name]
        part = frozenset(names)
        self.malformed = malformed(message)
        if self.malformed:
            return False
        if len(self.values.keys() | part) > MOST:
            self.malformed = f"it brings more than {MOST} names"
            return False
        if not names:
            return False
        monitor = self._parts.setdefault(part, StampMonitor(self._clocks, self._ahead))
        if monitor.admit(stamp_of(message.header)) == "refused":
            if len(self._parts) > MOST:
                self._forget_empty_parts()
            return False
        for name, position in zip(names, message.position, strict=True):
            self.values[name], self._part_of[name] = float(position), part
        self._forget_empty_parts()
        return True

    def forget(self, until: float) -> None:
        """All that came is of another time, and so is what is stamped up to `until` [s]."""
        for monitor in self._parts.values():
            monitor.forget(until)

    @property
    def missing(self) -> list[str]:
        """Those of the names wanted that never came."""
        return [name for name in self.wanted if name not in self.values]

    def stamp(self, names: Iterable[str] = ()) -> float:
        """That of the oldest part with one of `names`, or of those wanted [s]; -inf where there is none."""
        return min((self._monitor(name).newest for name in self._of(names)), default=-math.inf)

    def arrived(self, names: Iterable[str] = ()) -> float:
        """When the part that came longest ago did, by the steady clock [s]; -inf where there is none."""
        return min((self._monitor(name).arrived for name in self._of(names)), default=-math.inf)

    def gap(self, names: Iterable[str] = ()) -> float:
        """What usually passes between two messages of the part of `names` that comes most seldom [s]."""
        return max((self._monitor(name).gap for name in self._of(names)), default=math.inf)

    def usual(self, names: Iterable[str] = ()) -> float:
        """The same, that one pause does not change."""
        return max((self._monitor(name).usual for name in self._of(names)), default=0.0)

    def wrong(self, limit: float, latency: float = 0.0) -> str:
        """Which part is older than `limit` [s], by stamp or arrival, or of the future, in words; "": none is."""
        parts = {part: None for name in self.wanted or self.values if (part := self._part_of.get(name))}
        for part in sorted(parts, key=lambda part: self._parts[part].newest):
            if wrong := self._parts[part].wrong(limit, None, latency):
                return f"{self._called(part)} {wrong}" + (f"; {self.malformed}" if self.malformed else "")
        if not self.values:
            refused = next((m.refused for m in self._parts.values() if m.refused), "")
            return f"{self.topic} has said nothing yet" + (f": {why}" if (why := self.malformed or refused) else "")
        return ""

    def feed(self, stream: Stream[Named], message: Any) -> None:
        """Take a message, and add to `stream` what is known of all names where that is newer than its last."""
        kept = self.take(message)
        if not self.wanted and kept:
            stream.add(stamp_of(message.header), dict(self.values))
        elif self.missing:
            has = f"; it has {excerpt(', '.join(self.values), SENTENCE)}" if self.values else ""
            stream.refuse(f"{self.topic} lacks {', '.join(self.missing)}{has}")
        elif kept and self.stamp() - stream.latency != stream.newest:
            stream.add(self.stamp(), dict(self.values))
        elif not kept and (why := self.malformed or self._refused()):
            stream.refuse(why)

    def _forget_empty_parts(self) -> None:
        """Those whose names all come in other parts by now."""
        if len(self._parts) > len(self.values):
            used = set(self._part_of.values())
            self._parts = {part: monitor for part, monitor in self._parts.items() if part in used}

    def _refused(self) -> str:
        return next((monitor.refused for monitor in self._parts.values() if monitor.refused), "")

    def _of(self, names: Iterable[str]) -> Iterable[str]:
        return [name for name in (names or self.wanted or self.values) if name in self.values]

    def _monitor(self, name: str) -> StampMonitor:
        return self._parts[self._part_of[name]]

    def _called(self, part: frozenset[str]) -> str:
        """The topic; with the names that only this part brings, where there are others."""
        here = [name for name in self.wanted or self.values if self._part_of.get(name) == part]
        if len(here) == len(self.wanted or self.values):
            return self.topic
        more = f" and {len(here) - TOLD} more" if len(here) > TOLD else ""
        return f"{self.topic}: {excerpt(', '.join(here[:TOLD]), SENTENCE)}{more}"


def malformed(message: Any) -> str:
    """Why a sensor_msgs/JointState does not say one number for each of its names; "": it does."""
    names, positions = message.name, message.position
    if not len(set(names)) == len(names) == len(positions):
        twice = ", some of them twice," if len(set(names)) < len(names) else ""
        return f"a message has {len(names)} names{twice} and {len(positions)} positions"
    longest = max(map(len, names), default=0)
    return f"a message brings a name of {longest} characters" if longest > LONGEST else ""


def names_of(robot: RobotFile, source: str) -> tuple[str, ...]:
    """What the policies' state wants of a source of named numbers."""
    return tuple(name for group in robot.state if group.source == source for name in group.names or group.channels)
