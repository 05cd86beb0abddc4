"""Scripted people for robosuite: they demonstrate four tasks in many manners, err as people do, and mend it.

An operator sees what a policy sees, `obs["state"]`, and knows besides what every person at the table would: where on
the object to grasp, and where it belongs. A task is data (`Chore`), a demonstration is a list of legs, and a manner
drawn for each episode (`Manner`) bends every leg. An object that slips or was missed is seen to be away from the hand,
after the time that noticing takes; then the fingers open and the work begins again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from robot_rl.geometry import matrix_from_rot6d, rotation_vector
from robot_rl.types import Decision, Obs, RobotRLError, Spec

OPEN, CLOSE = -1.0, 1.0
FULLEST = 0.92  # the arm's actions stay below this, so that a residual has room
LOST = 0.03  # the object moved so far in the hand since the grasp: it is not held [m]
ENOUGH = 150  # no leg takes longer; begin again [steps]


@dataclass(frozen=True)
class Chore:
    """One task as a person knows it. Lengths [m], angles [rad]."""

    thing: str  # what is grasped, as the state's channels call it
    handle: tuple[float, float, float]  # where it is grasped: x, y in its own frame, z in the world's
    symmetry: float  # the grasp looks the same after so much turning
    lift: float  # how high it is raised before it is carried
    goal: Callable[[Scene], np.ndarray] | None = None  # where its middle belongs, world (3,); None: up is enough
    square: bool = False  # it fits its goal only level, and turned by a multiple of 90 degrees
    above: float = 0.1  # how high over the goal it arrives


@dataclass(frozen=True)
class Leg:
    """One part of a demonstration."""

    name: str
    toward: str  # "thing": the place to grasp; "goal": where the thing belongs; "here": where the leg began
    height: float  # the hand's (goal: the thing's) above that [m]
    near: float  # arrived when so close [m]
    fingers: float
    waits: bool = False  # until the fingers rest
    holds: bool = False  # the thing must be in the hand


@dataclass(frozen=True)
class Scene:
    """What the operator makes of one state. World frame, [m]."""

    hand: np.ndarray  # (3,)
    turn: np.ndarray  # (3, 3) hand to world; its y axis joins the fingers, its z axis points away from the arm
    fingers: np.ndarray  # (n,) joints [m] or [rad]
    thing: np.ndarray  # (3,)
    thing_turn: np.ndarray  # (3, 3)
    other: np.ndarray  # (3,) the second object, where there is one

    @property
    def yaw(self) -> float:
        """The direction of the line between the fingers, seen from above [rad]."""
        return float(np.arctan2(self.turn[1, 1], self.turn[0, 1]))


@dataclass(frozen=True)
class Manner:
    """How this person works this time. Drawn at the start of an episode."""

    pace: float  # the fastest action of the arm, in (0, 1)
    gain: float  # eagerness: the share of what remains that one action asks for
    hover: float  # above the thing before going down [m]
    side: float  # beside it, across the fingers' line, while above [m]
    turned: int  # 0: the nearest way to grasp it; 1: the next
    first: int  # 0, 1: that horizontal axis first; 2: down last; 3: straight; 4: in an arc
    bulge: float  # the arc's height, per distance to go
    tremor: float  # action noise from step to step (sd)
    drift: float  # action noise that wanders over about a second (sd)
    doubt: float  # probability of a pause before each leg
    pause: float  # mean length of one [steps]
    aim: float  # sd of the error of a first grasp [m]
    slack: float  # times looser than the task needs
    overshoot: float  # sd of going too far before coming back [m]
    notice: int  # steps until a lost thing is noticed
    slip: float  # probability that the fingers open on the way to the goal

    @classmethod
    def drawn(cls, rng: np.random.Generator, skill: float) -> Manner:
        """Everyone has a style of their own; the less skilled is slower, coarser, and errs more."""
        clumsy = 1.0 - skill
        return cls(
            pace=rng.uniform(0.62, 0.85) * (1.0 - 0.4 * clumsy),
            gain=rng.uniform(0.7, 1.0) * (1.0 - 0.2 * clumsy),
            hover=rng.uniform(0.05, 0.10) + rng.uniform(0.0, 0.04) * clumsy,
            side=float(rng.choice([-1, 0, 0, 1])) * rng.uniform(0.01, 0.035),
            turned=int(rng.random() < 0.2),
            first=int(rng.integers(5)),
            bulge=rng.uniform(0.1, 0.35),
            tremor=0.015 + 0.05 * clumsy,
            drift=0.01 + 0.07 * clumsy,
            doubt=0.04 + 0.3 * clumsy,
            pause=2.0 + 5.0 * clumsy,
            aim=0.002 + 0.020 * clumsy,
            slack=1.0 + 0.7 * clumsy,
            overshoot=0.003 + 0.025 * clumsy,
            notice=int(rng.integers(2, 5) + round(6 * clumsy)),
            slip=0.12 * clumsy,
        )


def _bin(scene: Scene) -> np.ndarray:
    return np.array([0.1975, 0.4025, 0.87])  # over the floor of the last of the four bins


def _peg(scene: Scene) -> np.ndarray:
    return np.array([0.23, 0.1, 0.84])


def _on_top(scene: Scene) -> np.ndarray:
    return scene.other + [0.0, 0.0, 0.047]  # half of both cubes, and a little to fall


CHORES = {
    "robosuite:Lift": Chore("cube", (0.0, 0.0, 0.0), np.pi / 2, lift=0.10),
    "robosuite:PickPlaceCan": Chore("Can", (0.0, 0.0, 0.02), np.pi / 8, lift=0.16, goal=_bin, above=0.10),
    "robosuite:NutAssemblySquare": Chore(
        "SquareNut", (0.054, 0.0, 0.0), np.pi, lift=0.16, goal=_peg, square=True, above=0.14
    ),
    "robosuite:Stack": Chore("cubeA", (0.0, 0.0, 0.0), np.pi / 2, lift=0.08, goal=_on_top, above=0.05),
}


def operator_for(spec: Spec, skill: float = 1.0) -> Operator:
    """An operator for the world of `spec`; `skill` from 0 (clumsy, often too late) to 1 (fast and clean)."""
    if spec.world not in CHORES:
        raise RobotRLError(f"nobody can demonstrate '{spec.world}'; there are operators for: {', '.join(CHORES)}")
    if not 0.0 <= skill <= 1.0:
        raise RobotRLError(f"skill is {skill}; it goes from 0 (clumsy) to 1 (expert)")
    return Operator(spec, CHORES[spec.world], skill)


class Operator:
    """Demonstrates one chore; the same seed and the same observations give the same actions."""

    n_obs = 1

    def __init__(self, spec: Spec, chore: Chore, skill: float) -> None:
        self.skill = skill
        self._chore = chore
        self._scene = _scene_reader(spec, chore)
        self._scale = np.array([channel.high for channel in spec.action[:6]])  # [m], [rad] of a full action
        self.reset(0)

    def reset(self, seed: int | None = None) -> None:
        """Draw the manner of this episode."""
        self._rng = np.random.default_rng(None if seed is None else [seed, 1])
        self._manner = Manner.drawn(self._rng, self.skill)
        self._drift = self._rng.normal(0.0, self._manner.drift, 6)
        self._aim = self._manner.aim
        self._home: float | None = None  # yaw at the start: the wrist turns about it
        self._legs: list[Leg] = []
        self._tries = self._wait = self._rested = self._missed = 0

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """One action (1, 7) for the newest of the observations (1, S)."""
        scene = self._scene(obs["state"][-1])
        if self._home is None:
            self._home, self._fingers = scene.yaw, scene.fingers
        if not self._legs or self._is_lost(scene):
            self._begin(scene)
        elif self._has_arrived(scene) or self._age > ENOUGH:
            self._next(scene)
        self._age += 1
        self._wait = max(self._wait - 1, 0)
        self._rested = self._rested + 1 if np.abs(scene.fingers - self._fingers).max() < 4e-4 else 0
        self._fingers = scene.fingers
        arm = self._arm_action(scene)
        return Decision(np.append(arm, self._legs[0].fingers).astype(np.float32)[None])

    def _begin(self, scene: Scene) -> None:
        """Plan from the beginning: first time, or after a loss. The second time people aim more carefully."""
        m, again = self._manner, self._tries > 0
        self._tries += 1
        if again:
            self._aim *= 0.5
        self._error = np.append(self._rng.normal(0.0, self._aim, 3), self._rng.normal(0.0, 6 * self._aim))
        self._error[2] = abs(self._error[2])  # nobody aims into the table
        self._slips = self._rng.random() < m.slip
        self._yaw = self._choose_yaw(scene)
        self._legs = _legs(self._chore, m, again=again)
        self._enter(scene)

    def _next(self, scene: Scene) -> None:
        done = self._legs.pop(0)
        if done.waits and done.fingers == CLOSE:
            self._grip = scene.turn.T @ (scene.thing - scene.hand)
        if not self._legs:
            self._begin(scene)
        else:
            self._enter(scene)

    def _enter(self, scene: Scene) -> None:
        """Start the first leg of the list: a pause perhaps, and a little too much swing."""
        m = self._manner
        self._age = self._rested = self._missed = 0
        self._anchor = scene.hand
        self._swing = np.zeros(3)
        self._wait = int(self._rng.exponential(m.pause)) if self._rng.random() < m.doubt else 0
        target, _ = self._target(scene)
        way = target - scene.hand
        if np.linalg.norm(way) > 0.08:
            self._swing = way / np.linalg.norm(way) * abs(self._rng.normal(0.0, m.overshoot))
            self._swing[2] = max(self._swing[2], 0.0)  # never faster into the table
        if self._slips and self._legs[0].toward == "goal":
            self._slips = False
            self._legs.insert(0, replace(self._legs[0], name="slip", toward="here", height=0.0, near=0.1, fingers=OPEN))

    def _has_arrived(self, scene: Scene) -> bool:
        leg = self._legs[0]
        target, turn = self._target(scene)
        left = float(np.linalg.norm(target + self._swing - scene.hand))
        near = leg.near * self._manner.slack
        if left < near + 0.01:
            self._swing = np.zeros(3)  # that was too far; back
        if leg.name == "slip":
            return self._age > 5
        if leg.waits:
            return self._age > 4 and (self._rested >= 2 or self._age > 25)
        level = float(np.linalg.norm(rotation_vector(turn @ scene.turn.T)))
        return left < near and level < 0.12 * self._manner.slack

    def _is_lost(self, scene: Scene) -> bool:
        """True once the thing has been out of the hand for as long as this person needs to notice."""
        if not self._legs[0].holds:
            return False
        slid = scene.turn.T @ (scene.thing - scene.hand) - self._grip
        self._missed = self._missed + 1 if np.linalg.norm(slid) > LOST else 0
        return self._missed > self._manner.notice

    def _target(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Where this leg takes the hand: position (3,) [m] and rotation (3, 3)."""
        leg = self._legs[0]
        up = np.array([0.0, 0.0, leg.height])
        if leg.toward == "here":
            return self._anchor + up, scene.turn if leg.waits else _pointing_down(scene.yaw)
        if leg.toward == "goal" and self._chore.goal is not None:
            turn = self._carrying_turn(scene)
            held = turn @ scene.turn.T @ (scene.hand - scene.thing)
            return self._chore.goal(scene) + up + held, turn
        turn = _pointing_down(self._yaw + self._error[3])
        across = turn[:, 0] * (self._manner.side if leg.name == "approach" else 0.0)
        return _handle(self._chore, scene) + up + across + self._error[:3], turn

    def _carrying_turn(self, scene: Scene) -> np.ndarray:
        """The hand's rotation over the goal: as it is, or so that the thing fits."""
        if not self._chore.square:
            return _pointing_down(scene.yaw)
        yaw = float(np.arctan2(scene.thing_turn[1, 0], scene.thing_turn[0, 0]))
        quarter = np.pi / 2
        fits = [round(yaw / quarter) * quarter + k * quarter for k in (-1, 0, 1)]
        home = self._home or 0.0
        best = min(fits, key=lambda f: abs(scene.yaw + f - yaw - home) + 0.3 * abs(f - yaw))
        return _about_z(best) @ scene.thing_turn.T @ scene.turn

    def _choose_yaw(self, scene: Scene) -> float:
        """One of the ways to lay the fingers about the thing, never far from where the wrist began."""
        home = self._home or 0.0
        step = self._chore.symmetry
        start = _grasp_yaw(self._chore, scene)
        ways = start + step * np.arange(
            np.ceil((home - 1.75 - start) / step), np.floor((home + 1.75 - start) / step) + 1
        )
        ways = ways[np.argsort(np.abs(ways - home))]
        return float(ways[min(self._manner.turned, len(ways) - 1)])

    def _arm_action(self, scene: Scene) -> np.ndarray:
        """(6,) toward the leg's target in this person's manner, with tremor and drift."""
        m = self._manner
        target, turn = self._target(scene)
        way = self._shaped(target + self._swing - scene.hand, scene)
        if self._wait:
            way, turn = np.zeros(3), scene.turn
        action = np.concatenate([way, rotation_vector(turn @ scene.turn.T)]) * m.gain / self._scale
        action[:3] *= min(1.0, m.pace / max(float(np.linalg.norm(action[:3])), 1e-9))
        action[3:] *= min(1.0, 0.6 * m.pace / max(float(np.linalg.norm(action[3:])), 1e-9))
        self._drift = 0.95 * self._drift + 0.31 * self._rng.normal(0.0, m.drift, 6)  # keeps its sd
        noise = self._drift + self._rng.normal(0.0, m.tremor, 6)
        noise[3:] *= 0.3  # a radian is a lot
        return np.clip(action + noise, -FULLEST, FULLEST)

    def _shaped(self, way: np.ndarray, scene: Scene) -> np.ndarray:
        """Bend the straight `way` (3,) [m] into this person's path."""
        m, leg = self._manner, self._legs[0]
        way = way.copy()
        flat = float(np.linalg.norm(way[:2]))
        if leg.name in ("approach", "carry"):
            if m.first < 2 and abs(way[m.first]) > 0.02:
                way[1 - m.first] *= 0.25
            if m.first == 4:
                way[2] += m.bulge * flat
            elif m.first == 2 and flat > 0.03 and way[2] < 0:
                way[2] *= 0.2
        if leg.name in ("descend", "lower"):  # a funnel: down only as far as the fingers stand right
            across = abs(float(way[:2] @ scene.turn[:2, 1])) if leg.name == "descend" else flat
            way[2] += 2.0 * max(across - 0.008 * m.slack, 0.0)
        return way


