"""The range of every number that a user may give, in one table, checked before anything is done.

A number is a field of a config or a parameter of a verb; it is found as "Owner.name" or, where all of a name are alike,
as "name". One that has no range is refused too, so that none can be forgotten (`tests/test_option_ranges.py` looks at
every verb). What depends on more than one number (an attention's heads divide its width) is checked by who needs it.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Any

from robot_rl.types import RobotRLError


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; a bound that is `above` or `below` is not itself allowed."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether it lies within; NaN does not."""
        low = value > self.low if self.above else value >= self.low
        return bool(low and (value < self.high if self.below else value <= self.high))

    def __str__(self) -> str:
        low = f"above {self.low:,g}" if self.above else f"at least {self.low:,g}"
        return f"{low} and {'below' if self.below else 'at most'} {self.high:.10g}"


MANY = 10**9  # steps: at 10,000 a second for a day
COUNT, POSITIVE = Range(0, MANY), Range(1, MANY)
EPISODES, EVALUATED = Range(1, 10**6), Range(0, 10**6)
SHARE, DECAY = Range(0, 1), Range(0, 1, below=True)
SEED, ANY_SEED = Range(0, 999), Range(0, 2**31 - 1)  # of episodes (`seeds.py`); of a random generator
RATE = Range(0, 10, above=True)
SIZE = Range(1, 16_384)
CHUNK = Range(1, 1024)
WEIGHT = Range(0, 1000)
LENGTH = Range(0, 10, above=True)  # [m]

TABLE: dict[str, Range] = {
    # verbs
    "episodes": EPISODES, "deploy.episodes": EVALUATED,
    "evaluate": EVALUATED, "videos": Range(0, 50),
    "workers": Range(1, 256), "skill": SHARE, "seed": SEED, "simulate.seed": ANY_SEED, "deploy.seed": ANY_SEED,
    "execute": CHUNK, "max_steps": Range(1, 10**6), "free_gib": Range(0, 10**6),
    "check.seconds": Range(0, 3600, above=True), "inspect.video_of": COUNT, "view.episode": COUNT,
    # worlds, people, screens
    "image_size": Range(8, 4096), "ScreenConfig.serve": Range(0, 65_535),
    "HumanConfig.patience": EPISODES, "HumanConfig.longest": EPISODES, "HumanConfig.alarm": LENGTH,
    "HumanConfig.help": LENGTH, "HumanConfig.rate": SHARE,
    "RealtimeConfig.blend": Range(0, 1024), "RealtimeConfig.replan": CHUNK,
    # training and practice
    "PretrainConfig.steps": COUNT, "RefineConfig.steps": COUNT, "RewardConfig.steps": COUNT,
    "batch": Range(1, 10**6), "TacoConfig.batch": Range(2, 10**6),
    "learning_rate": RATE, "base_learning_rate": RATE, "actor_learning_rate": RATE, "critic_learning_rate": RATE,
    "weight_decay": Range(0, 10), "warmup": COUNT, "ema": DECAY, "save_every": POSITIVE, "max_episodes": EPISODES,
    "threads": Range(1, 1024), "PretrainConfig.seed": ANY_SEED, "RewardConfig.seed": ANY_SEED,
    "base_steps": COUNT, "offline_updates": COUNT, "first_updates": COUNT, "utd": WEIGHT, "hopeless": COUNT,
    "lead": COUNT, "snapshot_every": COUNT,
    "RewardConfig.last": EPISODES, "RewardConfig.near": EVALUATED, "RewardConfig.false_alarms": DECAY,
    "RewardConfig.held_out": Range(0, 0.5, above=True, below=True),
    # policies
    "horizon": CHUNK, "n_obs": Range(1, 64),
    "FlowConfig.steps": Range(1, 1000), "DiffusionConfig.steps": Range(1, 1000),
    "train_steps": Range(1, 10_000), "width": SIZE, "MlpConfig.depth": Range(0, 64), "depth": Range(1, 64),
    "dropout": DECAY, "TransformerConfig.heads": Range(1, 1024), "VitConfig.heads": Range(1, 1024),
    "UnetConfig.channels": SIZE, "UnetConfig.kernel": Range(1, 63), "ConvConfig.channels": SIZE,
    "ConvConfig.strides": Range(1, 32), "features": SIZE, "crop": Range(1, 4096), "shift": Range(0, 1024),
    "jitter": DECAY, "far": Range(0, 66, above=True),  # what 16 bits of millimetres hold
    # agents
    "heads": Range(2, 100), "gamma": SHARE, "tau": Range(0, 1, above=True), "decay": DECAY, "n_step": CHUNK,
    "demo_share": SHARE, "critic_only": COUNT, "ramp": COUNT, "actor_every": Range(1, 10**6),
    "candidates": Range(1, 256), "bins": Range(0, 1024), "scale": Range(0, 2), "gripper_scale": Range(0, 2),
    "ExpoConfig.scale": Range(0, 2, above=True), "ExpoConfig.gripper_scale": Range(0, 2, above=True),
    "exploration": Range(0, 2), "warm_up_noise": Range(0, 2), "penalty": WEIGHT, "gripper_penalty": WEIGHT,
    "human_weight": WEIGHT, "success_weight": WEIGHT, "bound": Range(0, 100, above=True),
    "temperature": Range(0, 1000, above=True),
    "target_entropy": Range(-100, math.log(2), below=True),  # the entropy of uniform actions
    "coins": Range(1, 1024),
}  # fmt: skip


