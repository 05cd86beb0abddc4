"""The services of the arm's node: who may command the arm, who lets go of it, who stops it, and a person's reset.

`<source>/arm` lets a source command and answers with the number of its lease, `<source>/release` lets go. `homing/arm`
takes the arm home while its owner publishes that number on `homing/heartbeat` (std_msgs/UInt64), at 10 Hz or faster.
`stop`, `<source>/fault` (std_msgs/String, of the holder) and every fault that is found stop the arm for good: nobody
may arm it until a person calls `reset`, which no program does. authority.py decides.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from drivers.authority import HOMING
from drivers.servo import Servo
from drivers.sound import excerpt
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.node import Node

HINT = f"publish this number on {HOMING}/heartbeat (std_msgs/UInt64) at 10 Hz or faster: the arm moves only meanwhile"
LONGEST = 300  # characters of a fault
CALLED = "somebody called stop"
LOOKED = 0.5  # nobody has looked at the arm sooner after a stop that somebody called [s]


class Commanded(Protocol):
    """The arm's node, as its services need it."""

    servo: Servo

    def unready(self) -> str:
        """Why nobody could command this arm as things are; "": somebody could."""

    def arm(self, source: str) -> None:
        """Give `source` a lease; raises where it may not have one."""

    def tell_changes(self) -> None:
        """A status at once, where the holder or the reason changed."""


class ArmServices:
    """Offers them on `node`."""

    def __init__(self, node: Node, arm: Commanded) -> None:
        from std_msgs.msg import String, UInt64
        from std_srvs.srv import Trigger

        self._log, self._arm = node.get_logger(), arm
        self._called = -math.inf  # when a person called `stop` last, by the steady clock [s]
        # rclpy serves what came together in the order in which it was made: a reset goes first, so that no stop which
        # came while the node was held up is undone by it.
        node.create_service(Trigger, "reset", self._reset)
        node.create_service(Trigger, "stop", self._stop)
        for holder in (*arm.servo.sources, HOMING):
            node.create_service(Trigger, f"{holder}/arm", partial(self._give, holder))
            node.create_service(Trigger, f"{holder}/release", partial(self._release, holder))
        for source in arm.servo.sources:
            node.create_subscription(String, f"{source}/fault", partial(self._take_fault, source), 1)
        node.create_subscription(UInt64, f"{HOMING}/heartbeat", self._beat, 1)

    def _give(self, source: str, _request: Any, response: Any) -> Any:
        try:
            self._arm.arm(source)
            hint = f"; {HINT}" if source == HOMING else ""
            response.success, response.message = True, f"{self._arm.servo.leases}{hint}"
        except RobotRLError as error:
            response.success, response.message = False, str(error)
        self._log.info(f"{source}/arm: {response.message}")
        self._arm.tell_changes()
        return response

    def _release(self, source: str, _request: Any, response: Any) -> Any:
        if self._arm.servo.release(source):
            self._log.info(self._arm.servo.authority.reason)
        return self._answered(response)

    def _stop(self, _request: Any, response: Any) -> Any:
        self._called = time.monotonic()
        self._arm.servo.stop(CALLED)
        self._arm.servo.authority.add(CALLED)
        return self._answered(response)

    def _answered(self, response: Any) -> Any:
        authority = self._arm.servo.authority
        response.success, response.message = True, authority.reason or f"'{authority.holder}' commands it"
        self._arm.tell_changes()
        return response

    def _reset(self, _request: Any, response: Any) -> Any:
        """A person's word that the arm may be armed again. It moves nothing and gives nobody a lease."""
        servo, authority = self._arm.servo, self._arm.servo.authority
        was = authority.reason
        if not authority.latched:
            response.success, response.message = True, f"nothing to reset: {was or f'{authority.holder} commands it'}"
            return response
        wrong = self._arm.unready() if servo.gate.rests else "it does not rest yet, so wait a moment"
        if (ago := time.monotonic() - self._called) < LOOKED:
            wrong = f"{CALLED} only {ago:.2f} s ago: look once more, and reset it then"
        if wrong:
            response.success, response.message = False, f"the arm stays stopped ({was}): {wrong}"
            self._log.warning(f"reset refused: {wrong}")
            return response
        authority.reset()
        self._log.warning(f"a person reset the arm, which was stopped: {was}")
        response.success, response.message = True, f"the arm may be armed again; it was stopped: {was}"
        self._arm.tell_changes()
        return response

    def _take_fault(self, source: str, message: Any) -> None:
        """What went wrong at the holder's; of others it is no business of this arm."""
        authority = self._arm.servo.authority
        if source == authority.holder and authority.held:
            self._arm.servo.stop(f"'{source}' stopped it: {excerpt(message.data, LONGEST)}")
            self._arm.tell_changes()

    def _beat(self, message: Any) -> None:
        self._arm.servo.beat(message.data, time.monotonic())