def _legs(chore: Chore, m: Manner, *, again: bool) -> list[Leg]:
    """The demonstration: to the thing, grasp it, raise it, and where there is a goal carry it there and let go."""
    legs = [Leg("reopen", "here", 0.03, 0.02, OPEN, waits=True)] if again else []
    legs += [
        Leg("approach", "thing", m.hover, 0.02, OPEN),
        Leg("descend", "thing", 0.0, 0.007, OPEN),
        Leg("grasp", "here", 0.0, 0.02, CLOSE, waits=True),
        Leg("raise", "here", chore.lift, 0.03, CLOSE, holds=True),
    ]
    if chore.goal is not None:
        legs += [
            Leg("carry", "goal", chore.above, 0.015, CLOSE, holds=True),
            Leg("lower", "goal", 0.0, 0.008, CLOSE, holds=True),
            Leg("release", "here", 0.0, 0.02, OPEN, waits=True),
            Leg("retreat", "here", 0.10, 0.02, OPEN),
        ]
    return legs


def _handle(chore: Chore, scene: Scene) -> np.ndarray:
    """Where the thing is grasped (3,), world."""
    x, y, z = chore.handle
    return scene.thing + scene.thing_turn @ [x, y, 0.0] + [0.0, 0.0, z if abs(scene.thing_turn[2, 2]) > 0.7 else 0.0]


