"""Worlds by name: `robosuite:<Task>`, `pusht`, `toy`; and the operator that can demonstrate in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from robot_rl import ranges
from robot_rl.types import Env, RobotRLError, Spec
from sim import operators, pusht, toy
from sim.human import HumanConfig, Watched
from sim.pusht import PushTConfig
from sim.robosuite_env import RobosuiteConfig, controller_of
from sim.toy import ToyEnv, ToyOperator


@dataclass(frozen=True)
class WorldConfig:
    """Which world, which arm, and what is seen of it."""

    world: str = "robosuite:Lift"
    """robosuite:<Task> (Lift, PickPlaceCan, NutAssemblySquare, Stack, Door, ...), pusht or toy"""
    arm: str | None = None
    """robosuite's name of the arm; Panda where not given"""
    controller: str | None = None
    """what the actions command: OSC_POSE (where not given), OSC_POSITION or JOINT_POSITION"""
    cameras: tuple[str, ...] = ()
    """cameras whose images are observed, or with _depth behind robosuite's name their depth; none: none is rendered"""
    image_size: int | None = None
    """height and width of those images [pixels]; 84 where not given"""
    shadows: bool | None = None
    """shadows and reflections in those images; rendering is quicker without"""
    max_steps: int | None = None
    """time limit of an episode [control steps]; the task's own where not given"""

    def build(self) -> Env:
        """The world; raises where a name is unknown or an option means nothing there."""
        ranges.require(self)
        family, _, task = self.world.partition(":")
        if family == "robosuite" and task:
            options = ("arm", "controller", "image_size", "shadows")
            given: dict[str, Any] = {k: v for k in options if (v := getattr(self, k)) is not None}
            return RobosuiteConfig(task, cameras=self.cameras, max_steps=self.max_steps, **given).build()
        if self.world == "pusht":
            self._refuse("arm", "controller", "shadows")
            self._require_only(pusht.CAMERA, pusht.IMAGE)
            return PushTConfig(**self._limit(), image=bool(self.cameras)).build()
        if self.world == "toy":
            self._refuse("arm", "controller", "shadows")
            self._require_only(toy.CAMERA, toy.IMAGE)
            return ToyEnv(**self._limit(), image=bool(self.cameras))
        raise RobotRLError(
            f"unknown world '{self.world}'; there are robosuite:<Task> (such as robosuite:Lift), pusht, toy"
            f"{_why_unknown(family, task)}"
        )

    def _require_only(self, camera: str, side: int) -> None:
        if self.cameras not in ((), (camera,)) or self.image_size not in (None, side):
            raise RobotRLError(f"{self.world} has one camera, '{camera}', of {side} pixels, not {self.cameras}")

    def _limit(self) -> dict[str, Any]:
        return {} if self.max_steps is None else {"max_steps": self.max_steps}

    def _refuse(self, *options: str) -> None:
        if given := [option for option in options if getattr(self, option) not in (None, ())]:
            raise RobotRLError(f"the world '{self.world}' has no {' or '.join(given)} to choose; leave it out")


def _why_unknown(family: str, task: str) -> str:
    """What to do about the name of an imported recording, of which no world can be built."""
    if family == "robomimic":
        return (
            f". '{family}:{task}' names what a robomimic file shows; if it holds simulator states, import it anew with "
            f"--world robosuite:{task or '<Task>'}, which replays them"
        )
    if family in ("lerobot", "aloha"):
        return ". That is the name of a recording of a robot: play on the robot itself with `deploy`"
    return ""


def of_spec(spec: Spec, max_steps: int | None = None) -> WorldConfig:
    """The world that a store or a checkpoint was made in."""
    config = WorldConfig(spec.world, spec.arm or None, max_steps=spec.max_steps if max_steps is None else max_steps)
    if spec.world.startswith("robosuite:"):
        config = replace(config, controller=controller_of(spec))
    if spec.cameras:
        first, names = spec.cameras[0], tuple(c.name for c in spec.cameras)
        config = replace(config, cameras=names, image_size=first.height, shadows=None if first.shadows else False)
    return config


@dataclass(frozen=True)
class WatchedConfig:
    """A world with a simulated human beside it."""

    world: WorldConfig
    human: HumanConfig

    def build(self) -> Env:
        """The world; without a human's skill nobody watches."""
        env = self.world.build()
        if self.human.skill is None:
            return env
        return Watched(env, self.human, operator_for(env.spec, self.human.skill))


def operator_for(spec: Spec, skill: float) -> operators.Operator | ToyOperator:
    """The scripted operator of a world; `skill` in [0, 1]."""
    if not 0.0 <= skill <= 1.0:
        raise RobotRLError(f"skill must lie in [0, 1], not {skill}")
    return ToyOperator(skill) if spec.world == "toy" else operators.operator_for(spec, skill)
