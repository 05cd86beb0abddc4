"""Every refiner on the same base, demonstrations and budget: `python tests/benchmarks/refiners.py can --out runs/can`.

Runs `robot-rl` for each refiner and seed (--only, --seeds; --jobs at once) into --out, where finished and stopped runs
are found again, and prints the rows of docs/results.md, section 8: successes on the same 100 start states after so many
control steps (`curves.py` draws them from there). With --demonstrations 13 170 it trains the base anew on so many more
demonstrations instead, each time from nothing: what the human's effort would have brought in that way. Takes hours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from robot_rl.episodes import EpisodeStore
from robot_rl.statistics import wilson

TASKS = {
    "can": ("robosuite:PickPlaceCan", [(8, 0.3), (16, 0.6), (24, 0.9)], 20_000, 25_000, 5000),
    "square": ("robosuite:NutAssemblySquare", [(8, 0.3), (16, 0.5), (24, 0.9)], 20_000, 75_000, 25_000),
}  # world; demonstrations in all after each skill; gradient steps of the base; control steps; snapshots
MLP = "policy:flow policy.backbone:mlp-config --policy.backbone.width 256 --policy.backbone.depth 2"
NETS = "--base-steps 5000 --first-updates 10000 agent:{} --agent.width 128 --agent.critic-only 10000"
STEPS = "--agent.scale 0.1 --agent.gripper-scale 0.1 --agent.exploration 0.03"
OFFSETS = "--agent.whole-chunks --agent.scale 0.1 --agent.gripper-scale 0.1 --agent.warm-up-noise 0.06 "
OFFSETS += "--agent.exploration 0.03 --agent.tau 0.02 --agent.actor-learning-rate 1e-4 --agent.ramp 5000"
IMITATION = "--base-steps 2500 --first-updates 2500 agent:corrections"
HUMAN = "--human.skill 0.9 --human.patience 15 --human.help 1 --human.longest 200"
REFINERS = {
    "residual": f"--utd 2 {NETS.format('residual')} --agent.heads 5 {STEPS}",
    "residual, whole chunks": f"--utd 1 {NETS.format('residual')} --agent.heads 5 {OFFSETS}",
    "dsrl": f"--utd 0.5 {NETS.format('dsrl')} --agent.batch 128",
    "expo, human": f"--utd 1 {HUMAN} {NETS.format('expo')}",
    "rlpd, human": f"--utd 1 {HUMAN} {NETS.format('rlpd')} --agent.heads 5",
    "corrections": f"--utd 1 {HUMAN} {IMITATION}",
    "corrections, no human": f"--utd 1 {IMITATION}",
    "residual, whole chunks, human": f"--utd 1 {HUMAN} {NETS.format('residual')} --agent.heads 5 {OFFSETS}",
}


def main() -> None:
    """Base, then all runs, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(REFINERS), choices=REFINERS)
    parser.add_argument("--demonstrations", type=int, nargs="+")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    _base(given.task, given.out)
    jobs: list[Callable[[], None]]
    if given.demonstrations:
        jobs = [partial(_base, given.task, given.out, more) for more in given.demonstrations]
    else:
        jobs = [partial(_refine, given.task, given.out, name, seed) for seed in given.seeds for name in given.only]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda job: job(), jobs))
    if given.demonstrations:
        print(_demonstrations(given.out, given.demonstrations))
    else:
        print(_table(given.task, given.out, given.only, given.seeds))


def _robot_rl(out: Path, log: str, words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"}
    with open(out / f"{log}.log", "a") as file:
        print("robot-rl", words, flush=True)
        command = [sys.executable, "-m", "robot_rl.cli", *words.split()]
        subprocess.run(command, check=True, cwd=out, stdout=file, stderr=file, env=environment)


def _base(task: str, out: Path, more: int = 0) -> None:
    """The base; or one like it that saw `more` demonstrations of the last skill."""
    world, demonstrations, steps, _, _ = TASKS[task]
    episodes, skill = demonstrations[-1]
    demonstrations = [*demonstrations, (episodes + more, skill)] if more else demonstrations
    demos, base = (f"{name}-{more}" if more else name for name in ("demos", "base"))
    if (out / base / "report.html").exists():
        return
    for episodes, skill in demonstrations:
        _robot_rl(out, base, f"collect --out {demos} --world {world} --episodes {episodes} --skill {skill} --workers 1")
    _robot_rl(
        out,
        base,
        f"pretrain --out {base} --store {demos} --steps {steps} --batch 128 --warmup 300 --evaluate 100 --workers 1 "
        f"{MLP}",
    )


def _refine(task: str, out: Path, name: str, seed: int) -> None:
    *_, steps, every = TASKS[task]
    run = _folder(name, seed)
    if not (out / run / "promotion.json").exists():
        _robot_rl(
            out,
            run,
            f"refine --out {run} --policy base --demos demos --seed {seed} --steps {steps} "
            f"--threads 1 --snapshot-every {every} --videos 0 --workers 1 {REFINERS[name]}",
        )


def _folder(name: str, seed: int) -> str:
    return f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def _table(task: str, out: Path, names: list[str], seeds: list[int]) -> str:
    """Rows of markdown, one a finished run: successes of 100 at each snapshot."""
    *_, steps, every = TASKS[task]
    marks = range(every, steps + 1, every)
    titles = ["refiner", "seed", "base", *(f"{m:,}" for m in marks), "length, roughness at the end", "human steps"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, seed in [(name, seed) for name in names for seed in seeds]:
        run = out / _folder(name, seed)
        if (run / "promotion.json").exists():
            summaries = [_summary(run, label) for label in ["base", *(f"{m} steps" for m in marks)]]
            last = summaries[-1]
            length = f"{last['mean_success_length']:.0f}" if last["successes"] else "-"
            ends = f"{length}; {last['mean_roughness']:.3f}"
            cells = [*(str(s["successes"]) for s in summaries[:-1]), _told(last), ends, f"{_human_steps(run):,.0f}"]
            lines.append(f"| {name} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _demonstrations(out: Path, numbers: list[int]) -> str:
    """Rows of markdown: demonstrations more than the base's, their control steps, successes of 100."""
    lines = ["| more demonstrations | their steps | success |", "|---|---|---|"]
    first = _steps(out / "demos")
    for more in numbers:
        summary = json.loads((out / f"base-{more}" / "evaluation.json").read_text())["summary"]
        lines.append(f"| {more} | {_steps(out / f'demos-{more}') - first:,} | {_told(summary)} |")
    return "\n".join(lines)


def _steps(store: Path) -> int:
    episodes = EpisodeStore.open(store)
    return sum(len(episodes.read(i, images=False)) for i in range(len(episodes)))


def _told(summary: dict[str, Any]) -> str:
    low, high = wilson(summary["successes"], summary["episodes"])
    return f"{summary['successes']} ({100 * low:.0f}-{100 * high:.0f} %)"


def _summary(run: Path, label: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / f"evaluation_{label}.json").read_text())["summary"]
    return summary


def _human_steps(run: Path) -> float:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return sum(row.get("intervened", 0.0) for row in rows)


if __name__ == "__main__":
    main()
