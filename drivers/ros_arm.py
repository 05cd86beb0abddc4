"""The arm's node as the `Arm` of one source: commands while the lease holds, the way home, and waiting for a person.

Nothing here calls the arm's `reset`: that is a person's (reset_arm.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.arm_listener import ArmListener
from drivers.authority import HOMING, REMEDY
from drivers.messages import DIGITS, numbers_msg, path_msg, pose_msg, status_of, status_wrong
from drivers.own_leases import Debt, OwnLeases
from drivers.robot_file import RobotFile
from drivers.sound import SENTENCE, excerpt
from robot_rl.types import RobotRLError, Target

if TYPE_CHECKING:
    from rclpy.node import Node

LATELY = 0.3  # within so long a status of the arm's node is news [s]
ANSWER = 5.0  # time that a service has [s]
START = 20.0  # of the other nodes
WORD = 2.0  # of these it is said after so long that they are waited for [s]
WAY_HOME = 60.0
SILENT = 1.0  # so long without a status, and the arm's node is gone [s]
BEAT = 0.02  # between heartbeats on the way home [s]; five are missed before the arm brakes
LOOK = 0.01  # [s]


class ArmStoppedError(RobotRLError):
    """The arm is stopped for good: a person has to reset it."""


class RosArm:
    """Implements `Arm`: publishes to the arm node as `source`, and reads the robot's own topics.

    When `ended()`, nothing more is waited for, and nothing more is commanded.
    """

    def __init__(
        self, node: Node, robot: RobotFile, listener: ArmListener, source: str, ended: Callable[[], bool]
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseArray, PoseStamped
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String, UInt64
        from std_srvs.srv import Trigger

        self._node, self._frame, self.listener, self._source = node, robot.base_frame, listener, source
        self.readings, self._ended = listener.readings, ended
        self._stopped, self.status = "its node says nothing", dict[str, str]()
        self._status_at, self._started = -np.inf, ""  # when by the steady clock; and the node's own first lease
        self._lease, self._homing = "", ""  # that are ours; "": none is
        self._letting_go = Lock()  # from the thread that plays, or from a transition's
        self._leases = OwnLeases(LATELY)
        self._asked: Any = None  # what `arm` of a source will answer; None: nobody was asked
        self._newest = ""  # of our leases, or the one that a person's reset found
        self._dismissed = ""  # somebody else let go of it for us
        self._beaten = -np.inf
        self._pose = node.create_publisher(PoseStamped, f"{source}/target_pose", 1)
        self._gripper = node.create_publisher(JointState, f"{source}/target_gripper", 1)
        self._plan = node.create_publisher(PoseArray, f"{source}/plan", 1)
        self._value = node.create_publisher(JointState, f"{source}/value", 1)
        self._fault = node.create_publisher(String, f"{source}/fault", 1)
        self._heart = node.create_publisher(UInt64, f"{HOMING}/heartbeat", 1)
        names = [f"{holder}/{what}" for holder in (source, HOMING) for what in ("arm", "release")]
        self._services = {name: node.create_client(Trigger, name) for name in names}
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 1)

    @property
    def stopped(self) -> str:
        """See `Arm`; its node tells ten times a second."""
        silent = time.monotonic() - self._status_at
        return self._stopped or (f"its node is silent for {silent:.1f} s" if silent > SILENT else "")

    @property
    def latched(self) -> str:
        """Why only a person may have it armed again, as its node said last; "": programs may."""
        return self._stopped if self.status.get("needs reset") == "True" else ""

    @property
    def commanded_opening(self) -> float | None:
        """See `Arm`; as its node told."""
        told = self.status.get("opening", "")
        return float(told) if told else None

    def command(self, target: Target) -> None:
        """Send it; the gripper first, so that both are there when the pose is. Not where the lease may be over.

        Who has heard nothing of late was the one that hung: somebody else may have been armed meanwhile.
        """
        if self._stopped or self._ended() or not self._is_ours(self._lease):
            return
        if target.gripper is not None:
            self._gripper.publish(numbers_msg(target.stamp, ["gripper"], np.array([target.gripper])))
        self._pose.publish(pose_msg(target.stamp, self._frame, target.position, target.turn))

    def show_plan(self, stamp: float, path: np.ndarray, value: Callable[[], float]) -> None:
        """Publish where the tool would go (h, 3) and what a critic expects, to whoever watches; nobody acts on it."""
        if self._plan.get_subscription_count():
            self._plan.publish(path_msg(stamp, self._frame, path))
        if self._value.get_subscription_count() and np.isfinite(number := value()):
            self._value.publish(numbers_msg(stamp, ["value"], np.array([number])))

    def hold(self) -> None:
        """Give the arm back to its node, which holds it; not where somebody else commands it by now.

        What was asked for is given back too, whether its answer or a status of it has come or not.
        """
        for holder, lease in self._let_go():
            self._leases.owe(Debt(holder, int(lease)))
        self._settle()
        end = time.monotonic() + LATELY
        while (asked := self._asked) is not None and not asked.done() and time.monotonic() < end:
            time.sleep(LOOK)  # the process may end after this, and the arm would stay armed

    def stop(self, reason: str) -> None:
        """Have the arm stopped for good, where it is ours. Should the word be lost, our silence stops it as well."""
        for holder, lease in self._let_go():
            if holder == self._source:
                self._leases.owe(Debt(holder, int(lease), reason or "for no reason that was given"))
        self._settle()

    def take(self) -> None:
        """Take command of the arm; whoever takes it later ends that."""
        self._newest = self._lease = self._ask_for(self._source)
        self._homing = ""

    def go_home(self) -> None:
        """Take the arm home; it moves only while this waits for it. Raises where it does not come home."""
        self._newest = self._homing = self._ask_for(HOMING)
        self.await_status(lambda: self.status["at home"] == "True", WAY_HOME, "come home")

    def await_permission(self, waits: bool) -> None:
        """Return when a program may arm it. Where only a person may change that, wait for one, or raise.

        Nothing moves meanwhile, and nobody has a lease.
        """
        self._await(lambda: True, START, "see the arm", latched_too=True)
        if not self.latched:
            self._require_not_dismissed()
            return
        words = f"the arm is stopped: {self.latched}; {REMEDY} ({self._node.resolve_service_name('reset')})"
        if not waits:
            raise ArmStoppedError(words)
        print(f"{words}. Waiting for that; nothing moves.", flush=True)
        try:
            self._await(lambda: not self.latched, np.inf, "be reset", latched_too=True)
        except KeyboardInterrupt:
            print("ended while it waited for a person", flush=True)
            raise SystemExit(0) from None
        self._dismissed, self._newest = "", self.status["lease"]  # that person knows who held it
        print("the arm was reset; going on", flush=True)

    def await_status(self, wanted: Callable[[], bool], patience: float, what: str) -> None:
        """Wait until a status that came after this call is as wanted; raises after `patience` [s], or when it ended.

        Raises `ArmStoppedError` where the arm is stopped for good meanwhile.
        """
        self._await(wanted, patience, what)

    def _await(self, wanted: Callable[[], bool], patience: float, what: str, latched_too: bool = False) -> None:
        begin = time.monotonic()
        told = patience < START
        while True:
            if self._ended():
                raise RobotRLError(f"the arm's node was not waited for any longer, to {what}")
            if self._status_at > begin:
                self._require_ours(latched_too)
                if wanted():
                    return
            if time.monotonic() > begin + patience:
                raise RobotRLError(f"the arm's node did not {what} within {patience:.0f} s: {self._why_not()}")
            if not told and time.monotonic() > begin + WORD:
                told = True
                self._node.get_logger().warning(f"waiting for the arm's node to {what}: {self._why_not()}")
            self._beat()
            time.sleep(LOOK)

    def _why_not(self) -> str:
        if self._status_at == -np.inf:
            topic = self._node.resolve_topic_name("arm_status")
            return f"nothing came on {topic} yet; `python -m drivers.arm_node` is to run, with this ROS_DOMAIN_ID"
        why = self.stopped or f"'{self.status['holder']}' commands it"
        return f"{why}; {self.listener.problem}".strip("; ")

    def _require_ours(self, latched_too: bool) -> None:
        """Raise where what its node says now leaves nothing to wait for."""
        self._require_the_same_node()
        if self.latched and not latched_too:
            raise ArmStoppedError(f"the arm is stopped: {self.latched}; {REMEDY}")
        homing = self._homing
        if homing and int(self.status["lease"]) > int(homing):  # a lower one is of a status from before
            raise RobotRLError(f"somebody else took command of the arm: '{self.status['holder']}'")

    def _require_not_dismissed(self) -> None:
        """Raise, once, where somebody else took the arm from us, or let go of it for us: going on is not up to us."""
        dismissed, newest = self._dismissed, self._newest
        self._dismissed, self._newest = "", self.status["lease"]
        if newest and int(self.status["lease"]) > int(newest):  # lasting, where we hung while they held it
            dismissed = f"somebody else took command of it: '{self.status['holder']}'"
        if dismissed:
            raise RobotRLError(f"{dismissed}; start this again where the arm may move")

    def _require_the_same_node(self) -> None:
        """Raise, once, where the arm's node was started anew: it does not know why the arm was stopped."""
        before, self._started = self._started, self.status.get("started", "")
        if before not in ("", self._started):
            self._newest = ""
            raise RobotRLError("the arm's node was started anew meanwhile; start this anew too where the arm may move")

    def _ask_for(self, holder: str) -> str:
        """Have the arm's node give `holder` a lease, and wait for its number; raises with its words where it refuses.

        Where that is not waited for any longer, the lease is given back as soon as its answer comes.
        """

        def asked(future: Any) -> None:
            self._asked = future

        self._asked = None
        try:
            lease = self._lease_in(call(self._services[f"{holder}/arm"], self._beat, asked))
        except BaseException:
            if (future := self._asked) is not None:
                future.add_done_callback(partial(self._answered_late, holder))
            raise
        self._asked = None
        return lease

    def _lease_in(self, answer: Any) -> str:
        lease: str = answer.message.partition(";")[0]
        if not lease.isdecimal() or len(lease) > DIGITS:
            raise RobotRLError(f"the arm's node gives a lease without a number: {excerpt(answer.message)!r}")
        self._leases.hear(int(lease), True, time.monotonic())
        return lease

    def _answered_late(self, holder: str, future: Any) -> None:
        self._asked = None
        if future.cancelled() or future.exception() is not None or not future.result().success:
            return
        try:
            self._newest = self._lease_in(future.result())
        except RobotRLError:  # whoever waited was told
            return
        self._leases.owe(Debt(holder, int(self._newest)))
        self._settle()

    def _settle(self) -> None:
        """Give back, or have stopped, what is due."""
        from std_msgs.msg import String
        from std_srvs.srv import Trigger

        for debt in self._leases.due(time.monotonic()):
            release = self._services[f"{debt.holder}/release"]
            if debt.fault:
                self._fault.publish(String(data=debt.fault))
            elif release.service_is_ready():
                release.call_async(Trigger.Request())
            else:
                self._leases.owe(debt)  # until the next status

    def _beat(self) -> None:
        """The heartbeat of homing, from whoever waits for it: a thread of its own would outlive a hang."""
        from std_msgs.msg import UInt64

        homing = self._homing  # another thread may let go of it meanwhile
        if homing and not self._ended() and time.monotonic() >= self._beaten + BEAT:
            self._beaten = time.monotonic()
            self._heart.publish(UInt64(data=int(homing)))

    def _let_go(self) -> list[tuple[str, str]]:
        """Forget our leases; by whom each was held."""
        with self._letting_go:
            ours = [(self._source, self._lease), (HOMING, self._homing)]
            self._lease, self._homing = "", ""
        return [(holder, lease) for holder, lease in ours if lease]

    def _is_ours(self, lease: str) -> bool:
        """Whether the node has said of late that `lease` is the newest."""
        return bool(lease) and lease == self.status["lease"] and time.monotonic() - self._status_at < LATELY

    def _take_status(self, message: Any) -> None:
        status, stopped = status_of(message)
        if wrong := status_wrong(status):
            self._stopped = f"its node says what nobody can read: {wrong}"
            return
        if self.status and status.get("started") != self.status.get("started"):
            self._leases.forget()
        ours = self._lease
        if ours and ours == status["lease"] and stopped and status.get("needs reset") == "False":
            self._dismissed = f"somebody else let go of the arm: {stopped}"
        if not stopped and ours not in ("", status["lease"]):
            stopped = f"somebody else took command of it: '{status['holder']}'"
            if int(status["lease"]) < int(ours):
                stopped = "its node has not told of our lease yet"
        self._stopped, self.status, self._status_at = stopped, status, time.monotonic()
        self._leases.hear(int(status["lease"]), not message.message, self._status_at)
        self._settle()


def call(
    client: Any,
    between: Callable[[], object] = lambda: None,
    asked: Callable[[Any], object] = lambda _: None,
    **fields: Any,
) -> Any:
    """Call a service from a thread that does not spin; raises where it is silent or says no.

    `between()` is called again and again while it waits; `asked` is given the future of the answer.
    """
    if not client.wait_for_service(ANSWER):
        raise RobotRLError(f"nobody offers the service {client.service_name}: is its node running, in this namespace?")
    future = client.call_async(client.srv_type.Request(**fields))
    asked(future)
    end = time.monotonic() + ANSWER
    while not future.done():
        if time.monotonic() > end:
            raise RobotRLError(f"the service {client.service_name} did not answer within {ANSWER:.0f} s")
        between()
        time.sleep(0.002)
    answer = future.result()
    if getattr(answer, "success", True) is not True:
        raise RobotRLError(excerpt(answer.message, SENTENCE))
    return answer
