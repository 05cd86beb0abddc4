"""Scripted people for robosuite: they demonstrate four tasks in many manners, err as people do, and mend it.

An operator sees what a policy sees, `obs["state"]`, and knows besides what every person at the table would: where on
the object to grasp, and where it belongs. A task is data (`Chore`), a demonstration is a list of legs, and a manner
drawn for each episode (`Manner`) bends every leg. An object that slips or was missed is seen to be away from the hand,
after the time that noticing takes; then the fingers open and the work begins again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot_rl.geometry import rotation_vector
from robot_rl.types import Decision, Obs, RobotRLError, Spec
from sim.chores import CHORES, CLOSE, OPEN, RETREAT, Chore, Leg, Scene, grasp_yaw, handle_of, legs_of, scene_reader
from sim.manners import Manner

FULLEST = 0.92  # the arm's actions stay below this, so that a residual has room
LOST = 0.03  # the object moved so far in the hand since the grasp: it is not held [m]
ABOVE = 0.02  # so little beside the thing, and the hand can go down [m]
GRASPED = 0.012  # so near, and the fingers can close [m]
ENOUGH = 20  # no nearer for so long: this is as far as it goes [steps]
RESTING = 4e-4  # fingers that move less in a step rest [m] or [rad]
HELD_BACK = 0.3  # a finger that moves at less than this share of its speed feels something
STUCK = {  # arms of robosuite 1.5 that cannot do it, and why
    "Sawyer": "in robosuite 1.5 its first joint does not turn: base and first link of the model hold each other"
}
WIDE = {"Jaco": 0.83}  # of slow fingers, which open and close for 2 s: so far is open enough, a joint [rad]


def operator_for(spec: Spec, skill: float = 1.0) -> Operator:
    """An operator for the world of `spec`; `skill` from 0 (clumsy, often too late) to 1 (fast and clean)."""
    if spec.world not in CHORES:
        raise RobotRLError(f"nobody can demonstrate '{spec.world}'; there are operators for: {', '.join(CHORES)}")
    if spec.arm in STUCK:
        raise RobotRLError(
            f"nobody can demonstrate with {spec.arm}: {STUCK[spec.arm]}. Take another arm, such as Panda"
        )
    if not 0.0 <= skill <= 1.0:
        raise RobotRLError(f"skill is {skill}; it goes from 0 (clumsy) to 1 (expert)")
    if [channel.name for channel in spec.action[3:6]] != ["eef_delta_rx", "eef_delta_ry", "eef_delta_rz"]:
        raise RobotRLError(
            "the operators move the hand by OSC_POSE; with another controller their actions would mean something else. "
            "Leave --controller out."
        )
    return Operator(spec, CHORES[spec.world], skill)


class Operator:
    """Demonstrates one chore; the same seed and the same observations give the same actions."""

    n_obs = 1

    def __init__(self, spec: Spec, chore: Chore, skill: float) -> None:
        self.skill = skill
        self._chore = chore
        self._scene = scene_reader(spec, chore)
        self._slow, self._wide = spec.arm in WIDE, WIDE.get(spec.arm, np.inf)
        self._scale = np.array([channel.high for channel in spec.action[:6]])  # [m], [rad] of a full action
        self.reset(0)

    def reset(self, seed: int | None = None) -> None:
        """Draw the manner of this episode."""
        self._rng = np.random.default_rng(None if seed is None else [seed, 1])
        clumsy = self._chore.strain * (1.0 - self.skill) ** 0.8  # so that 0.5 stands well between both ends
        self._manner = Manner.drawn(self._rng, clumsy)
        self._drift = self._rng.normal(0.0, self._manner.drift, 6)
        self._aim = self._manner.aim
        self._rest: float | None = None  # the height at which the thing lies, once `to_go` has seen it [m]
        self._home: float | None = None  # yaw at the start: the wrist turns about it
        self._legs: list[Leg] = []
        self._grip = np.zeros(3)  # the thing in the hand's frame when it was grasped [m]
        self._tries = self._missed = 0
        self._goes_on = False  # with what somebody else began

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """One action (1, 7) for the newest of the observations (1, S)."""
        scene = self._scene(obs["state"][-1])
        if self._home is None:
            self._home, self._fingers = scene.yaw, scene.fingers
        if self._legs:
            self._watch(scene)
        if not self._legs or self._missed > self._manner.notice:
            self._begin(scene)
        elif self._has_arrived(scene) or self._stalled > ENOUGH:
            self._next(scene)
        arm, fingers = self._arm_action(scene), self._legs[0].fingers
        if fingers == OPEN and scene.fingers.max() >= self._wide:
            fingers = 0.0  # they stay
        return Decision(np.append(arm, fingers).astype(np.float32)[None])

    def take_over(self) -> None:
        """Somebody else has moved the arm: look again, and go on from what is there at the next decision."""
        self._legs, self._tries, self._goes_on = [], 0, True
        self._aim = self._manner.aim

    def to_go(self, obs: Obs) -> float:
        """How much is left to do [m]: the hand to the thing; the thing up, across and down; the hand away from it."""
        chore, scene = self._chore, self._scene(obs["state"])
        if self._rest is None:
            self._rest, self._home, self._fingers = float(scene.thing[2]), scene.yaw, scene.fingers
        self._rest = min(self._rest, float(scene.thing[2]))  # some things fall a little first
        reach = float(np.linalg.norm(handle_of(chore, scene) - scene.hand))
        if self._is_there(scene):
            return max(RETREAT - reach, 0.0)
        climb = max(chore.lift - self._raised(scene), 0.0)
        if chore.goal is None:
            return reach + climb
        way = chore.goal(scene) - scene.thing
        across = float(np.linalg.norm(way[:2]))
        return RETREAT + reach + across + (abs(float(way[2])) if self._is_above(scene) else climb + chore.above)

    def _begin(self, scene: Scene) -> None:
        """Plan from the beginning: first time, or after a loss. The second time people aim more carefully."""
        m, again = self._manner, self._tries > 0
        self._tries += 1
        if again:
            self._aim *= 0.5
        self._error = np.append(self._rng.normal(0.0, self._aim, 3), self._rng.normal(0.0, 6 * self._aim))
        self._error[2] = 0.7 * abs(self._error[2])  # nobody aims into the table
        self._slips = self._rng.random() < m.slip
        self._yaw = self._choose_yaw(scene)
        self._legs = legs_of(self._chore, m.hover, again=again)
        if self._goes_on:
            self._goes_on = False
            self._grip = scene.turn.T @ (scene.thing - scene.hand)
            first = self._next_leg(scene)
            while self._legs[0].name != first:
                self._legs.pop(0)
        self._enter(scene)

    def _next_leg(self, scene: Scene) -> str:
        """Of what is there: the leg that a demonstration would be in."""
        chore, way = self._chore, handle_of(self._chore, scene) - scene.hand
        if self._is_there(scene):
            return "release"
        if self._in_hand(scene):
            if chore.goal is None:
                return "raise"
            if self._is_above(scene):
                return "lower"
            return "carry" if self._raised(scene) > 0.6 * chore.lift else "raise"
        if np.linalg.norm(way) < GRASPED:
            return "grasp"
        return "descend" if np.linalg.norm(way[:2]) < ABOVE and way[2] > -self._manner.hover else "approach"

    def _is_there(self, scene: Scene) -> bool:
        """Whether the thing lies where it belongs, and only the hand is still about it."""
        chore = self._chore
        if chore.goal is None:
            return False
        off = np.abs(chore.goal(scene) - scene.thing)
        return bool(off[2] < 2 * chore.exact and off[:2].max() < 2 * chore.exact + chore.spread)

    def _is_above(self, scene: Scene) -> bool:
        """Whether the thing stands over where it belongs, or lies there."""
        chore = self._chore
        if chore.goal is None:
            return False
        return float(np.linalg.norm((chore.goal(scene) - scene.thing)[:2])) < chore.exact + chore.spread

    def _in_hand(self, scene: Scene) -> bool:
        """Whether the thing hangs in the hand: at the fingers, and above where it lay."""
        near = float(np.linalg.norm(handle_of(self._chore, scene) - scene.hand)) < LOST
        return near and self._raised(scene) > 0.02

    def _raised(self, scene: Scene) -> float:
        """How far the thing is above where it lay [m]; 0 where nobody saw that."""
        return 0.0 if self._rest is None else float(scene.thing[2]) - self._rest

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
        self._age = self._rested = self._missed = self._stalled = 0
        self._least = np.inf
        self._fastest, self._felt = np.zeros(len(scene.fingers)), False
        self._anchor = scene.hand
        self._swing, self._push = np.zeros(3), np.zeros(3)
        self._wait = int(self._rng.exponential(m.pause)) if self._rng.random() < m.doubt else 0
        if self._slips and self._legs[0].toward == "goal":
            self._slips = False
            self._legs.insert(0, replace(self._legs[0], name="slip", toward="here", height=0.0, fingers=OPEN))
        way = self._target(scene)[0] - scene.hand
        if np.linalg.norm(way) > 0.08:
            self._swing = way / np.linalg.norm(way) * abs(self._rng.normal(0.0, m.overshoot))
            self._swing[2] = max(self._swing[2], 0.0)  # never faster into the table

    def _watch(self, scene: Scene) -> None:
        """Keep count of what has happened in this leg: fingers at rest, a thing lost, no more progress."""
        self._age += 1
        moved, self._fingers = scene.fingers - self._fingers, scene.fingers
        self._rested = self._rested + 1 if np.abs(moved).max() < RESTING else 0
        self._fastest = np.maximum(self._fastest, np.abs(moved))
        self._felt = self._felt or self._slow and bool((np.abs(moved) < HELD_BACK * self._fastest).any())
        slid = scene.turn.T @ (scene.thing - scene.hand) - self._grip
        self._missed = self._missed + 1 if self._legs[0].holds and np.linalg.norm(slid) > LOST else 0
        left = self._left(scene)
        self._stalled += 1
        busy = self._slow and self._legs[0].waits and not self._rested  # the fingers are not there yet
        if left < self._least - 0.002 or self._wait or busy:
            self._least, self._stalled = left, 0
        self._wait = max(self._wait - 1, 0)
        if left < self._legs[0].near * self._manner.slack + 0.01:
            self._swing = np.zeros(3)  # that was too far; back

    def _left(self, scene: Scene) -> float:
        """How far the hand still has to go [m]."""
        return float(np.linalg.norm(self._target(scene)[0] + self._swing - scene.hand))

    def _has_arrived(self, scene: Scene) -> bool:
        leg, slack = self._legs[0], self._manner.slack
        if leg.name == "slip":
            return self._age > 5
        if leg.waits:
            return (self._age > 7 and self._rested >= 2) or (self._age > ENOUGH and self._felt)
        level = float(np.linalg.norm(rotation_vector(self._target(scene)[1] @ scene.turn.T)))
        return self._left(scene) < leg.near * slack and level < leg.level * slack

    def _target(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Where this leg takes the hand: position (3,) [m] and rotation (3, 3)."""
        leg = self._legs[0]
        up = np.array([0.0, 0.0, leg.height])
        if leg.toward == "here":
            return self._anchor + up, scene.turn if leg.waits else _pointing_down(scene.yaw)
        if leg.toward == "goal" and self._chore.goal is not None:
            turn = self._carrying_turn(scene)
            held = turn @ scene.turn.T @ (scene.hand - scene.thing)
            spot = np.append(self._chore.spread * self._manner.spot, 0.0)
            return self._chore.goal(scene) + spot + up + held, turn
        turn = _pointing_down(self._yaw + self._error[3])
        across = turn[:, 0] * (self._manner.side if self._chore.beside and leg.name == "approach" else 0.0)
        return handle_of(self._chore, scene) + up + across + self._error[:3], turn

    def _carrying_turn(self, scene: Scene) -> np.ndarray:
        """The hand's rotation over the goal: as it is, or so that the thing fits."""
        if not self._chore.square:
            return _pointing_down(scene.yaw)
        yaw = float(np.arctan2(scene.thing_turn[1, 0], scene.thing_turn[0, 0]))
        quarter = np.pi / 2
        fits = [(round(yaw / quarter) + k) * quarter for k in (-2, -1, 0, 1, 2)]
        near = [f for f in fits if np.cos(f) < 0.5 and abs(f - yaw) < 3.0]  # the hand not beyond the goal, out of reach
        wound = _wrapped(scene.yaw - (self._home or 0.0))
        best = min(near, key=lambda f: abs(wound + f - yaw) + 0.3 * abs(f - yaw))
        return _about_z(best) @ scene.thing_turn.T @ scene.turn

    def _choose_yaw(self, scene: Scene) -> float:
        """One of the ways to lay the fingers about the thing, never far from where the wrist began."""
        home = self._home or 0.0
        step = self._chore.symmetry
        start = grasp_yaw(self._chore, scene)
        ways = start + step * np.arange(
            np.ceil((home - 1.75 - start) / step), np.floor((home + 1.75 - start) / step) + 1
        )
        tips = 0.05 * np.stack([np.cos(ways), np.sin(ways)], -1)  # (n, 2) from the middle to an open finger
        gap = (scene.other - scene.thing)[:2]
        blocked = np.minimum(np.linalg.norm(tips - gap, axis=-1), np.linalg.norm(tips + gap, axis=-1)) < 0.045
        ways = ways[np.argsort(np.abs(ways - home) + 3.0 * blocked)]
        return float(ways[min(self._manner.turned, max(int((~blocked).sum()), 1) - 1)])

    def _arm_action(self, scene: Scene) -> np.ndarray:
        """(6,) toward the leg's target in this person's manner, with tremor and drift."""
        m = self._manner
        target, turn = self._target(scene)
        left = target + self._swing - scene.hand
        if np.abs(left).max() < 0.04:  # near, the arm's springs are weak: push until it moves
            self._push = np.clip(self._push + 0.15 * left, -0.04, 0.04)
        way = self._shaped(left, scene) + self._push
        if self._wait:
            way, turn = np.zeros(3), scene.turn
        action = np.concatenate([way, rotation_vector(turn @ scene.turn.T)]) * m.gain / self._scale
        action[:3] *= min(1.0, m.pace / max(float(np.abs(action[:3]).max()), 1e-9))
        action[3:] *= min(1.0, 0.6 * m.pace / max(float(np.abs(action[3:]).max()), 1e-9))
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


def _pointing_down(yaw: float) -> np.ndarray:
    """The hand's rotation (3, 3): z down, the fingers' line along `yaw`."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[-s, c, 0.0], [c, s, 0.0], [0.0, 0.0, -1.0]])


def _wrapped(angle: float) -> float:
    """`angle` [rad] brought into [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