def _grasp_yaw(chore: Chore, scene: Scene) -> float:
    """The direction between the fingers that fits the thing [rad]; across it where it lies on its side."""
    upright = abs(scene.thing_turn[2, 2]) > 0.7
    axis = scene.thing_turn[:, 1] if upright else np.array([-scene.thing_turn[1, 2], scene.thing_turn[0, 2], 0.0])
    return float(np.arctan2(axis[1], axis[0]))


def _pointing_down(yaw: float) -> np.ndarray:
    """The hand's rotation (3, 3): z down, the fingers' line along `yaw`."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[-s, c, 0.0], [c, s, 0.0], [0.0, 0.0, -1.0]])


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _scene_reader(spec: Spec, chore: Chore) -> Callable[[np.ndarray], Scene]:
    """Finds the channels by name once; reading a state is then only slicing."""
    names = [channel.name for channel in spec.state]

    def where(prefix: str) -> np.ndarray:
        return np.array([i for i, name in enumerate(names) if name.rpartition("_")[0] == prefix])

    hand, turn, fingers = (where(f"robot0_{part}") for part in ("eef_pos", "eef_rot6d", "gripper_qpos"))
    thing, thing_turn = where(f"{chore.thing}_pos"), where(f"{chore.thing}_rot6d")
    other = where("cubeB_pos") if chore.goal is _on_top else thing
    for what, columns, size in (("hand", hand, 3), ("hand's rotation", turn, 6), (chore.thing, thing, 3)):
        if len(columns) != size:
            raise RobotRLError(f"the state of {spec.world} does not tell where the {what} is; channels: {names}")

    def read(state: np.ndarray) -> Scene:
        state = np.asarray(state, np.float64)
        rotations = matrix_from_rot6d(state[np.stack([turn, thing_turn])])
        return Scene(state[hand], rotations[0], state[fingers], state[thing], rotations[1], state[other])

    return read
