"""A person beside an `Env`: what the hand on the device means there, and a simulated world in real time to use it in.

`RealEnv` asks a person by itself; `Assisted` does the same for a world without ROS. Either way what the person does
goes in instead of the agent's action, what was executed comes out, and `Step.intervened` says whose it was, exactly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from drivers.gate import GateLimits
from drivers.observer import Clock, Ticker
from drivers.teleop import HAND, Device, DeviceLost, Human, Screen, Status, action_of_hand, hint_of, nobody
from robot_rl import control
from robot_rl.types import Env, Obs, RobotRLError, Spec, Step

RECENT, TOLERATED = 20, 4  # ticks, and late ones among them


class Interrupted(Protocol):
    """What a person is beside: `RealEnv` or `Assisted`."""

    late: int

    @property
    def age(self) -> float:
        """Of an observation of now [s]."""

    @property
    def lagging(self) -> str:
        """Which stream is late, in words."""

    @property
    def pictures(self) -> Mapping[str, np.ndarray]:
        """The newest picture (see `CameraSpec`) of every camera that a person sees."""

    def interrupt(self, reason: str) -> None:
        """End the episode at its next step; "" forgets it."""


class SteadyClock:
    """Implements `Clock` by this computer's."""

    def now(self) -> float:
        """[s]"""
        return time.monotonic()

    def steady(self) -> float:
        """The same [s]."""
        return time.monotonic()

    def stepped(self) -> float:
        """Never [s]."""
        return 0.0

    def sleep_until(self, moment: float) -> None:
        """See `Clock`."""
        time.sleep(max(moment - time.monotonic(), 0.0))


class Person:
    """Implements `Human` by a device, for the actions of `spec`; raises where a hand has no meaning there.

    With the `limits` of a gate a hand asks for no more speed than they allow, in the direction that it has: the gate
    would reject twice as much, and stop the arm of a person who only pushed the stick to its end.
    """

    def __init__(self, device: Device, spec: Spec, limits: GateLimits | None = None) -> None:
        self.device, self.held = device, False
        self._channels = spec.action
        self._fingers = [i for i, c in enumerate(spec.action) if c.name.endswith("gripper")]
        action_of_hand(np.zeros(HAND), spec.action)
        self._paces: list[tuple[list[int], float]] = []  # channels, and how far they go together in a step [m] or [rad]
        if limits is not None:
            for unit, speed in (("m", limits.speed), ("rad", limits.turn_speed)):
                moving = [i for i, channel in enumerate(spec.action) if channel.unit == unit]
                self._paces.append((moving, speed / spec.rate))

    def __call__(self, executed: np.ndarray) -> np.ndarray | None:
        """What is wanted now (A,), None where the dead-man is up; asked once a step. Raises `DeviceLost`."""
        hand = self.device.hand()
        self.held = hand is not None
        if hand is not None:
            return self._paced(action_of_hand(hand, self._channels))
        for i in self._fingers:
            self.device.fingers(float(executed[i]))
        return None

    def _paced(self, action: np.ndarray) -> np.ndarray:
        way = control.to_physical(action, self._channels)
        for moving, longest in self._paces:
            length = float(np.linalg.norm(way[moving]))
            way[moving] *= longest / max(length, longest)
        return control.to_unit(way, self._channels).astype(np.float32)


