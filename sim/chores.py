"""What people know of four tasks: where to grasp the thing, where it belongs, and in which legs the hand gets there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot_rl.geometry import matrix_from_rot6d
from robot_rl.types import RobotRLError, Spec

OPEN, CLOSE = -1.0, 1.0
RETREAT = 0.10  # so far the hand moves away from what it let go [m]


@dataclass(frozen=True)
class Chore:
    """One task as a person knows it. Lengths [m], angles [rad]."""

    thing: str  # what is grasped, as the state's channels call it
    handle: tuple[float, float, float]  # where it is grasped: x, y in its own frame, z in the world's
    symmetry: float  # the grasp looks the same after so much turning
    lift: float  # how high it is raised before it is carried
    beside: bool = True  # may be approached from beside, not only from above
    goal: Callable[[Scene], np.ndarray] | None = None  # where its middle belongs, world (3,); None: up is enough
    square: bool = False  # it fits its goal only level, and turned by a multiple of 90 degrees
    above: float = 0.1  # how high over the goal it arrives
    exact: float = 0.008  # let go when so near the goal
    strain: float = 1.0  # how much a lack of skill shows; makes success at one skill alike in all tasks
    spread: float = 0.0  # anywhere within so much of the goal will do


@dataclass(frozen=True)
class Leg:
    """One part of a demonstration."""

    name: str
    toward: str  # "thing": the place to grasp; "goal": where the thing belongs; "here": where the leg began
    height: float  # the hand's (goal: the thing's) above that [m]
    near: float  # arrived when so close [m]
    fingers: float
    level: float = 0.12  # and turned so nearly right [rad]
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


def _bin(scene: Scene) -> np.ndarray:
    return np.array([0.145, 0.335, 0.87])  # in the last of the four bins, within the reach of a Panda


def _peg(scene: Scene) -> np.ndarray:
    return np.array([0.23, 0.1, 0.90])  # 5 cm down the peg: it falls the rest of the way


def _on_top(scene: Scene) -> np.ndarray:
    return scene.other + [0.0, 0.0, 0.047]  # half of both cubes, and a little to fall


CHORES = {
    "robosuite:Lift": Chore("cube", (0.0, 0.0, 0.0), np.pi / 2, lift=0.10, strain=1.15),
    "robosuite:PickPlaceCan": Chore(
        "Can", (0.0, 0.0, 0.005), np.pi / 8, lift=0.14, goal=_bin, above=0.08, exact=0.025, spread=0.025, strain=0.72
    ),
    "robosuite:NutAssemblySquare": Chore(
        "SquareNut",
        (0.062, 0.0, 0.0),
        np.pi,
        lift=0.16,
        beside=False,
        goal=_peg,
        square=True,
        above=0.10,
        exact=0.01,
        strain=1.25,
    ),
    "robosuite:Stack": Chore("cubeA", (0.0, 0.0, 0.0), np.pi / 2, lift=0.08, goal=_on_top, above=0.05, strain=1.4),
}


def legs_of(chore: Chore, hover: float, *, again: bool) -> list[Leg]:
    """The demonstration: to the thing, grasp it, raise it, and where there is a goal carry it there and let go."""
    legs = [Leg("reopen", "here", 0.03, 0.02, OPEN, waits=True)] if again else []
    legs += [
        Leg("approach", "thing", hover, 0.02, OPEN),
        Leg("descend", "thing", 0.0, 0.007, OPEN),
        Leg("grasp", "here", 0.0, 0.02, CLOSE, waits=True),
        Leg("raise", "here", chore.lift, 0.04, CLOSE, holds=True),
    ]
    if chore.goal is not None:
        legs += [
            Leg("carry", "goal", chore.above, chore.exact, CLOSE, level=0.08, holds=True),
            Leg("lower", "goal", 0.0, chore.exact, CLOSE, level=0.4, holds=True),
            Leg("release", "here", 0.0, 0.02, OPEN, waits=True),
            Leg("retreat", "here", RETREAT, 0.02, OPEN),
        ]
    return legs


def handle_of(chore: Chore, scene: Scene) -> np.ndarray:
    """Where the thing is grasped (3,), world."""
    x, y, z = chore.handle
    return scene.thing + scene.thing_turn @ [x, y, 0.0] + [0.0, 0.0, z if abs(scene.thing_turn[2, 2]) > 0.7 else 0.0]


def grasp_yaw(chore: Chore, scene: Scene) -> float:
    """The direction between the fingers that fits the thing [rad]; across it where it lies on its side."""
    upright = abs(scene.thing_turn[2, 2]) > 0.7
    axis = scene.thing_turn[:, 1] if upright else np.array([-scene.thing_turn[1, 2], scene.thing_turn[0, 2], 0.0])
    return float(np.arctan2(axis[1], axis[0]))


def scene_reader(spec: Spec, chore: Chore) -> Callable[[np.ndarray], Scene]:
    """Finds the channels by name once; reading a state is then only slicing."""
    names = [channel.name for channel in spec.state]

    def where(prefix: str) -> np.ndarray:
        return np.array([names.index(name) for name in sorted(names) if name.rpartition("_")[0] == prefix], int)

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