def range_of(owner: str, name: str) -> Range:
    """Of the parameter `name` of a verb, or the field `name` of a config class."""
    found = TABLE.get(f"{owner}.{name}", TABLE.get(name))
    if found is None:
        raise LookupError(f"{owner}.{name} has no range; give it one in robot_rl/ranges.py")
    return found


def require_value(name: str, value: Any, owner: str, called: str = "") -> Any:
    """`value`, a number or several, in its range; raises with what it is `called`. None and what is no number pass."""
    for number in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if not (allowed := range_of(owner, name)).holds(number):
            raise RobotRLError(f"{called or f'{owner}: {name}'} is {number}; it must be {allowed}")
    return value


def require(config: Any, called: str = "") -> None:
    """Raise unless every number of a config, and of the configs in it, lies in its range.

    `called` begins the names in errors; for a command line these are options.
    """
    owner = type(config).__name__
    for field in fields(config):
        value = getattr(config, field.name)
        name = f"{called}{_option(field.name)}" if called else ""
        if is_dataclass(value):
            require(value, f"{name}." if called else "")
        else:
            require_value(field.name, value, owner, name)


def checked(verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a verb, which first checks every number it is given."""
    hints, signature = typing.get_type_hints(call, include_extras=True), inspect.signature(call)

    @wraps(call)
    def run(*args: Any, **given: Any) -> Any:
        for name, value in signature.bind(*args, **given).arguments.items():
            if is_dataclass(value):
                require(value, "--" if is_flat(hints[name]) else f"--{_option(name)}.")
            elif value == ():
                raise RobotRLError(f"--{_option(name)} is given, and nothing behind it; name one or more")
            else:
                require_value(name, value, verb, f"--{_option(name)}")
        return call(*args, **given)

    return run


def is_flat(hint: Any) -> bool:
    """Whether the fields of a config stand without its name on the command line."""
    return any(getattr(mark, "name", None) == "" for mark in getattr(hint, "__metadata__", ()))


def numbers_of(call: Callable[..., Any], verb: str) -> Iterator[tuple[str, str, str]]:
    """Every number that a verb takes, by its types: option, owner, name. What is chosen among is all listed."""
    for name, hint in typing.get_type_hints(call, include_extras=True).items():
        if name != "return":
            start = "--" if is_flat(hint) else f"--{_option(name)}."
            yield from _numbers(hint, start, f"--{_option(name)}", verb, name)


def _numbers(hint: Any, start: str, option: str, owner: str, name: str) -> Iterator[tuple[str, str, str]]:
    if hint in (int, float):
        yield option, owner, name
    elif hasattr(hint, "__metadata__"):  # Annotated
        yield from _numbers(typing.get_args(hint)[0], start, option, owner, name)
    elif is_dataclass(hint):
        for key, kind in typing.get_type_hints(hint, include_extras=True).items():
            yield from _numbers(
                kind, f"{start}{_option(key)}.", f"{start}{_option(key)}", str(getattr(hint, "__name__", "")), key
            )
    else:
        for kind in typing.get_args(hint):
            yield from _numbers(kind, start, option, owner, name)


def _option(name: str) -> str:
    return name.replace("_", "-")