class Corrector:
    """Implements `Human` beside a policy that plays: shows how it goes, and hears what the person says of the episode.

    Set `env` to what it is used in. "success" ends the running episode as solved, "failure", "discard" and "quit" end
    it as aborted; after "quit", or when the device is lost, no other begins.
    """

    def __init__(self, person: Person, screen: Screen) -> None:
        self.env: Interrupted | None = None
        self._person, self._screen = person, screen
        self._solved, self._over, self._steps, self._taken = False, "", 0, 0
        self._beats: deque[float] = deque()

    def __call__(self, executed: np.ndarray) -> np.ndarray | None:
        """See `Human`."""
        wanted = self._person(executed)
        self._steps, self._taken = self._steps + 1, self._taken + (wanted is not None)
        for event in self._person.device.events():
            if event == "success":
                self._solved = True
            elif event in ("failure", "discard", "quit") and self.env is not None:
                self._over = "the person quit" if event == "quit" else ""
                self.env.interrupt(f"the person said {event}")
        self._show()
        return wanted

    def begin(self) -> None:
        """Before an episode; raises where none shall begin any more."""
        if self._over:
            raise RobotRLError(self._over)
        self._person.device.events()  # of before
        self._person.device.hand()
        self._solved, self._steps, self._taken = False, 0, 0
        if self.env is not None:
            self.env.interrupt("")

    def solved(self) -> bool:
        """Whether the person said so."""
        return self._solved

    def _show(self) -> None:
        env, now = self.env, time.monotonic()
        self._beats.append(now)
        while self._beats[0] <= now - 1.0:
            self._beats.popleft()
        share = hint_of(self._person.device) or f"taken over in {self._taken} of {self._steps} steps"
        status = Status("correcting", 0, 0, self._steps, self._person.held, len(self._beats), message=share)
        if env is not None:
            status = replace(status, age=env.age, drops=env.late, lagging=env.lagging, images=env.pictures)
        self._screen.show(status)


class Assisted:
    """Implements `Env`: the simulated world `env` in real time, with a person beside it. See `RealEnv`, its like."""

    def __init__(self, env: Env, clock: Clock, human: Human = nobody, aside: Corrector | None = None) -> None:
        self._env, self._clock, self._human, self.spec = env, clock, aside or human, env.spec
        self._aside = aside
        self._ticker = Ticker(clock, 1.0 / env.spec.rate)
        self.aborted, self.age, self.lagging = "", 0.0, ""
        self.ticks, self.late = 0, 0
        self._interrupted, self._recent = "", deque[bool](maxlen=RECENT)  # which ticks were late
        self._last: Obs = {}

    def reset(self, seed: int | None = None) -> Obs:
        """A new episode: nothing moves, and the fingers are open."""
        if self._aside is not None:
            self._aside.begin()
        self._last, self.aborted = self._env.reset(seed), ""
        rest = np.full(len(self.spec.action), -1.0, np.float32)
        self.executed = control.hold(self.spec.action, rest)
        self._ticker.begin()
        return self._last

    def step(self, action: np.ndarray) -> Step:
        """Execute `action`, or what the person wants, and wait until its period is over."""
        wanted = None
        try:
            wanted = self._human(self.executed)
        except DeviceLost as error:
            self.aborted = str(error)
        still = control.hold(self.spec.action, self.executed)
        step = self._env.step(still if self.aborted else action if wanted is None else wanted)
        self._last, self.executed = step.obs, step.action
        self._wait()
        self.aborted = self.aborted or self._interrupted
        step = replace(step, intervened=wanted is not None)
        if self._aside is not None and self._aside.solved():
            return replace(step, reward=1.0, score=1.0, terminated=True, truncated=False)
        return replace(step, truncated=not step.terminated) if self.aborted else step

    def stay(self) -> Obs:
        """The world stands still for a period."""
        self._wait()
        return self._last

    def end(self) -> None:
        """Nothing moves between steps in any case."""

    def interrupt(self, reason: str) -> None:
        """See `RealEnv`."""
        self._interrupted = reason

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """Of the last observation, see `RealEnv`."""
        return {k.removeprefix("image/"): v for k, v in self._last.items() if k.startswith("image/")}

    def render(self) -> np.ndarray:
        """The world's picture."""
        return self._env.render()

    def close(self) -> None:
        """Release the world."""
        self._env.close()

    def _wait(self) -> None:
        late = self._ticker.late
        self._ticker.wait()
        self.ticks, self.late = self._ticker.ticks, self._ticker.late
        self._recent.append(self.late > late)
        self.lagging = "the simulation is slower than real time" if sum(self._recent) > TOLERATED else ""
