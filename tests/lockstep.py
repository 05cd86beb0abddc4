"""A robot under a fake clock: an arm that follows its setpoints, moved only while somebody sleeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drivers.clocks import STEP, StepWatch
from drivers.gate import Gate, GateLimits
from drivers.real_env import RealEnv
from drivers.robot_file import ControllerFile, GripperFile, RobotFile, SensorFile, StateGroup
from drivers.servo import Servo
from drivers.sync import Stream
from robot_rl.geometry import unit_quat
from robot_rl.types import ArmState

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
MIDDLE = np.array([0.5, 0.0, 0.3])
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
ROBOT = RobotFile(
    world="bench",
    arm="Panda",
    joints=JOINTS,
    base_frame="base",
    gripper=GripperFile("finger", 0.0, 0.04),
    controller=ControllerFile("cartesian_impedance", "target_pose"),
    limits=GateLimits((0.3, -0.3, 0.1), (0.7, 0.3, 0.6), near=0.05, near_turn=0.2),
    state=(
        StateGroup("position", ("x", "y", "z"), "m", (-2.0,) * 3, (2.0,) * 3),
        StateGroup("rot6d", tuple(f"r{i}" for i in range(6))),
        StateGroup("joints", tuple(f"q{i}" for i in range(7))),
        StateGroup("tracker", ("cube",), "m", (-2.0,), (2.0,), ("cube_x",)),
    ),
    move=0.02,
    turn=0.1,
    max_steps=50,
    home=(*MIDDLE, *DOWN),
    sensors={"tracker": SensorFile("objects")},
)
FOLLOWS = 0.3  # share of the way to its setpoint that the arm makes in a servo period


class Bench:
    """Implements `Clock` and `Arm`, with the servo beside the arm, as the arm node has it."""

    def __init__(self, robot: RobotFile = ROBOT) -> None:
        self.robot, self.time, self.source = robot, 100.0, "policy"
        self.shift = 0.0  # of the stamps' clock against the steady one [s]
        self.period = 1.0 / robot.servo_rate
        self.position, self.turn, self.opening, self.wrench = MIDDLE.copy(), DOWN.copy(), 1.0, np.zeros(6)
        self.readings: Stream[ArmState] = Stream("arm", 400, robot.arm_latency, self)
        self.tracker: Stream[dict[str, float]] = Stream("tracker", 400, 0.0, self)
        self.silent: set[str] = set()  # streams that say nothing
        self.beats = True  # the heart of homing's owner
        gate = Gate(robot.limits, robot.arm_limits, self.period)
        self.servo = Servo(gate, 1.0 / robot.rate, ("teleop", "policy"), np.array(robot.home))
        self.rulings = []
        self.watch, self.beside = StepWatch(STEP), StepWatch(STEP)
        self.measure()

    @property
    def stopped(self) -> str:
        return self.servo.gate.stopped

    @property
    def commanded_opening(self) -> float | None:
        return self.servo.gate.opening

    def now(self) -> float:
        return self.time + self.shift

    def steady(self) -> float:
        return self.time

    def stepped(self) -> float:
        return self.watch.look(self.now(), self.steady())

    def sleep_until(self, moment: float) -> None:
        while self.time < moment - 1e-9:
            if step := self.beside.look(self.now(), self.steady()):  # as the arm node does
                self.servo.stop(f"the clock stepped by {step:+.2f} s")
                self.readings.clear()
                self.measure()
            if self.beats:
                self.servo.beat(self.servo.leases, self.time)
            ruling = self.servo.tick(self.state(), self.now(), self.steady())
            if ruling is not None and ruling.sent is not None:
                self.rulings.append(ruling)
                self.position = self.position + FOLLOWS * (ruling.sent.position - self.position)
                self.turn = unit_quat(self.turn + FOLLOWS * (ruling.sent.turn - self.turn))
                if ruling.sent.gripper is not None:
                    self.opening = ruling.sent.gripper
            self.time += self.period
            self.measure()

    def state(self) -> ArmState:
        return self.readings.last if len(self.readings) else self.latest

    def measure(self) -> None:
        if "arm" not in self.silent:
            state = ArmState(self.now(), self.position, self.turn, np.zeros(7) + self.time, self.opening, self.wrench)
            self.readings.add(self.now(), state)
            self.latest = state
        if "tracker" not in self.silent:
            self.tracker.add(self.now(), {"cube_x": 0.001 * self.time})

    def command(self, target) -> None:
        self.servo.offer(target, self.now(), self.time)

    def hold(self) -> None:
        self.servo.release(self.source)

    def stop(self, reason) -> None:
        self.servo.stop(reason)

    def reset(self) -> None:
        """As the person."""
        self.servo.gate.reset()

    def prepare(self, seed: int | None) -> None:
        self.sleep_until(self.time + 1.0)
        self.servo.arm(self.source, self.state(), self.now(), self.steady())

    def env(self, **more) -> RealEnv:
        more = {"prepare": self.prepare, "judge": lambda: False, "sensors": {"tracker": self.tracker}, **more}
        return RealEnv(self.robot, self, self, **more)


def with_limits(**changes) -> RobotFile:
    return replace(ROBOT, limits=replace(ROBOT.limits, **changes))
