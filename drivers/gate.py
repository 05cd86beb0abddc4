"""The command gate: whatever is asked of an arm, what is sent is finite, in its box, and slow enough to stop there.

Every command passes it, once where it is made and again beside the controller. In this order: latched stop, lease of
one source, finite and of the right shape, quaternion, age of the observation it came from, first target near the
measured pose, workspace box and tilt cone, speed and acceleration (braking.py), joints through inverse kinematics,
gripper. The measured wrench and the age of the arm's state come before all commands.

Small excess is clipped and said; what is far out is rejected, and the arm brakes. After repeated rejects, too strong a
force or a stale arm the gate stops for good: it brakes, goes to where the arm was measured then if that can be
believed, and holds it there. Such a stop is latched (authority.py): nobody may arm it before a person has reset it. A
software stop is no safety function (ISO 13850): keep the arm's own within reach.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from drivers.authority import Authority
from drivers.braking import EXACT, Motion, Mover
from drivers.following import Following
from drivers.jerk import JerkMover
from drivers.joint_braking import JointMotion, JointMover, Kinematics
from drivers.sound import length, state_late, state_wrong, target_wrong
from robot_rl.geometry import angle_between, unit_quat
from robot_rl.robots import ArmLimits
from robot_rl.types import ArmState, RobotRLError, Target

Vector = tuple[float, float, float]
Verdict = Literal["sent", "clipped", "rejected", "stopped"]


@dataclass(frozen=True)
class GateLimits:
    """What may be asked of one arm in one place. Base frame, SI units."""

    box_low: Vector
    """corner of the box that the tool stays in [m]"""
    box_high: Vector
    """the opposite corner [m]"""
    beyond: float = 0.05
    """a target farther outside the box [m] is an error, not an overshoot: rejected, not clipped"""
    axis: Vector = (0.0, 0.0, -1.0)
    """where the tool's z axis points when it is not tilted; of length 1"""
    tilt: float = 0.5
    """largest angle of the tool's z axis from there [rad]; a target of more than twice that is rejected"""
    speed: float = 0.25
    """[m/s]; a target that would take more than twice that, from the one before or from the setpoint, is rejected"""
    turn_speed: float = 0.6
    """[rad/s]; likewise"""
    acceleration: float = 2.0
    """[m/s^2], of braking too"""
    turn_acceleration: float = 6.0
    """[rad/s^2], of braking too"""
    jerk: float = 0.0
    """[m/s^3], of braking too; 0: not limited. Not where joints are gated, see `kinematics.gated`"""
    turn_jerk: float = 0.0
    """[rad/s^3], likewise"""
    lead: float = 0.10
    """so far may a target be ahead of the setpoint [m], which may have to accelerate first; rejected beyond"""
    lead_turn: float = 0.4
    """likewise [rad]"""
    age: float = 0.2
    """oldest observation that a command may come from, and oldest state of the arm [s]"""
    ahead: float = 0.02
    """so far in the future may a stamp lie [s]: clocks differ a little"""
    near: float = 0.02
    """the first target lies so near the measured position [m]"""
    near_turn: float = 0.1
    """and so near the measured rotation [rad]"""
    joint_margin: float = 0.1
    """from the ends of each joint [rad]"""
    joint_speed: float = 0.5
    """share of the maker's joint speeds"""
    joint_acceleration: float = 10.0
    """[rad/s^2], of braking too"""
    toggle: float = 0.5
    """the gripper changes between open and closed at most once in so long [s]"""
    force: float = 40.0
    """measured on the tool [N]; beyond it the gate stops"""
    torque: float = 8.0
    """likewise [Nm]"""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = np.asarray(getattr(self, field.name), np.float64)
            vector = field.name in ("box_low", "box_high", "axis")
            least = 0 if field.name in ("jerk", "turn_jerk") else 1e-300
            if (
                value.shape != ((3,) if vector else ())
                or not np.isfinite(value).all()
                or not (vector or value >= least)
            ):
                needed = "3 finite numbers" if vector else f"a finite number {'from' if least == 0 else 'above'} 0"
                raise RobotRLError(f"the gate's {field.name} is {getattr(self, field.name)}: it must be {needed}")
        if not (np.array(self.box_low) < self.box_high).all():
            raise RobotRLError(f"the gate's box is empty: box_low {self.box_low}, box_high {self.box_high}")
        if abs(np.linalg.norm(self.axis) - 1) > 1e-6:
            raise RobotRLError(f"the gate's axis {self.axis} must have length 1")
        if self.tilt > math.pi / 2 or self.joint_speed > 1:
            raise RobotRLError(f"tilt goes up to pi / 2, joint_speed up to 1: {self.tilt}, {self.joint_speed}")


