"""The verb `demo`: demonstrations in, a better policy out, and a report that shows both."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from robot_rl import collect as collecting
from robot_rl import configs, report
from robot_rl import evaluate as evaluating
from robot_rl import pretrain as pretraining
from robot_rl import refine as refining
from robot_rl.pretrain import PolicyConfig, PretrainConfig
from robot_rl.refine import RefineConfig
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
    Run(out, "demo", {"world": parts.spec.world, "seed": seed, "demo": config})  # refuses a folder of another demo
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
    evaluate = partial(_evaluated, out, parts, config.evaluate, seed, workers)
    play_base = partial(parts.load_agent, base, config.agent.execute)  # the same rhythm as under the refiner
    before = evaluate("base", play_base)
    refined = refining.refine(
        out / "refined",
        out / "demos",
        parts.make_env,
        partial(parts.make_agent, base),
        config.refine,
        {"agent": config.agent, "policy": str(base.resolve())},
        parts.save_agent,
    )
    play_refined = partial(parts.load_agent, refined, None)
    after = evaluate("refined", play_refined)
    videos = {}
    if config.videos:
        seeds = report.telling_seeds(before, after, config.videos)
        film = report.side_by_side(parts.make_env, [play_base(), play_refined()], seeds, out / "side_by_side.mp4")
        videos = {f"Base (left) and refined (right), the same {len(seeds)} start states": film}
    return report.Report(
        title=f"{parts.spec.world}: before and after refinement",
        evaluations={"base": before, "refined": after},
        curves=(out / "refined" / "metrics.jsonl", out / "base" / "metrics.jsonl"),
        videos=videos,
        config={"seed": seed, **configs.to_data(config)},
    ).write(out / "report.html")


def _evaluated(
    out: Path, parts: Parts, episodes: int, seed: int, workers: int, label: str, play: Callable[[], Agent]
) -> dict[str, Any]:
    """The evaluation of an agent; one that is already there is read, not played again."""
    file = out / f"evaluation_{label}.json"
    if not file.exists():
        result = evaluating.evaluate(
            parts.make_env, play, episodes=episodes, seed=seed, workers_=workers, label=f"evaluate {label}"
        )
        evaluating.write(result, file)
    result = json.loads(file.read_text())
    print(f"{label}: {evaluating.in_words(result)}", flush=True)
    return result
