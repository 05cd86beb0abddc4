"""Every refiner on the same base, demonstrations and budget: `python tests/benchmarks/refiners.py can --out runs/can`.

Runs `robot-rl` for each refiner and seed (--only, --seeds; --jobs at once) into --out, where finished and stopped runs
are found again; prints a table of successes on the same 100 start states after so many control steps, and draws them
(curves.png). Takes hours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

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
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    _base(given.task, given.out)
    with ThreadPoolExecutor(given.jobs) as pool:
        list(
            pool.map(
                lambda job: _refine(given.task, given.out, *job), [(n, s) for s in given.seeds for n in given.only]
            )
        )
    print(_table(given.task, given.out, given.only, given.seeds))
    _curves(given.task, given.out, given.only, given.seeds)


def _robot_rl(out: Path, log: str, words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"}
    with open(out / f"{log}.log", "a") as file:
        print("robot-rl", words, flush=True)
        command = [sys.executable, "-m", "robot_rl.cli", *words.split()]
        subprocess.run(command, check=True, cwd=out, stdout=file, stderr=file, env=environment)


def _base(task: str, out: Path) -> None:
    world, demonstrations, steps, _, _ = TASKS[task]
    if not (out / "base" / "report.html").exists():
        for episodes, skill in demonstrations:
            _robot_rl(
                out, "base", f"collect --out demos --world {world} --episodes {episodes} --skill {skill} --workers 1"
            )
        _robot_rl(
            out,
            "base",
            f"pretrain --out base --store demos --steps {steps} --batch 128 --warmup 300 --evaluate 100 --workers 1 "
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
    """Markdown: successes of 100 at each snapshot, a column a seed's worth joined by commas."""
    *_, steps, every = TASKS[task]
    marks = range(every, steps + 1, every)
    lines = [f"| refiner | base | {' | '.join(f'{m:,}' for m in marks)} | length, roughness at the end | human steps |"]
    lines.append("|---" * (len(marks) + 4) + "|")
    for name in names:
        runs = _finished(out, name, seeds)
        if not runs:
            continue
        labels = ["base", *(f"{m} steps" for m in marks)]
        summaries = {label: [_summary(run, label) for run in runs] for label in labels}
        cells = [", ".join(str(s["successes"]) for s in summaries[label]) for label in labels]
        last = summaries[labels[-1]]
        ends = ", ".join(f"{s['mean_success_length'] or 0:.0f}; {s['mean_roughness']:.3f}" for s in last)
        human = ", ".join(f"{_human_steps(run):.0f}" for run in runs)
        lines.append(f"| {name} | {' | '.join(cells)} | {ends} | {human} |")
    return "\n".join(lines)


def _curves(task: str, out: Path, names: list[str], seeds: list[int]) -> None:
    """`curves.png`: success, all seeds of a refiner together, with Wilson intervals, by control and by human steps."""
    *_, steps, every = TASKS[task]
    marks = [0, *range(every, steps + 1, every)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    for name in names:
        runs = _finished(out, name, seeds)
        if not runs:
            continue
        summaries = [[_summary(run, f"{m} steps" if m else "base") for run in (runs if m else runs[:1])] for m in marks]
        won = [sum(s["successes"] for s in at) for at in summaries]
        played = [sum(s["episodes"] for s in at) for at in summaries]
        (line,) = left.plot(marks, np.divide(won, played), marker="o", label=f"{name} ({len(runs)} seeds)")
        low, high = zip(*map(wilson, won, played), strict=True)
        left.fill_between(marks, low, high, color=line.get_color(), alpha=0.1)
        human = [np.mean([_human_steps(run, mark) for run in runs]) for mark in marks]
        if human[-1]:
            right.plot(human, np.divide(won, played), marker="o", color=line.get_color())
    left.set(xlabel="control steps, those of the base alone counted", ylabel="success", ylim=(0, 1))
    right.set(xlabel="human steps")
    left.legend()
    figure.savefig(out / "curves.png", dpi=100)


def _finished(out: Path, name: str, seeds: list[int]) -> list[Path]:
    runs = [out / _folder(name, seed) for seed in seeds]
    return [run for run in runs if (run / "promotion.json").exists()]


def _summary(run: Path, label: str) -> dict[str, float]:
    return json.loads((run / f"evaluation_{label}.json").read_text())["summary"]


def _human_steps(run: Path, until: float = np.inf) -> float:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return sum(row.get("intervened", 0.0) for row in rows if row["step"] <= until)


if __name__ == "__main__":
    main()