@dataclass(frozen=True)
class Ruling:
    """What became of one command."""

    raw: Target
    sent: Target | None  # None: it is not for this command that anything is sent
    verdict: Verdict
    reason: str  # "" where it was sent as it was


PAUSE = (5, 0.2)  # periods, and [s], without a call, after which the arm has come to its setpoint
BENT = 0.3  # so far may joints be from where they were sent and still be held there [rad]
EDGE = 0.005, 0.02  # so far outside the setpoint may begin at the nearest pose inside [m], [rad]
WENT = 0.01, 0.05  # farther from a setpoint at rest than it was before: it is not held there [m], [rad]
HOLDABLE = 1.5  # times the lead: a measured pose farther from the setpoint is not believed
IN_A_ROW, SHARE, WINDOW = 3, 0.2, 1.0  # rejects that stop: so many in a row, or this share of a window [s]


class Gate:
    """Of one arm, for setpoints that follow one another every `period` [s]. It begins stopped: `arm` it.

    Its durations are counted by a clock that never steps (`steady`), ages of stamps by the clock of the stamps (`now`).
    """

    def __init__(
        self, limits: GateLimits, arm: ArmLimits, period: float, kinematics: Kinematics | None = None,
        opening: float | None = None,
    ) -> None:  # fmt: skip
        """`opening` is what the fingers were told before there was this gate; None: nobody told them anything."""
        if not (math.isfinite(period) and period > 0):
            raise RobotRLError(f"the gate's period is {period} s: it must be above 0")
        self.period, self._pause = period, max(PAUSE[0] * period, PAUSE[1])
        self._arm, self._n, self._kinematics = arm, len(arm.low), kinematics
        self.limits, self._mover = limits, self._mover_for(limits)
        self.authority = Authority()  # who may command; a servo puts its own here
        self.counts: Counter[Verdict] = Counter()
        self._motion: Motion | None = None  # of the setpoint
        self._moved_at = -math.inf  # when, by the steady clock [s]
        self._least = math.inf, math.inf  # that the arm was away from it since it rests [m], [rad]
        self._abandoned = False  # the arm went away from it since: no controller holds it there
        self._gripper = opening  # kept over every stop, arming and hand-over: what is held must not be let go
        self._waits = ""  # what the setpoint waits for

    def _mover_for(self, c: GateLimits) -> Mover | JointMover:
        tool = Mover(
            (np.array(c.box_low), np.array(c.box_high)), np.array(c.axis), c.tilt, (c.speed, c.turn_speed),
            (c.acceleration, c.turn_acceleration), self.period,
        )  # fmt: skip
        jerks = c.jerk, c.turn_jerk
        if self._kinematics is None:
            return JerkMover(tool, jerks) if any(jerks) else tool
        if any(jerks):
            raise RobotRLError(
                f"jerk {c.jerk} and turn_jerk {c.turn_jerk} are not kept where joints are gated: leave them away, or "
                "set kinematics.gated to false where the controller takes poses"
            )
        ranges = np.array(self._arm.low) + c.joint_margin, np.array(self._arm.high) - c.joint_margin
        speed = np.array(self._arm.speed) * c.joint_speed
        return JointMover(tool, self._kinematics, ranges, speed, c.joint_acceleration)

    def limit(self, limits: GateLimits) -> None:
        """From now on under other limits of speed, from the same setpoint; raises where it does not rest."""
        if not self.stopped or not self.rests:
            raise RobotRLError("the limits cannot change while the arm is armed or brakes; call `stop` first")
        self.limits, self._mover = limits, self._mover_for(limits)

    @property
    def stopped(self) -> str:
        """Why it obeys nobody; "": it obeys its holder."""
        return self.authority.reason

    @property
    def holder(self) -> str:
        """The source that may command, or was the last that might; "" before there was one."""
        return self.authority.holder

    @property
    def setpoint(self) -> Target:
        """What was sent last, or the measured pose from which it was armed; raises where it never was."""
        if self._motion is None:
            raise RobotRLError("the arm was never armed: there is no setpoint")
        return Target(self._stamp, self._motion.position.copy(), self._motion.turn.copy(), self._gripper, self.holder)

    @property
    def opening(self) -> float | None:
        """What the fingers were told last, 0 closed to 1 open; None: nobody asked anything of them yet."""
        return self._gripper

    @property
    def joints(self) -> np.ndarray | None:
        """Joints (n,) [rad] of the setpoint; None: there are no kinematics, or it was never armed."""
        return self._motion.joints.copy() if isinstance(self._motion, JointMotion) else None

    @property
    def rests(self) -> bool:
        """Whether there is nothing more to send: stopped for good, and come to the place that is held."""
        if self._motion is None:
            return True
        if not self.stopped or self._held is None or not self._motion.rests:
            return False
        away, turned = length(self._held[0] - self._motion.position), angle_between(self._held[1], self._motion.turn)
        return away < 1e-6 and turned < 1e-6

    def arm(self, state: ArmState, source: str, steady: float) -> None:
        """Let `source` command from the measured pose on; raises where it may not, or where that is no place to begin.

        Where it was stopped for good, a person has to `reset` it first.
        """
        if wrong := self.authority.refuses(source):
            raise RobotRLError(wrong)
        if wrong := self.unfit(state):
            raise RobotRLError(f"the arm cannot be armed: {wrong}")
        self._motion, self._following = self._begin(state, steady), Following(self.limits.lead, self.limits.lead_turn)
        self._waits = ""  # what the setpoint waits for
        self._toggled = -math.inf  # when, by the steady clock [s]
        self._stamp = state.stamp  # of the observation that the setpoint comes from
        self._held: tuple[np.ndarray, np.ndarray] | None = None  # the pose that is held once stopped
        self._recent: deque[tuple[float, bool]] = deque()  # when, rejected
        self.lease(source, steady)

    def _begin(self, state: ArmState, steady: float) -> Motion:
        """Where the setpoint begins: where it was sent last, which its controller may still hold, for ever.

        But at the measured pose where that is so far away that no controller can be holding it there, or where the arm
        went away from it since it rests, as one does whose controller was started anew, or that is guided by hand.
        """
        last, joints = self._motion, np.array(state.joints, float)
        if last is not None and not last.rests and steady - self._moved_at < self._pause:
            raise RobotRLError("the arm cannot be armed while its setpoint still moves; it brakes, so wait a moment")
        if last is not None and self._may_hold(state):
            return last.at_rest()
        position, turn = np.array(state.position, float), unit_quat(state.turn)
        if self._kinematics is None:  # else it is where the joints are
            position, turn = self._mover.inside(position, turn)
        return self._mover.begin(position, turn, joints)

    def _may_hold(self, state: ArmState) -> bool:
        """Whether the arm may be held where the setpoint was sent last."""
        last = self._motion
        if last is None or self._abandoned:
            return False
        away, turned = length(last.position - state.position), angle_between(last.turn, unit_quat(state.turn))
        bent = np.abs(last.joints - np.asarray(state.joints)).max() if isinstance(last, JointMotion) else 0.0
        return bool(away <= self.limits.lead and turned <= self.limits.lead_turn and bent <= BENT)

    def look(self, state: ArmState, now: float) -> None:
        """At an arm whose setpoint rests, whether it may be held there still; `now` as in `check`."""
        if self._motion is None or self._abandoned:
            return
        if self._wrong_with(replace(state, wrench=np.zeros(6))) or self._late(state, now):
            self._abandoned = True  # nobody knows where it has been
            return
        away = length(state.position - self._motion.position)
        turned = angle_between(unit_quat(state.turn), self._motion.turn)
        self._least = min(self._least[0], away), min(self._least[1], turned)
        self._abandoned = away > self._least[0] + WENT[0] or turned > self._least[1] + WENT[1]

    def unfit(self, state: ArmState) -> str:
        """Why the arm, as it is measured, may not be armed; "": it may."""
        return self._wrong_with(state) or self._outside(state)

    @property
    def waits(self) -> str:
        """What the setpoint waits for, before it can go where it was asked to; "": for nothing."""
        return self._waits

    def lease(self, source: str, steady: float) -> None:
        """From now on `source` commands, and nobody else; raises where it may not."""
        self.authority.arm(source, steady)
        self.begin_anew()

    def begin_anew(self) -> None:
        """The next target is the first of its source: it must lie near the measured pose."""
        self._in_a_row = 0
        self._asked: Target | None = None  # the last target that was not rejected
        self._asked_at = -math.inf  # when, by the steady clock [s]

    def stop(self, reason: str) -> None:
        """For good: brake and hold, until a person has reset it, and it is armed anew. The first reason stays."""
        self.authority.stop(reason)

    def reset(self) -> bool:
        """A person says that it may be armed again; whether it was stopped for good. Nothing moves."""
        return self.authority.reset()

    def check(self, target: Target, state: ArmState, now: float, steady: float) -> Ruling:
        """The setpoint that is sent for `target`, one period after the last one.

        `now` is the time of the stamps, by which things are so and so old; `steady` that of a clock which never steps,
        by which durations are counted [s].
        """
        if self._motion is None:
            return self._ruled(target, None, "stopped", self.stopped)
        if wrong := self._wrong_with(state) or self._late(state, now):
            self.stop(wrong)
        if target.source != self.holder:
            return self._ruled(target, None, "rejected", f"'{self.holder}' commands the arm, not '{target.source}'")
        if not steady - self._moved_at < self._pause:  # nobody called: the arm has come to the setpoint
            self._motion = self._motion.at_rest()
        self._moved_at, self._least, self._abandoned = steady, (math.inf, math.inf), False
        if not self.stopped:
            wrong, excess = self.refuses(target, state, now) or self._fast(target, steady), ""
            if not wrong:
                wrong, excess = self._follow(target, state, steady)
            self._count(bool(wrong), steady)
            if not wrong:
                return self._ruled(target, self.setpoint, "clipped" if excess else "sent", excess)
            self._judge(wrong)
        self._give_way(state, now)
        verdict: Verdict = "stopped" if self.stopped else "rejected"
        return self._ruled(target, self.setpoint, verdict, self.stopped or wrong)

    def refuses(self, target: Target, state: ArmState, now: float) -> str:
        """Why `target` is rejected, however slowly one would go there; "": it is not. Changes nothing."""
        if wrong := target_wrong(target):
            return wrong
        c, turn, age = self.limits, unit_quat(target.turn), now - target.stamp
        if not -c.ahead <= age <= c.age:
            return f"it comes from an observation {age:.3f} s old{self._waiting}"
        away = length(target.position - state.position)
        turned = angle_between(turn, unit_quat(state.turn))
        first = self._asked is None and not self._is_setpoint(target)  # to stay is no way to go
        if first and (away > c.near or turned > c.near_turn):
            return f"the first target is {away:.3f} m and {turned:.2f} rad from the measured pose"
        inside, _ = self._mover.inside(target.position, turn)
        if (outside := float(np.abs(inside - target.position).max())) > c.beyond:
            return f"it is {outside:.3f} m outside the box"
        if (tilt := self._mover.tilt_of(turn)) > 2 * c.tilt:
            return f"it is tilted by {tilt:.2f} rad"
        away, turned = self.way_to(target)
        if away > c.lead or turned > c.lead_turn:
            return f"it is {away:.3f} m and {turned:.2f} rad ahead of the setpoint{self._waiting}"
        return ""

    @property
    def _waiting(self) -> str:
        return f"; the setpoint waits: {self._waits}" if self._waits else ""

    def _is_setpoint(self, target: Target) -> bool:
        here = self._motion
        return here is not None and bool((here.position == target.position).all() and (here.turn == target.turn).all())

    def way_to(self, target: Target) -> tuple[float, float]:
        """From the setpoint to a sound `target`, as far as it is inside [m], [rad]."""
        assert self._motion is not None
        position, turn = self._mover.inside(target.position, unit_quat(target.turn))
        return length(position - self._motion.position), angle_between(turn, self._motion.turn)

    def _ruled(self, raw: Target, sent: Target | None, verdict: Verdict, reason: str) -> Ruling:
        self.counts[verdict] += 1
        return Ruling(raw, sent, verdict, reason)

    def _count(self, rejected: bool, steady: float) -> None:
        self._in_a_row = self._in_a_row + 1 if rejected else 0
        self._recent.append((steady, rejected))
        while self._recent[0][0] < steady - WINDOW:
            self._recent.popleft()

    def _judge(self, wrong: str) -> None:
        """Stop where rejects have become many."""
        rejects = sum(rejected for _, rejected in self._recent)
        if self._in_a_row >= IN_A_ROW:
            self.stop(f"{self._in_a_row} commands in a row were rejected; {wrong}")
        elif rejects > max(SHARE * len(self._recent), IN_A_ROW):
            self.stop(f"{rejects} of {len(self._recent)} commands of the last second were rejected; {wrong}")

    def _wrong_with(self, state: ArmState) -> str:
        """What forbids any motion; "": nothing."""
        if wrong := state_wrong(state, self._n):
            return wrong
        force, torque = length(state.wrench[:3]), length(state.wrench[3:])
        if force > self.limits.force or torque > self.limits.torque:
            return f"the tool feels {force:.0f} N and {torque:.1f} Nm"
        return ""

    def _late(self, state: ArmState, now: float) -> str:
        return state_late(state, now, self.limits.age, self.limits.ahead)

    def _outside(self, state: ArmState) -> str:
        """Whether the measured pose is outside: no place to begin, and no reason to jump inside.

        But for a little, as an arm that was braked at the edge is: its setpoint begins inside.
        """
        edge = EDGE if self._kinematics is None or self._may_hold(state) else (0.0, 0.0)
        position, tilt = np.asarray(state.position), self._mover.tilt_of(unit_quat(state.turn))
        if (position < self._mover.low - edge[0]).any() or (position > self._mover.high + edge[0]).any():
            return f"the tool is at {np.round(position, 3)}, outside the box; move it inside by hand"
        tilted = tilt > self.limits.tilt + edge[1]
        return f"the tool is tilted by {tilt:.2f} rad; straighten it by hand" if tilted else ""

    def _fast(self, target: Target, steady: float) -> str:
        """Whether it is, inside, too far from the setpoint for one period, and too far from the target before too."""
        position, turn = self._mover.inside(target.position, unit_quat(target.turn))
        c, (away, turned) = self.limits, self.way_to(target)
        if self._asked is None:  # the first one: near the measured pose, which may hang below the setpoint
            return ""
        speed, turn_speed = away / self.period, turned / self.period
        elapsed = max(steady - self._asked_at, self.period)
        speed = min(speed, length(position - self._asked.position) / elapsed)
        turn_speed = min(turn_speed, angle_between(turn, unit_quat(self._asked.turn)) / elapsed)
        if speed > 2 * c.speed or turn_speed > 2 * c.turn_speed:
            return f"it would take {speed:.2f} m/s and {turn_speed:.2f} rad/s"
        return ""

    def _follow(self, target: Target, state: ArmState, steady: float) -> tuple[str, str]:
        """Move the setpoint towards `target`; else why not. And what of the target was clipped."""
        assert self._motion is not None
        turn = unit_quat(target.turn)
        inside, upright = self._mover.inside(target.position, turn)
        position, facing, beyond = self._following.within(
            inside, upright, state, self._mover.ways_to_rest(self._motion)
        )
        goal = self._mover.inside(position, facing) if beyond else (inside, upright)
        motion, late = self._mover.towards(self._motion, *goal, beyond or self._stays(target))
        lags = beyond and self._following.lags(motion.position, motion.turn, state)
        held_up = beyond and (lags or not motion.hindered)  # by the arm, not by a joint of the setpoint's own
        if wrong := self._following.fails(held_up, motion.position, motion.turn, state, steady):
            self.stop(wrong)
            return wrong, ""
        causes = [motion.hindered, "the arm lags behind it" if lags else ""]
        self._waits = " and ".join(filter(None, causes)) or ("it moves no faster" if beyond else "")
        gripper = self._fingers(target.gripper, steady)
        clipped = {
            "box": np.abs(inside - target.position).max() > EXACT,
            "tilt": angle_between(upright, turn) > 1e-6,
            "the lead": beyond,
            motion.hindered or "speed or acceleration": late,
            "gripper": target.gripper is not None and gripper != target.gripper,
        }
        excess = [name for name, is_so in clipped.items() if is_so]
        self._motion, self._gripper, self._stamp = motion, gripper, target.stamp
        self._asked = replace(target, position=target.position.copy(), turn=target.turn.copy())
        self._asked_at = steady
        return "", ", ".join(excess)

    def _fingers(self, asked: float | None, steady: float) -> float | None:
        """What the fingers are told from now on: what is `asked`, but for a change that comes too soon."""
        before = self._gripper
        if asked is None:
            return before
        opening = min(max(float(asked), 0.0), 1.0)
        if before is None or (opening > 0.5) == (before > 0.5):
            return opening
        if steady - self._toggled < self.limits.toggle:
            return before
        self._toggled = steady
        return opening

    def _stays(self, target: Target) -> bool:
        """Whether it is the same as the one before: then that is where to stop, else a place to pass through."""
        before = self._asked
        return before is not None and bool(
            (before.position == target.position).all() and (before.turn == target.turn).all()
        )

    def _give_way(self, state: ArmState, now: float) -> None:
        """Brake. Once stopped for good: go where the arm was measured when the setpoint came to rest, and stay."""
        assert self._motion is not None
        if self.stopped and self._held is None and self._motion.rests:
            self._held = self._place_to_hold(state, now)
        before = self._motion
        if self._held is None:
            self._motion = self._mover.braked(before)
        else:
            self._motion, _ = self._mover.towards(before, *self._held, staying=True)
            if before.rests and self._motion.rests:  # it gets no nearer: joints may not let it
                self._held = self._motion.position, self._motion.turn

    def _place_to_hold(self, state: ArmState, now: float) -> tuple[np.ndarray, np.ndarray]:
        """The measured pose; the setpoint's, where what was measured is no pose, is stale, or is nowhere near.

        It is chosen once: a setpoint that went on following an arm which sags under its load would sink with it.
        """
        assert self._motion is not None
        here = self._motion.position, self._motion.turn
        if self._wrong_with(replace(state, wrench=np.zeros(6))) or self._late(state, now):
            return here
        position, turn = self._mover.inside(state.position, unit_quat(state.turn))
        away, turned = length(position - here[0]), angle_between(turn, here[1])
        near = away <= HOLDABLE * self.limits.lead and turned <= HOLDABLE * self.limits.lead_turn
        return (position, turn) if near else here
