"""The arm's real node without ROS: its topics, services and clocks are plain calls, and time is what one says it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch


class Times:
    """The steady clock, and the stamps' one, which is `shift` [s] off it."""

    def __init__(self) -> None:
        self.steady, self.shift = 1000.0, 1.7e9

    @property
    def now(self) -> float:
        """By the stamps [s]."""
        return self.steady + self.shift


@contextmanager
def frozen(times: Times) -> Iterator[None]:
    """`time.monotonic` is the fake steady clock."""
    with patch.object(time, "monotonic", lambda: times.steady):
        yield


class FakePublisher:
    """Keeps what was published since it was looked at."""

    def __init__(self, topic: str, kind: Any = None) -> None:
        self.topic_name, self.msg_type, self.sent = topic, kind, list[Any]()

    def publish(self, message: Any) -> None:  # noqa: D102
        self.sent.append(message)

    def get_subscription_count(self) -> int:  # noqa: D102
        return 1

    def take(self) -> Any:
        """The last message since the last call; None: there is none."""
        last = self.sent[-1] if self.sent else None
        self.sent.clear()
        return last


class FakeNode:
    """What the arm's node and its parts ask of a node."""

    def __init__(self, times: Times) -> None:
        self.times = times
        self.publishers: dict[str, FakePublisher] = {}
        self.heard: dict[str, Any] = {}  # callbacks of subscriptions, of each topic the last
        self.listens: list[tuple[str, Any, Any]] = []  # topic, kind and callback of all
        self.services: dict[str, Any] = {}
        self.set_parameters: Any = None
        silent = {name: lambda *_, **__: None for name in ("debug", "info", "warning", "error")}
        self._logger = SimpleNamespace(is_enabled_for=lambda _: False, **silent)

    def create_publisher(self, kind: Any, topic: str, _qos: Any) -> FakePublisher:  # noqa: D102
        return self.publishers.setdefault(topic, FakePublisher(topic, kind))

    def create_subscription(self, kind: Any, topic: str, take: Any, _qos: Any, **_: Any) -> None:
        """As rclpy does it, `take` is given what the middleware says of a message where it has room for that."""
        informed = len(signature(take).parameters) > 1

        def hear(message: Any, info: dict[str, Any] = {"publication_sequence_number": None}) -> None:  # noqa: B006
            take(message, info) if informed else take(message)

        self.heard[topic] = hear
        self.listens.append((topic, kind, hear))

    def create_service(self, kind: Any, name: str, answer: Any) -> None:  # noqa: D102
        self.services[name] = lambda: answer(kind.Request(), kind.Response())

    def create_client(self, kind: Any, name: str) -> Any:
        """Nobody offers it."""
        return SimpleNamespace(service_name=name, srv_type=kind, service_is_ready=lambda: False)

    def create_timer(self, *_: Any, **__: Any) -> None:  # noqa: D102
        pass

    def get_logger(self) -> Any:  # noqa: D102
        return self._logger

    def get_clock(self) -> Any:
        """One that goes on, for who keeps it."""
        return SimpleNamespace(now=self._now)

    def _now(self) -> Any:
        from builtin_interfaces.msg import Time

        nanoseconds = round(self.times.now * 1e9)
        sec, nanosec = divmod(nanoseconds, 10**9)
        return SimpleNamespace(nanoseconds=nanoseconds, to_msg=lambda: Time(sec=sec, nanosec=nanosec))

    def get_parameter(self, _name: str) -> Any:  # noqa: D102
        return SimpleNamespace(value=False)

    def declare_parameter(self, _name: str, value: Any, *_: Any) -> Any:  # noqa: D102
        return SimpleNamespace(value=value)

    def add_on_set_parameters_callback(self, take: Any) -> None:  # noqa: D102
        self.set_parameters = take

    def get_subscriptions_info_by_topic(self, topic: str) -> list[Any]:
        """A controller listens to whatever is published."""
        from rclpy.qos import QoSProfile

        kind = self.publishers[topic].msg_type
        named = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        return [SimpleNamespace(node_namespace="/", node_name="rig", topic_type=named, qos_profile=QoSProfile(depth=1))]

    def resolve_topic_name(self, name: str) -> str:  # noqa: D102
        return name

    def get_publishers_info_by_topic(self, _topic: str) -> list[Any]:  # noqa: D102
        return []
