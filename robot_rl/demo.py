"""The verb `demo`: demonstrations in, a better policy out, and a report that shows both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from robot_rl import collect as collecting
from robot_rl import configs
from robot_rl import pretrain as pretraining
from robot_rl import refine as refining
from robot_rl.pretrain import PolicyConfig, PretrainConfig
from robot_rl.refine import RefineConfig
from robot_rl.report import Comparison
from robot_rl.runs import Run
from robot_rl.types import Agent, Env, Player, Spec


@dataclass(frozen=True)
class DemoConfig:
    """Everything a demonstration run is made of; `cli.py` holds one for each world it is offered in."""

    policy: PolicyConfig
    agent: Any
    pretrain: PretrainConfig
    refine: RefineConfig
    demonstrations: int = 40
    """successful demonstrations to collect"""
    skill: float = 0.5
    """of the scripted operator, in [0, 1]"""
    evaluate: int = 100
    """start states on which base and refined are compared"""
    videos: int = 3
    """start states shown side by side; 0: none"""


@dataclass(frozen=True)
class Parts:
    """What the ceiling hands in: the world, and how policies and agents are made, saved and loaded."""

    spec: Spec
    make_env: Callable[[], Env]
    make_operator: Callable[[], Player]
    make_agent: Callable[[Path], Agent]
    save_policy: Callable[[Any, Path], None]
    save_agent: Callable[[Any, Path], None]
    load_agent: Callable[[Path, int | None], Agent]


def demo(out: Path, config: DemoConfig, parts: Parts, *, seed: int, workers: int) -> Path:
    """Collect, pretrain, evaluate, refine, evaluate, report; a stopped run goes on where it was. Returns the report."""
    with Run(out, "demo", {"world": parts.spec.world, "seed": seed, "demo": config}) as run:
        run.begin()
        collecting.collect(
            out / "demos",
            parts.spec,
            parts.make_env,
            parts.make_operator,
            episodes=config.demonstrations,
            seed=seed,
            workers_=workers,
        )
        base = pretraining.pretrain(out / "base", out / "demos", config.policy, config.pretrain, parts.save_policy)
        compare = Comparison(out, parts.make_env, config.evaluate, seed, workers)
        play_base = partial(parts.load_agent, base, config.agent.execute)  # the same rhythm as under the refiner
        compare.play("base", play_base)
        refined = refining.refine(
            out / "refined",
            (out / "demos",),
            parts.make_env,
            partial(parts.make_agent, base),
            config.refine,
            {"agent": config.agent, "policy": str(base.resolve())},
            parts.save_agent,
        )
        compare.play("refined", partial(parts.load_agent, refined, None))
        return compare.report(
            f"{parts.spec.world}: before and after refinement",
            curves=(out / "refined" / "metrics.jsonl", out / "base" / "metrics.jsonl"),
            videos=config.videos,
            config={"seed": seed, **configs.to_data(config)},
        )
