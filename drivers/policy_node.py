"""The lifecycle node that plays a policy on a robot; `robot-rl deploy` gives it the policy, so no torch is needed here.

configure loads and warms up, activate plays episodes, deactivate ends the running one and gives the arm back to its
node, which holds it; then the publishers are silent. cleanup forgets all. shutdown, and an error in any transition, do
both: whatever the transition, the arm is given back before anything else, and nothing is commanded after it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from drivers.assisted import Corrector
from drivers.lifecycle_requests import refuse_illegal
from drivers.node_process import end_ros, make_node, spin, start_ros
from drivers.real_env import RealEnv
from drivers.robot_file import RobotFile
from drivers.ros_arguments import told_in_a_line
from drivers.ros_robot import RosRobot, spin_in_thread
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from rclpy.node import Node

Play = Callable[[RealEnv, Callable[[], bool]], None]  # plays episodes until the second says so
MakeCorrector = Callable[[], Corrector | None]
NAME = "policy_node"


class PolicyRunner:
    """What the lifecycle's transitions do. `load()` gives what plays; it may take long. `aside` may take over."""

    def __init__(self, robot: RobotFile, load: Callable[[], Play], aside: Corrector | None = None) -> None:
        self._robot, self._load, self._aside = robot, load, aside
        self._thread: Thread | None = None
        self._io: Node | None = None
        self._end_spinning: Callable[[], None] | None = None
        self._end = Event()
        self.asked: Callable[[], bool] = lambda: False  # to end, by a signal: no transition is waited for then
        self.error = ""  # why playing ended by itself
        self.finished = False  # playing ended by itself

    def configure(self) -> None:
        """Load, and open the streams on a node of their own: transitions must not keep readings waiting."""
        self._play = self._load()
        try:
            self._io = make_node(f"{NAME}_io")
            self._end_spinning = spin_in_thread(self._io)
            watched = self._aside is not None
            self.env = RosRobot(self._io, self._robot, ended=self._ended, watched=watched).env(self._aside)
        except BaseException:  # else it would go on listening, beside the one that the next `configure` makes
            self.cleanup()
            raise

    def activate(self) -> None:
        """Play, in a thread."""
        self._end.clear()
        self.env.interrupt("")
        self.error, self.finished = "", False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Give the arm back at once, however long the policy still thinks; then wait for the end of the episode."""
        self._end.set()
        self.env.interrupt("the policy was deactivated")
        self.env.end()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.env.close()

    def cleanup(self) -> None:
        """Close the streams, as far as there are some."""
        io, self._io = self._io, None
        end_spinning, self._end_spinning = self._end_spinning, None
        try:
            if end_spinning is not None:
                end_spinning()
        finally:
            if io is not None:
                io.destroy_node()

    def close(self) -> None:
        """Whatever state it is in, leave the arm to its node; playing is over."""
        if self._thread is not None:
            self.deactivate()
        self.cleanup()

    def finalize(self) -> None:
        """The lifecycle is over, and with it the process."""
        self.close()
        self.finished = True

    def _ended(self) -> bool:
        return self._end.is_set() or self.asked()

    def _run(self) -> None:
        try:
            self._play(self.env, self._ended)
        except RobotRLError as error:
            if not self._ended():  # else it was not waited for any longer
                self.error = str(error)
                self.env.fail(self.error)
        except Exception as error:  # else the process would end as if all had been well
            self.error = f"playing failed: {error!r}"
            self.env.fail(self.error)
            raise
        finally:
            self.env.close()
            self.finished = not self._ended()


def build(runner: PolicyRunner) -> LifecycleNode:
    """The lifecycle node around `runner`."""
    from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

    class PolicyNode(LifecycleNode):
        """See the module's docstring."""

        def on_configure(self, _state: Any) -> TransitionCallbackReturn:
            return self._try(runner.configure)

        def on_activate(self, _state: Any) -> TransitionCallbackReturn:
            return self._try(runner.activate)

        def on_deactivate(self, _state: Any) -> TransitionCallbackReturn:
            return self._try(runner.deactivate)

        def on_cleanup(self, _state: Any) -> TransitionCallbackReturn:
            return self._try(runner.cleanup)

        def on_shutdown(self, _state: Any) -> TransitionCallbackReturn:
            return self._try(runner.finalize)

        def on_error(self, _state: Any) -> TransitionCallbackReturn:
            return self._try(runner.close)

        def _try(self, transition: Callable[[], None]) -> TransitionCallbackReturn:
            try:
                transition()
            except RobotRLError as error:
                runner.error = str(error)
                self.get_logger().error(str(error))
                return TransitionCallbackReturn.FAILURE
            except Exception as error:  # rclpy would tell it to nobody; `on_error` comes next, and gives the arm back
                runner.error = f"{transition.__name__} failed: {error!r}"
                self.get_logger().error(runner.error)
                return TransitionCallbackReturn.ERROR
            return TransitionCallbackReturn.SUCCESS

    node = PolicyNode(NAME)
    refuse_illegal(node)
    return node


def run(robot: RobotFile, load: Callable[[], Play], autostart: bool, aside: MakeCorrector = lambda: None) -> str:
    """Spin the node until it is asked to end or has played; returns why it ended early, or ""."""
    asked = start_ros()
    runner = PolicyRunner(robot, load, aside())
    runner.asked = asked
    with told_in_a_line():
        node = build(runner)

    def ended() -> bool:
        over = asked() or runner.finished or (autostart and bool(runner.error))
        if over:
            runner.close()
        return over

    try:
        if autostart:
            node.trigger_configure()
        if autostart and not runner.error and not asked():
            node.trigger_activate()
        spin(node, ended)
    except BaseException:  # whatever ends the process, the arm is given back before
        try:
            runner.close()
        finally:
            end_ros(node)
        raise
    return runner.error
