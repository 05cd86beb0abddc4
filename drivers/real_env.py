"""A robot as an `Env`: readings of one moment in, targets out, at a fixed rate. Pure: it runs under a fake clock too.

A step sends the target of its action, waits for the next tick, and observes (observer.py). The target is counted from
where the arm is measured when it is sent, as robosuite counts its deltas. What a person does goes the same way and
marks the step. What was really asked of the arm, after the gate, is the step's action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from drivers.actions import action_of, target_of
from drivers.gate import Gate, Ruling
from drivers.observer import Clock, Named, Observer, Ticker, oldest
from drivers.robot_file import RobotFile
from drivers.sync import Stream, arm_at
from drivers.teleop import DeviceLost, Human, nobody
from robot_rl import control
from robot_rl.depth import visible
from robot_rl.types import ArmState, Obs, RobotRLError, Step, Target


class Arm(Protocol):
    """An arm, or the node beside its controller. Nothing here blocks."""

    readings: Stream[ArmState]

    @property
    def stopped(self) -> str:
        """Why it obeys nobody; "": it obeys."""

    @property
    def commanded_opening(self) -> float | None:
        """What its fingers were told last, 0 closed to 1 open; None: nothing yet."""

    def command(self, target: Target) -> None:
        """Go there within a period."""

    def hold(self) -> None:
        """Stay; and obey nobody until the next episode is prepared."""

    def stop(self, reason: str) -> None:
        """The same for a fault: nobody may prepare another one before a person has reset the arm."""


class RealEnv:
    """Implements `Env`; see the module's docstring.

    `prepare(seed)` brings scene and arm to a start: it resets a simulated world; on a robot it homes the arm and waits
    for the operator. `judge()` says whether the task is solved. `human(executed)` is asked once a step and gives an
    action (A,) in [-1, 1] while a person has the controls, else None; where the device is gone, the episode is over.
    `source` is whose word the gate takes. A person sees the cameras `shown`, those of observations where not given.
    `on_plan(stamp, path, value)` shows a plan: where the tool would go (h, 3) [m], and a critic's word of it.
    """

    def __init__(
        self,
        robot: RobotFile,
        arm: Arm,
        clock: Clock,
        *,
        prepare: Callable[[int | None], None],
        judge: Callable[[], bool],
        human: Human = nobody,
        source: str = "policy",
        sensors: Mapping[str, Stream[Named]] | None = None,
        cameras: Mapping[str, Stream[np.ndarray]] | None = None,
        shown: Mapping[str, Stream[np.ndarray]] | None = None,
        on_plan: Callable[[float, np.ndarray, Callable[[], float]], object] = lambda *_: None,
    ) -> None:
        self.spec, self.robot = robot.spec(), robot
        self._arm, self._clock = arm, clock
        self._prepare, self._judge, self._human, self.source = prepare, judge, human, source
        self._observer = Observer(robot, arm.readings, sensors, cameras)
        self._shown = self._observer.cameras if shown is None else shown
        self._on_plan = on_plan
        self._ticker = Ticker(clock, 1.0 / robot.rate)
        self.gate = self._new_gate(None)  # of this episode
        self._found = np.float32(0.0)  # how the fingers were found, as a channel of actions
        self._interrupted = ""
        self.aborted = ""  # why the last episode could not go on; "": it could
        self.ticks, self.late = 0, 0

    def reset(self, seed: int | None = None) -> Obs:
        """Prepare, and see where the arm is; raises where a stream stays silent or the arm may not begin there."""
        self._arm.hold()
        self._prepare(seed)
        try:
            return self._begin()
        except RobotRLError:
            self._arm.hold()
            raise

    def _begin(self) -> Obs:
        self._clock_stepped()
        self._observer.await_readings(self._clock)
        start = self.robot.gripper.start
        self.gate = self._new_gate(float(start == "open") if start else self._arm.commanded_opening)
        self.gate.arm(self._arm.readings.last, self.source, self._clock.steady())
        self._ticker.begin()
        self._steps, self.aborted = 0, ""
        self._last = self._observer.observe()
        self.executed = action_of(self.gate.setpoint, self._arm.readings.last, self.spec.action)
        self._found = self.executed[-1]
        return self._last

    def step(self, action: np.ndarray) -> Step:
        """Ask for `action` (A,) in [-1, 1], or for what the person wants, for one period.

        An episode that ends by a fault, and anything that is raised, stops the arm for good: a person has to reset it.
        """
        try:
            return self._step(action)
        except RobotRLError as error:
            self._arm.stop(str(error))
            raise

    def _step(self, action: np.ndarray) -> Step:
        wanted = self._wanted()
        asked = control.checked(action if wanted is None else wanted, len(self.spec.action))
        executed = self._pass(self._still() if self.aborted else asked)
        self._steps += 1
        solved = not self.aborted and self._judge()
        over = solved or bool(self.aborted) or self._steps >= self.spec.max_steps
        if over:
            self._leave()  # who learns between episodes says nothing for long
        return Step(self._last, executed, float(solved), solved, over and not solved, wanted is not None, float(solved))

    def stay(self) -> Obs:
        """Hold the arm for one period, which counts as no step; what is seen then. Faults end it as they end a step."""
        try:
            self._pass(self._still())
        except RobotRLError as error:
            self._arm.stop(str(error))
            raise
        if self.aborted:
            self._leave()
        return self._last

    def end(self) -> None:
        """End the episode between two steps: the arm is held and obeys nobody until the next one is prepared."""
        self._arm.hold()

    @property
    def age(self) -> float:
        """How old an observation of now is [s]."""
        return self._observer.age(self._clock.now())

    @property
    def lagging(self) -> str:
        """Which stream is too old to act on, so that the arm holds, in words; "": none is."""
        return self._observer.silent(self._clock.now(), oldest(self.robot))

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """The newest picture (see `CameraSpec`) of every camera that a person sees."""
        return {name: stream.last for name, stream in self._shown.items() if len(stream)}

    def planned(self, stamp: float, actions: np.ndarray, value: Callable[[], float]) -> None:
        """Show the chunk `actions` (h, A) that was planned at an observation of `stamp` [s]; from any thread."""
        here, path = arm_at(self._arm.readings, stamp), []
        for action in actions:
            target = target_of(action, here, self.spec.action, stamp, self.source)
            here = replace(here, position=target.position, turn=target.turn)
            path.append(target.position)
        self._on_plan(stamp, np.stack(path), value)

    def interrupt(self, reason: str) -> None:
        """End the episode at its next step, from another thread; "" forgets it."""
        self._interrupted = reason

    def render(self) -> np.ndarray:
        """The newest picture of the first camera."""
        if not self._observer.cameras:
            raise RobotRLError("this robot has no camera to look through")
        return visible(next(iter(self._observer.cameras.values())).last)

    def fail(self, reason: str) -> None:
        """Whoever plays cannot go on: where the arm is in its hands it is stopped for good."""
        self._arm.stop(reason)

    def close(self) -> None:
        """Hold the arm."""
        self._arm.hold()

    def _leave(self) -> None:
        """Hold the arm; where a fault ended the episode, and not somebody's word, until a person has reset it."""
        if self.aborted and self.aborted != self._interrupted:
            self._arm.stop(self.aborted)
        else:
            self._arm.hold()

    def _new_gate(self, opening: float | None) -> Gate:
        return Gate(self.robot.limits, self.robot.arm_limits, 1.0 / self.robot.rate, opening=opening)

    def _wanted(self) -> np.ndarray | None:
        """What the person wants; where the device is gone, the episode is over."""
        try:
            return self._human(self.executed)
        except DeviceLost as error:
            self.aborted = str(error)
            return None

    def _still(self) -> np.ndarray:
        return control.hold(self.spec.action, self.executed)

    def _pass(self, action: np.ndarray) -> np.ndarray:
        """A period in which `action` is asked for, to what is seen after it; what was really asked of the arm."""
        if stepped := self._clock_stepped():
            self.aborted = self.aborted or stepped  # there is no reading to begin from
        else:
            self.executed = self._command(action)
        self._ticker.wait()
        self.ticks, self.late = self._ticker.ticks, self._ticker.late
        if not self.aborted:
            self.aborted = self._interrupted or self._wrong()
        if not self.aborted:
            try:
                self._last = self._observer.observe()
            except RobotRLError as error:  # no number, another size: over is this episode, not whoever plays
                self.aborted = str(error)
        return self.executed

    def _command(self, action: np.ndarray) -> np.ndarray:
        """Send the action's target through the gate; what was asked of the arm, as an action."""
        here, now = self._arm.readings.last, self._clock.now()
        target = target_of(action, here, self.spec.action, self._last["stamp/state"].item(), self.source)
        if self.gate.opening is None and np.float32(action[-1]) == self._found:
            target = replace(target, gripper=None)  # nobody asked anything of the fingers, nor does this
        ruling = self.gate.check(target, here, now, self._clock.steady())
        if ruling.sent is not None:
            self._arm.command(ruling.sent)
        if ruling.verdict == "stopped":
            self.aborted = f"the gate stopped: {ruling.reason}"
        return action if ruling.verdict == "sent" else self._as_action(ruling, here)

    def _as_action(self, ruling: Ruling, here: ArmState) -> np.ndarray:
        sent = self.gate.setpoint if ruling.sent is None else ruling.sent
        executed = action_of(sent, here, self.spec.action)
        if sent.gripper is None:
            executed[-1] = self._found
        return executed

    def _clock_stepped(self) -> str:
        """Whether the stamps' clock stepped, in words; then what was read before is forgotten."""
        if not (step := self._clock.stepped()):
            return ""
        self._observer.forget()
        for stream in self._shown.values():
            stream.clear()
        return f"the clock stepped by {step:+.2f} s"

    def _wrong(self) -> str:
        """Why the episode cannot go on."""
        if stepped := self._clock_stepped():
            return stepped
        if self._arm.stopped:
            return f"the arm stopped: {self._arm.stopped}"
        return self._observer.silent(self._clock.now())
