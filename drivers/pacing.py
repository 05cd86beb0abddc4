"""Whether what is heard of an arm, and a simulator's clock, keep pace with the policy; what does not, in words. Pure.

An arm brakes where its pose, its joints or its holder are silent for `PATIENCE` periods of the policy, and stops for
good after `limits.age`. All of that is real time: also under a simulator, which may run at any pace, its arm is held by
who is there. What comes more seldom than the first makes it brake again and again, which is told; what comes more
seldom than the second can never work, and is refused.
"""

from __future__ import annotations

from drivers.arm_listener import ArmReadings
from drivers.clocks import Pace
from drivers.consistent import PATIENCE
from drivers.robot_file import RobotFile


class Pacing:
    """Of one arm's node, whose stamps' clock is a simulator's or not."""

    def __init__(self, robot: RobotFile, readings: ArmReadings, simulated: bool) -> None:
        self._robot, self._readings, self._pace = robot, readings, Pace() if simulated else None
        self._often = PATIENCE / robot.rate
        self._longest = robot.limits.age - 1.0 / robot.servo_rate  # a tick may come so much later

    def look(self, now: float, steady: float) -> None:
        """At the stamps' clock and the steady one [s]."""
        if self._pace is not None:
            self._pace.look(now, steady)

    def why_silent(self) -> str:
        """What of the simulator's clock may be why anybody is silent; "": nothing."""
        return "" if self._pace is None else self._pace.words(1.0 / self._robot.rate, self._often)

    def because(self, wrong: str) -> str:
        """`wrong`, with what of the simulator's clock may be why."""
        return f"{wrong}: {why}" if wrong and (why := self.why_silent()) else wrong

    def unfit(self) -> str:
        """Why no arm can be commanded at this pace; "": it can."""
        robot, limit = self._robot, f"limits.age is {self._robot.limits.age:g} s"
        if self._pace is not None and (why := self._pace.words(1.0 / robot.rate, self._longest)):
            gap, needed = self._pace.gap(1.0 / robot.rate), 1.0 / (robot.rate * self._longest)
            every = f"every {gap:.2f} s" if gap < 100.0 else "never"
            return (
                f"{why}: a policy of {robot.rate:g} Hz then speaks {every}, and {limit}; let the simulator run at "
                f"{needed:.2g} of real time or faster, and publish /clock at 100 Hz"
            )
        if seldom := self._readings.seldom(self._longest):
            return f"{seldom}, as {limit}: let what publishes it be faster, or raise limits.age"
        return ""

    def slow(self) -> str:
        """What makes the arm brake again and again, or is missed late; "": nothing does."""
        robot = self._robot
        if why := self.why_silent():
            return f"{why}: the arm brakes between any two words of a policy of {robot.rate:g} Hz"
        if seldom := self._readings.seldom(self._often, of_arm=True):
            return f"{seldom}: a policy rate of {robot.rate:g} Hz is too fast for that, the arm brakes again and again"
        if seldom := self._readings.seldom(self._often, of_arm=False):
            return f"{seldom} for its silence to be missed before limits.age, {robot.limits.age:g} s"
        return ""
